#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# sovereign query: answer, JSON, events, gate and receipt; and what is wrong with its flags and files.
cd "$(dirname "$0")/../.." || exit 1
. tests/e2e/lib_e2e.sh

question='What is Sovereign?'
# js EXPRESSION: of the JSON objects in $out, one per line, as `all`, and the first as `o`.
js() {
    node -e 'const all = require("fs").readFileSync(0, "utf8").trim().split("\n").map(l => JSON.parse(l)), o = all[0];
        console.log(eval(process.argv[1]))' "$1" <<<"$out"
}
query() { run "$SOVEREIGN" query "$@" --quiet; }

answers() {
    query "$question"
    exits 0 && out_has 'inference server' && equal "$err" ''
}
check 'the answer alone goes to a pipe' answers
same_as_generate() {
    query "$question" --json
    local answer
    answer=$(js o.answer)
    run "$SOVEREIGN" generate --chat --prompt "$question" --quiet
    equal "$answer" "$out"
}
check 'it is what generate --chat says' same_as_generate
# query_from FILE FLAG...: with FILE as standard input.
query_from() {
    local input=$1
    shift
    run bash -c 'exec "$SOVEREIGN" query "$@" --quiet <"$0"' "$input" "$@"
}
piped() {
    query "$question"
    local answer=$out
    printf '%s' "$question" >"$TMPDIR/question.txt"
    query_from "$TMPDIR/question.txt" -
    exits 0 && equal "$out" "$answer" && equal "$err" '' || return 1
    query_from "$TMPDIR/question.txt" --prompt-file -
    exits 0 && equal "$out" "$answer" || return 1
    query --prompt-file "$TMPDIR/question.txt"
    exits 0 && equal "$out" "$answer"
}
check 'a question from standard input and from a file' piped
too_long() {
    for _ in {1..3000}; do printf 'why '; done >"$TMPDIR/long.txt"
    query_from "$TMPDIR/long.txt" - --ctx 512
    exits 1 && err_has 'content has' && err_has 'the context is 512 tokens'
}
check 'one that is too long for the context' too_long
no_text() {
    printf 'a\xff' >"$TMPDIR/bytes"
    query_from "$TMPDIR/bytes" -
    exits 1 && err_has 'content is not valid UTF-8'
}
check 'one that is no text' no_text
scored() {
    query "$question" --json
    exits 0 && equal "$(js 'Object.keys(o.ihsan).length')" 8 &&
        equal "$(js 'Object.keys(o.ntu)+""')" 'belief,entropy,potential' &&
        equal "$(js '[o.status, o.gate.verdict, o.cache.status].join(" ")')" 'complete off bypass'
}
check 'JSON has scores, state and verdict' scored
threads() {
    query "$question" --json --threads 1
    local one
    one=$(js 'JSON.stringify([o.answer, o.ihsan, o.ntu])')
    query "$question" --json --isa scalar
    equal "$(js 'JSON.stringify([o.answer, o.ihsan, o.ntu])')" "$one"
}
check 'scores depend on neither threads nor instruction set' threads
events() {
    query "$question" --stream
    exits 0 && equal "$(js 'all.map(e => e.event).filter((e, i, l) => e != l[i - 1]).join(" ")')" 'answer scores done'
}
check 'events, one per line' events
withheld() {
    query "$question" --json --gate enforce --gate-minimum 1
    exits 1 && equal "$(js 'o.status + " " + o.answer')" 'withheld null' &&
        err_has 'the gate withholds the answer: the score of truthfulness'
}
check 'what falls short is withheld, with status 1' withheld
withheld_by_state() {
    query "$question" --json --gate enforce --gate-potential 1
    exits 1 && equal "$(js 'o.status + " " + o.gate.reasons.length + " " + o.gate.threshold.potential')" 'withheld 1 1' &&
        err_has 'the gate withholds the answer: the potential is' || return 1
    query "$question" --json --gate enforce --gate-entropy 0.5 --gate-potential -0.5
    exits 0 && equal "$(js 'o.gate.verdict + " " + o.gate.threshold.entropy')" 'pass 0.5'
}
check 'entropy and potential may be asked for, too' withheld_by_state
stopped() {
    query "$question" --no-reasoning --json || return 1
    local whole
    whole=$(js 'o.answer')
    query "$question" --no-reasoning --json --stop "${whole:5:3}"
    exits 0 && equal "$(js 'o.status + " " + o.answer')" "complete ${whole%%"${whole:5:3}"*}"
}
check 'a stop text ends the answer' stopped
receipt() {
    query "$question" --receipt "$TMPDIR/receipt.json" --data-dir "$TMPDIR/node"
    exits 0 && run "$SOVEREIGN" verify "$TMPDIR/receipt.json" && exits 0 && out_has 'verified'
}
check 'its receipt is verified' receipt

check 'no question' fails 2 'give a question' "$SOVEREIGN" query
check 'an empty question' fails 2 'the question is empty' "$SOVEREIGN" query --quiet ' '
check 'an empty question from a pipe' fails 2 'the question is empty' "$SOVEREIGN" query --quiet -
check 'a file that is not there' fails 1 "$TMPDIR/none: cannot be opened" "$SOVEREIGN" query --prompt-file "$TMPDIR/none"
check 'a question twice' fails 2 'a question or --prompt-file, not both' "$SOVEREIGN" query x --prompt-file -
check 'a stop text of nothing' fails 2 '--stop: must be 1 to 1024 bytes' "$SOVEREIGN" query x --stop ''
check 'depth beyond 8' fails 2 '--max-depth 9: must be' "$SOVEREIGN" query x --max-depth 9
check 'an unknown mode of the gate' fails 2 'off, observe or enforce' "$SOVEREIGN" query x --gate on
check 'a gate for all that is off' fails 2 '--gate observe or enforce' "$SOVEREIGN" serve --gate-all
check 'a threshold above 1' fails 2 '--gate-mean 2: must be' "$SOVEREIGN" query x --gate-mean 2
check 'an entropy above 5' fails 2 '--gate-entropy 6: must be' "$SOVEREIGN" query x --gate-entropy 6
check 'a potential below -1' fails 2 '--gate-potential -2: must be' "$SOVEREIGN" query x --gate-potential -2
check 'two forms at once' fails 2 'not both' "$SOVEREIGN" query x --json --stream
echo '{"weights": [[1]], "bias": [0, 0, 0]}' >"$TMPDIR/weights.json"
check 'weights that are not 3 x 8' fails 1 "$TMPDIR/weights.json" "$SOVEREIGN" query x --ihsan-weights "$TMPDIR/weights.json"
echo '{"dimensions": {}}' >"$TMPDIR/rubric.json"
check 'a rubric without a dimension' fails 1 'truthfulness' "$SOVEREIGN" query x --rubric "$TMPDIR/rubric.json"
check 'no such rubric' fails 1 "$TMPDIR/none.json" "$SOVEREIGN" query x --rubric "$TMPDIR/none.json"
thinks() {
    make_model "$TMPDIR/words.gguf" --type q4_0 || return 1
    query x --model "$TMPDIR/words.gguf" -n 8 --max-depth 3 --stop-belief 0 --json
    exits 0 && equal "$(js '[o.depth_reached, o.thoughts.length, Object.keys(o.thoughts[2].ihsan).length].join(" ")')" '3 3 8'
}
check 'a model with words thinks in scored steps' thinks
"$BUILD/mkmodel" --arch llama --dim 64 --layers 2 --heads 4 --kv-heads 2 --ffn 128 --type q4_0 --seed 1 \
    --vocab-bytes 512 "$TMPDIR/random.gguf" >/dev/null || exit 1
unscored() {
    query x --model "$TMPDIR/random.gguf" -n 4 --json
    exits 0 && equal "$(js '[o.ihsan, o.ntu, o.depth_reached].map(String).join(" ")')" 'null null 2'
}
check 'a vocabulary without yes and no is answered without scores' unscored
check 'and refused where somebody relies on them' fails 1 '--gate enforce needs scores' \
    "$SOVEREIGN" query x --model "$TMPDIR/random.gguf" --gate enforce
finish
