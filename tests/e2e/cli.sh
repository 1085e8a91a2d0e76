#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# The command line: help, mistakes in flags, files that are not what they should be, and the promise that an answer
# does not depend on how it is computed.
cd "$(dirname "$0")/../.." || exit 1
. tests/e2e/lib_e2e.sh

model=$TMPDIR/random.gguf
make_model "$model" --type q4_0 || exit 1
guide=models/guide.gguf

# ---- help and version

helps() {
    run "$SOVEREIGN" "$@"
    exits 0 && out_has 'Usage: sovereign' && equal "$err" ''
}
check 'help without a command' helps --help
for command in serve query chat generate tokenize logits inspect ihsan verify bench canonical-json; do
    check "$command --help" helps "$command" --help
    check "help $command" helps help "$command"
done
version() {
    run "$SOVEREIGN" --version
    exits 0 && out_has 'sovereign 0.' && out_has 'arithmetic version 1' && out_has 'scalar'
}
check 'version, arithmetic version and instruction sets' version

# ---- a wrong command line: status 2, on stderr

check 'no command' fails 2 'Commands:' "$SOVEREIGN"
check 'an unknown command names the nearest' fails 2 "did you mean 'generate'?" "$SOVEREIGN" genrate
check 'an unknown command lists the commands' fails 2 'tokenize' "$SOVEREIGN" frobnicate
check 'an unknown flag names the nearest' fails 2 'did you mean --port?' "$SOVEREIGN" serve --prot 1
check 'a flag without its value' fails 2 '--port: needs a value' "$SOVEREIGN" serve --port
check 'a port out of range' fails 2 '--port 99999: must be a whole number, 0 to 65535' "$SOVEREIGN" serve --port 99999
check 'a negative number' fails 2 '--max-tokens -1: must be' "$SOVEREIGN" generate -p x -n -1
check 'a huge number' fails 2 '--max-tokens 99999999999999999999: must be' \
    "$SOVEREIGN" generate -p x -n 99999999999999999999
check 'digits and more' fails 2 '--threads 2x: must be' "$SOVEREIGN" generate -p x --threads 2x
for value in nan inf -0.5 1e99 '' 0x1; do
    check "temperature '$value'" fails 2 "--temperature $value: must be a number" \
        "$SOVEREIGN" generate -p x --temperature "$value"
done
check 'top_p above 1' fails 2 '--top-p 1.5: must be a number, 0 to 1' "$SOVEREIGN" generate -p x --top-p 1.5
check 'an unknown instruction set' fails 2 'scalar' "$SOVEREIGN" generate -p x --isa mmx
check 'an unknown time to tune' fails 2 'must be auto, always or never' "$SOVEREIGN" generate -p x --tune sometimes
check 'an unknown chat template' fails 2 'chatml' "$SOVEREIGN" serve --chat-template jinja
check 'no prompt' fails 2 'give --prompt' "$SOVEREIGN" generate
check 'an empty stop text' fails 2 '--stop: must be 1 to 1024 bytes' "$SOVEREIGN" generate -p x --stop ''
check 'system message without chat' fails 2 'only with --chat' "$SOVEREIGN" generate -p x --system y
check 'log probabilities without JSON' fails 2 'only with --json' "$SOVEREIGN" generate -p x --logprobs 1
check 'logits without a file' fails 2 '--out FILE is needed' "$SOVEREIGN" logits --prompt x
check 'an argument too many' fails 2 "unexpected argument 'x'" "$SOVEREIGN" generate x

# ---- files

check 'no such file' fails 1 "$TMPDIR/nowhere.gguf" "$SOVEREIGN" generate -p x --model "$TMPDIR/nowhere.gguf"
check 'a folder' fails 1 "$TMPDIR" "$SOVEREIGN" generate -p x --model "$TMPDIR"
: >"$TMPDIR/empty.gguf"
check 'an empty file' fails 1 "$TMPDIR/empty.gguf" "$SOVEREIGN" generate -p x --model "$TMPDIR/empty.gguf"
echo 'This is a text, not a model, and long enough to hold a header.' >"$TMPDIR/text.gguf"
check 'wrong magic' fails 1 'GGUF' "$SOVEREIGN" generate -p x --model "$TMPDIR/text.gguf"
check 'wrong magic, inspected' fails 1 'GGUF' "$SOVEREIGN" inspect "$TMPDIR/text.gguf"
size=$(stat -c %s "$model")
for part in 4 20 1000 $((size / 2)) $((size - 1)); do
    head -c "$part" "$model" >"$TMPDIR/cut.gguf"
    check "cut off after $part bytes" fails 1 "$TMPDIR/cut.gguf" "$SOVEREIGN" generate -p x --model "$TMPDIR/cut.gguf"
done

# A file with a bit flipped in its metadata may still be a model, or not; it must never end us by a signal.
survives_flips() {
    local offset bit value seed=12345
    for _ in $(seq 60); do
        seed=$(((seed * 1103515245 + 12345) % 2147483648))
        offset=$((seed % 4096))
        bit=$((seed / 65536 % 8))
        cp "$model" "$TMPDIR/flip.gguf"
        value=$(od -An -tu1 -j "$offset" -N 1 "$model")
        printf "\\x$(printf %02x $((value ^ (1 << bit))))" |
            dd of="$TMPDIR/flip.gguf" bs=1 seek="$offset" conv=notrunc status=none
        run timeout 60 "$SOVEREIGN" generate --quiet -n 1 -p x --model "$TMPDIR/flip.gguf"
        case $status in
        0) ;;
        1) [ -n "$err" ] || return 1 ;;
        *) echo "bit $bit of byte $offset: exit status $status: $err" && return 1 ;;
        esac
    done
}
check 'flipped bits in the metadata' survives_flips

no_permission() {
    cp "$model" "$TMPDIR/secret.gguf"
    chmod 000 "$TMPDIR/secret.gguf"
    if [ "$(id -u)" = 0 ]; then
        fails 1 'ermission' setpriv --bounding-set=-dac_override,-dac_read_search \
            "$SOVEREIGN" generate -p x --model "$TMPDIR/secret.gguf"
    else
        fails 1 'ermission' "$SOVEREIGN" generate -p x --model "$TMPDIR/secret.gguf"
    fi
}
check 'no permission' no_permission
check 'a prompt file that is not there' fails 1 "$TMPDIR/none.txt: cannot be opened" \
    "$SOVEREIGN" generate --quiet --model "$model" --prompt-file "$TMPDIR/none.txt"

# ---- limits

long=$(printf 'word %.0s' $(seq 300))
check 'a prompt longer than the context' fails 1 '64' \
    "$SOVEREIGN" generate --quiet --model "$model" --ctx 64 --prompt "$long"
check 'KV memory too small says which flags' fails 1 '--kv-memory' \
    "$SOVEREIGN" generate --quiet --model "$model" --kv-memory 1k --prompt x
check 'KV memory that no machine has' fails 1 '--ctx' \
    "$SOVEREIGN" serve --port 0 --model "$model" --ctx 1048576 --parallel 256 --kv-memory 9000T

# ---- answers

runs() {
    run "$@"
    exits 0
}
plain() {
    run "$SOVEREIGN" generate --quiet --model "$guide" --chat --prompt 'What is Sovereign?'
    exits 0 && out_has 'Sovereign' && equal "$err" ''
}
check 'generate prints an answer and nothing else' plain
builtin() {
    run "$SOVEREIGN" generate --chat --prompt 'What is Sovereign?'
    exits 0 && out_has 'Sovereign' && err_has '--model FILE.gguf'
}
check 'without --model the built-in guide answers, and says how to use another' builtin
check 'a prompt of invalid UTF-8' runs "$SOVEREIGN" generate --quiet -n 2 --model "$model" --prompt $'\xff\xfe\xc3('
check 'no tokens at all' runs "$SOVEREIGN" generate --quiet -n 0 --json --model "$model" --prompt x

json() {
    run "$SOVEREIGN" generate --quiet --json --ignore-eos -n 5 --logprobs 2 --model "$model" --prompt 'Hello'
    exits 0 && equal "$(json_field finish_reason)" length && equal "$(json_field completion_tokens)" 5 &&
        equal "$(json_field logits_digest | wc -c)" 65 &&
        equal "$(grep -o '"tokens":\[[0-9,]*\]' <<<"$out" | tr -cd , | wc -c)" 4 && out_has '"logprobs":[{' &&
        out_has '"timings":{' && out_has '"text":"'
}
check 'the JSON of an answer' json
full() {
    [ -w /dev/full ] || return 0
    "$SOVEREIGN" generate --quiet -n 2 --model "$model" --prompt x 2>"$TMPDIR/full.err" >/dev/full
    equal $? 1 && has "$(cat "$TMPDIR/full.err")" 'could not be written'
}
check 'a full disk is an error' full

# The same digest however it is computed.
digest() { # digest FLAGS...: of the first prompt
    run "$SOVEREIGN" generate --quiet --json --ignore-eos -n 24 --model "$model" \
        --prompt 'The same answer, to the bit, whatever computes it.' "$@"
    [ "$status" = 0 ] || echo "$err"
    json_field logits_digest
}
reference=$(digest --isa scalar --threads 1)
check 'a digest is 64 digits' equal "${#reference}" 64
for isa in scalar avx2 avx512 amx neon; do
    "$SOVEREIGN" --version | grep -q "[ :]${isa}[ )]" || continue
    for threads in 1 2 4; do
        check "same digest: $isa, $threads threads" equal "$(digest --isa $isa --threads $threads)" "$reference"
    done
done
for chunk in 1 7 64 512; do
    check "same digest: prefill chunk $chunk" equal "$(digest --prefill-chunk $chunk)" "$reference"
done
check 'same digest: beside two others' equal \
    "$(digest --prompt 'Another' --prompt "$long" | head -n 1)" "$reference"
check 'same digest: one at a time' equal \
    "$(digest --parallel 1 --prompt 'Another' | head -n 1)" "$reference"
different() { [ "$(digest --temperature 1 --seed 1)" != "$(digest --temperature 1 --seed 2)" ]; }
check 'another seed gives another answer' different
check 'same digest: kernels chosen by measuring them now' equal "$(digest --tune always)" "$reference"
check 'the same seed gives the same answer' equal "$(digest --temperature 1 --seed 7 --isa scalar)" \
    "$(digest --temperature 1 --seed 7)"

# ---- tokenize and logits

ids() { # ids TEXT FLAGS...
    local text=$1
    shift
    printf '%s' "$text" | "$SOVEREIGN" tokenize --quiet --model "$guide" "$@"
}
check 'token ids are numbers on one line' grep -qxE '[0-9]+( [0-9]+)*' <(ids 'Hello, world')
check 'no text, no ids without special tokens' equal "$(ids '' --no-special)" ''
check 'special text is plain with --no-special' test "$(ids '<|im_end|>' --no-special | wc -w)" -gt 1
check 'pieces give the text back' equal "$(ids 'two words' --no-special --pieces | cut -f2 | tr -d '"\n')" 'two words'
binary() {
    printf 'a\0b\xff' | "$SOVEREIGN" tokenize --quiet --model "$guide" >"$TMPDIR/binary.out"
}
check 'zero bytes and invalid UTF-8' binary

logits() { # logits FILE FLAGS...
    local file=$1
    shift
    "$SOVEREIGN" logits --quiet --model "$model" --prompt 'Logits of every position' --out "$file" "$@"
}
logits_size() {
    local words tokens bytes
    logits "$TMPDIR/a.f32" || return 1
    tokens=$(printf 'Logits of every position' | "$SOVEREIGN" tokenize --quiet --model "$model" | wc -w)
    words=$("$SOVEREIGN" logits --model "$model" --prompt 'Logits of every position' --out "$TMPDIR/b.f32" 2>&1)
    bytes=$(stat -c %s "$TMPDIR/a.f32")
    has "$words" "$tokens positions" && equal $((bytes % (tokens * 4))) 0 && cmp "$TMPDIR/a.f32" "$TMPDIR/b.f32"
}
check 'logits: positions x vocabulary float32' logits_size
logits_same() {
    logits "$TMPDIR/c.f32" --isa scalar --threads 1 --prefill-chunk 3 && cmp "$TMPDIR/a.f32" "$TMPDIR/c.f32"
}
check 'logits: the same bits from scalar code in small chunks' logits_same
logits_full() {
    [ -w /dev/full ] || return 0
    fails 1 'cannot be written' "$SOVEREIGN" logits --quiet --model "$model" --prompt x --out /dev/full
}
check 'logits: a full disk is an error' logits_full
check 'logits: a folder that is not there' fails 1 'cannot be opened for writing' \
    "$SOVEREIGN" logits --quiet --model "$model" --prompt x --out "$TMPDIR/none/x.f32"

inspects() {
    run "$SOVEREIGN" inspect "$model"
    exits 0 && out_has 'token_embd.weight' && out_has 'llama'
}
check 'inspect lists the tensors' inspects
finish
