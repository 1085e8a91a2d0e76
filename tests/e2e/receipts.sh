#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Receipts from the command line: made by generate, checked by verify, with the exit status for each thing that can be
# wrong. tests/test_runtime_receipt_read.c tampers with every field; here it is the programs, the files and the disk.
cd "$(dirname "$0")/../.." || exit 1
. tests/e2e/lib_e2e.sh

model=$TMPDIR/random.gguf other=$TMPDIR/other.gguf data=$TMPDIR/data
make_model "$model" --type q4_0 || exit 1
make_model "$other" --type q4_0 --seed 2 || exit 1

# receipt FILE [flags]: an answer with its receipt.
receipt() {
    local file=$1
    shift
    run "$SOVEREIGN" generate --model "$model" --quiet --data-dir "$data" --receipt "$file" -n 24 "$@"
    exits 0
}
# verified FILE [flags]
verified() {
    local file=$1
    shift
    run "$SOVEREIGN" verify "$file" --model "$model" --quiet "$@"
    exits 0 && out_has 'signature  good' && out_has 'model      good' && out_has 'tokens are what the sampler picks' &&
        out_has '% of the' && equal "$err" ''
}
# refuses STATUS MESSAGE FILE [flags]
refuses() {
    local expected=$1 message=$2 file=$3
    shift 3
    run "$SOVEREIGN" verify "$file" --model "$model" --quiet "$@"
    exits "$expected" && err_has "$message" && { case $out in *verified*) return 1 ;; esac; }
}

# ---- answers of all kinds

made_and_verified() { receipt "$@" && verified "$1"; }
r=$TMPDIR/r.json
step 'greedy' made_and_verified "$r" -p 'Once upon a time'
step 'temperature and seed' made_and_verified "$TMPDIR/t.json" -p 'x' --temperature 0.9 --seed 18446744073709551615
step 'filters and penalties' made_and_verified "$TMPDIR/p.json" -p 'x y' --temperature 1 --top-k 50 --top-p 0.9 \
    --min-p 0.01 --repetition-penalty 1.2 --presence-penalty 0.5 --frequency-penalty -0.5 --penalty-window -1
step 'stop texts' made_and_verified "$TMPDIR/s.json" -p 'x' --temperature 2 --stop e --stop 'the' --stop '"\'
step 'a chat' made_and_verified "$TMPDIR/c.json" --chat --system 'Be "brief".' -p $'Why?\n'
step 'keys and values in 8 bits' made_and_verified "$TMPDIR/k.json" -p 'Once' --kv-type q8_0
step 'no tokens at all' receipt "$TMPDIR/n.json" -p 'Once' -n 0
nothing_to_pick() {
    run "$SOVEREIGN" verify "$TMPDIR/n.json" --model "$model" --quiet
    exits 0 && out_has 'all 0 tokens' && out_has 'finish length'
}
step 'nothing to pick' nothing_to_pick
printf 'a\377\0b' >"$TMPDIR/bytes"
step 'a prompt of any bytes' made_and_verified "$TMPDIR/b.json" --prompt-file "$TMPDIR/bytes"
guide() {
    run "$SOVEREIGN" generate --chat -p 'What is Sovereign?' --quiet --data-dir "$data" --receipt "$TMPDIR/g.json" &&
        exits 0 && run "$SOVEREIGN" verify "$TMPDIR/g.json" --quiet && exits 0 && out_has 'finish stop'
}
step 'the built-in model' guide
with_json() {
    run "$SOVEREIGN" generate --model "$model" --json -p 'Once upon a time' -n 24 --quiet --data-dir "$data" \
        --receipt "$TMPDIR/j.json"
    exits 0 && equal "$(json_field logits_digest)" "$(out=$(cat "$TMPDIR/j.json") json_field logits_digest)"
}
step 'the digest is the one that --json prints' with_json

# ---- on every instruction set and with any threads

for isa in scalar avx2 avx512 neon; do
    "$SOVEREIGN" --version | grep -q "(.*\b$isa\b" || continue
    for threads in 1 3; do
        step "verified by $isa, $threads threads" verified "$TMPDIR/t.json" --isa $isa --threads $threads
    done
    step "made by $isa" made_and_verified "$TMPDIR/i.json" -p 'Once' --isa $isa --temperature 1 --seed 3
done

# ---- spelled otherwise

canonical() { cmp "$r" <("$SOVEREIGN" canonical-json <"$r"); }
step 'a receipt is canonical' canonical
sed 's/[{,]/&\n  /g' "$r" >"$TMPDIR/pretty.json"
step 'spaces do not matter' verified "$TMPDIR/pretty.json"
from_pipe() { "$SOVEREIGN" verify - --model "$model" --quiet <"$r" >"$TMPDIR/out" && grep -q verified "$TMPDIR/out"; }
step 'from standard input' from_pipe

# ---- what is wrong, by exit status

sed 's/^{/{"zebra":1,/' "$r" >"$TMPDIR/unknown.json"
step 'out of order' refuses 3 'is not in its order' "$TMPDIR/unknown.json"
sed 's/"version":1}$/"version":1,"zebra":1}/' "$r" >"$TMPDIR/unknown.json"
step 'an unknown member' refuses 3 'zebra: is no member of a receipt' "$TMPDIR/unknown.json"
sed 's/"version":1}$/"version":1,"version":1}/' "$r" >"$TMPDIR/twice.json"
step 'a member twice' refuses 3 'a second member "version"' "$TMPDIR/twice.json"
sed 's/"version":1}$/"version":2}/' "$r" >"$TMPDIR/later.json"
step 'a later format' refuses 3 'this program reads version 1' "$TMPDIR/later.json"
sed 's/"version":1}$/"version":1,"zebra\\u001b[2J":1}/' "$r" >"$TMPDIR/escape.json"
no_escape() { refuses 3 'zebra' "$TMPDIR/escape.json" && ! grep -q $'\033' "$TMPDIR/run.err"; }
step 'what a receipt is called cannot command a terminal' no_escape
head -c 300 "$r" >"$TMPDIR/half.json"
step 'half a file' refuses 3 'has no end' "$TMPDIR/half.json"
: >"$TMPDIR/empty.json"
step 'an empty file' refuses 3 'the text ends where a value is expected' "$TMPDIR/empty.json"
step 'no file' refuses 3 'cannot be opened' "$TMPDIR/nowhere.json"
step 'a folder' refuses 3 "$TMPDIR" "$TMPDIR"
sed 's/"evidence":{.*},"finish/"finish/' "$r" >"$TMPDIR/bare.json"
step 'no evidence' refuses 3 'has no evidence' "$TMPDIR/bare.json"

sed 's/"time":"2/"time":"1/' "$r" >"$TMPDIR/time.json"
step 'another time' refuses 4 'the signature is not node' "$TMPDIR/time.json"
step 'another node than expected' refuses 4 'it is signed by node' "$r" --public-key "$(printf '0%.0s' {1..64})"
node=$(out=$(cat "$r") json_field node)
step 'the node that was expected' verified "$r" --public-key "$node"

another_model() {
    run "$SOVEREIGN" verify "$r" --model "$other" --quiet
    exits 5 && err_has 'it is of the model file'
}
step 'another model' another_model
cp "$model" "$TMPDIR/cut.gguf" && truncate -s -1 "$TMPDIR/cut.gguf"
cut_model() {
    run "$SOVEREIGN" verify "$r" --model "$TMPDIR/cut.gguf" --quiet
    exits 5
}
step 'a model file that lost a byte' cut_model
no_model() {
    run "$SOVEREIGN" verify "$r" --model "$TMPDIR/nowhere.gguf" --quiet
    exits 1 && err_has "$TMPDIR/nowhere.gguf"
}
step 'no model file' no_model
sed 's/"seed":"0"/"seed":"1"/' "$r" >"$TMPDIR/seed.json"
step 'another request' refuses 6 'evidence.request is not what request_digest is of' "$TMPDIR/seed.json"
sed 's/"tokens":\[[0-9]*,/"tokens":[7,/' "$r" >"$TMPDIR/token.json"
step 'another token' refuses 6 'evidence.tokens is not what tokens_digest is of' "$TMPDIR/token.json"
sed 's/"text":"/&x/' "$r" >"$TMPDIR/text.json"
step 'another text' refuses 6 'evidence.text is not the text of its tokens' "$TMPDIR/text.json"

# ---- for scripts

# json STATUS VERDICT STEP FILE [flags]
json() {
    local expected=$1 verdict=$2 failed=$3 file=$4
    shift 4
    run "$SOVEREIGN" verify "$file" --quiet --json "$@"
    exits "$expected" && equal "$(json_field verdict)" "$verdict" && equal "$(json_field exit_status)" "$expected" &&
        equal "$(json_field failed_step)" "$failed" && equal "$(wc -l <<<"$out")" 1 &&
        "$SOVEREIGN" canonical-json <<<"$out" >/dev/null
}
json_verified() {
    json 0 verified null "$r" --model "$model" && equal "$err" '' && equal "$(json_field matching_tokens)" 24 &&
        equal "$(json_field answer_tokens)" 24 && out_has '"first_difference":null,"logits_equal":true,' &&
        out_has '"text":"good","answer":"good"}' && equal "$(json_field node)" "$node" &&
        grep -Eq '"pass_ms":[0-9.]+,"fraction":[0-9.]+}$' <<<"$out"
}
step 'verified, as JSON' json_verified
json_refused() {
    json 3 unreadable read "$TMPDIR/half.json" --model "$model" && out_has '"message":"' && err_has 'has no end' &&
        json 3 unreadable evidence "$TMPDIR/bare.json" --model "$model" && out_has '"evidence":"bad"' &&
        json 4 bad_signature signature "$TMPDIR/time.json" --model "$model" && out_has '"signature":"bad"' &&
        json 5 other_model model "$r" --model "$other" && out_has '"model":"bad","text":"not_made"' &&
        json 6 mismatch text "$TMPDIR/text.json" --model "$model" && out_has '"text":"bad"' &&
        json 1 undecided model "$r" --model "$TMPDIR/nowhere.gguf" && out_has '"model":"not_made"'
}
step 'what is wrong, as JSON' json_refused
# A node signs another model's answer as this one's: it believes the digest that it remembers. The other model is the
# guide, whose file is old enough to be remembered and whose vocabulary is this one's.
lie() {
    receipt "$TMPDIR/lie.json" -p 'Once upon a time' --ignore-eos --model models/guide.gguf --data-dir "$TMPDIR/liar" || return 1
    sed -i "s/ [0-9a-f]*\$/ $(b2sum -l 256 "$model" | cut -d ' ' -f 1)/" "$TMPDIR/liar/model-digests"
    receipt "$TMPDIR/lie.json" -p 'Once upon a time' --ignore-eos --model models/guide.gguf --data-dir "$TMPDIR/liar" || return 1
    json 6 mismatch answer "$TMPDIR/lie.json" --model "$model" && out_has '"text":"good","answer":"bad"}' &&
        out_has '"logits_equal":false' && equal "$(json_field position)" "$(json_field matching_tokens)" &&
        ! equal "$(json_field receipt)" "$(json_field model)" >/dev/null && [ "$(json_field position)" -lt 24 ] &&
        err_has 'lie.json'
}
step 'the first position that differs, as JSON' lie

check 'no receipt named' fails 2 "give the receipt's file" "$SOVEREIGN" verify
check 'a key that is none' fails 2 '--public-key: must be 64 hexadecimal digits' "$SOVEREIGN" verify x --public-key 12
check 'two prompts' fails 2 '--receipt: only with one prompt' "$SOVEREIGN" generate -p a -p b --receipt "$TMPDIR/x"
check 'a data folder for nothing' fails 2 '--data-dir: only with --receipt' "$SOVEREIGN" generate -p a --data-dir x

# ---- the node's key, the digests, the disk

private() { equal "$(stat -c %a "$data" "$data/node.key" | tr '\n' ' ')" '700 600 '; }
step 'folder and key are for their owner only' private
same_node() { receipt "$TMPDIR/again.json" -p y && equal "$(out=$(cat "$TMPDIR/again.json") json_field node)" "$node"; }
step 'the same node every time' same_node
chmod 644 "$data/node.key"
open_key() {
    run "$SOVEREIGN" generate --model "$model" -p x -n 1 --data-dir "$data" --receipt "$TMPDIR/x.json" --quiet
    exits 1 && err_has 'node.key: has mode 0644' && equal "$out" '' && [ ! -e "$TMPDIR/x.json" ]
}
step 'a key that others can read is refused before anything is computed' open_key
chmod 600 "$data/node.key"
usual() {
    XDG_STATE_HOME=$TMPDIR/state run "$SOVEREIGN" generate --model "$model" -p x -n 1 --receipt "$TMPDIR/u.json" --quiet
    exits 0 && [ -f "$TMPDIR/state/sovereign/node.key" ]
}
step 'without --data-dir the key is in the usual folder' usual
remembered() {
    local digest
    digest=$(b2sum -l 256 models/guide.gguf | cut -d ' ' -f 1)
    run "$SOVEREIGN" generate --model models/guide.gguf --chat -p 'What is Sovereign?' --quiet --data-dir "$data" \
        --receipt "$TMPDIR/m.json"
    exits 0 && grep -q " $digest\$" "$data/model-digests" &&
        run "$SOVEREIGN" verify "$TMPDIR/m.json" --model models/guide.gguf --data-dir "$data" --quiet && exits 0
}
step "digests of files are b2sum's, and remembered" remembered

unwritable() {
    run "$SOVEREIGN" generate --model "$model" -p x -n 1 --data-dir "$data" --receipt "$TMPDIR/no/such.json" --quiet
    exits 1 && err_has "--receipt $TMPDIR/no/such.json"
}
step 'a folder that is not there' unwritable
# Files of that process may have 512 bytes: fewer than a receipt takes.
no_space() {
    echo old >"$TMPDIR/kept.json"
    (
        trap '' XFSZ
        ulimit -f 1
        "$SOVEREIGN" generate --model "$model" -p x -n 9 --data-dir "$data" --receipt "$TMPDIR/kept.json" --quiet
    ) >"$TMPDIR/run.out" 2>"$TMPDIR/run.err"
    equal "$?" 1 && has "$(cat "$TMPDIR/run.err")" 'cannot be written' && equal "$(cat "$TMPDIR/kept.json")" old &&
        equal "$(ls "$TMPDIR"/kept.json*)" "$TMPDIR/kept.json"
}
step 'on a full disk the old file stays' no_space
device() {
    [ -e /dev/full ] || return 0
    run "$SOVEREIGN" generate --model "$model" -p x -n 1 --data-dir "$data" --receipt /dev/full --quiet
    exits 1 && err_has '--receipt /dev/full: cannot be written' && [ -c /dev/full ]
}
step 'a device stays one' device
finish
