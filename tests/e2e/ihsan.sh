#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# sovereign ihsan: the rubric, scores that do not depend on how they are computed, calibration and its files, and what is
# said when something is wrong.
cd "$(dirname "$0")/../.." || exit 1
. tests/e2e/lib_e2e.sh

model=$TMPDIR/random.gguf
make_model "$model" --type q4_0 || exit 1
rubric=$TMPDIR/rubric.json
"$SOVEREIGN" ihsan rubric >"$rubric"

prints_a_rubric() {
    run "$SOVEREIGN" ihsan rubric
    exits 0 && out_has '"truthfulness"' && out_has '"gratitude"' && equal "$err" ''
    printf '%s\n' "$out" >"$TMPDIR/default.json"
    run "$SOVEREIGN" ihsan rubric --rubric "$TMPDIR/default.json"
    exits 0 && equal "$out" "$(cat "$TMPDIR/default.json")"
}
check 'the rubric is printed, and read back' prints_a_rubric

# score [FLAGS]: the scores and the state; not what they cost.
score() {
    run "$SOVEREIGN" ihsan score --quiet --model "$model" --rubric "$rubric" \
        --question 'Is water wet?' --answer 'It is, to the touch.' "$@"
    exits 0 && scores=${out%%,\"rows\"*}
}
same_scores() {
    local first flags
    score || return 1
    first=$scores
    has "$first" '"truthfulness":0.' && has "$first" '"belief":' || return 1
    for flags in '--threads 1' '--isa scalar' '--prefill-chunk 3' '--threads 2 --prefill-chunk 40'; do
        # shellcheck disable=SC2086 # words on purpose
        score $flags && equal "$scores" "$first" || return 1
    done
    score --kv-type q8_0 && [ "$scores" != "$first" ]
}
check 'scores do not depend on threads, instruction set and chunks' same_scores

labels=$TMPDIR/labels.jsonl
for i in 1 2 3 4 5 6; do
    printf '{"question": "Is %d even?", "answer": "It may be.", "labels": {"wisdom": %d}}\n' $i $((i % 2))
done >"$labels"
calibrates() {
    run "$SOVEREIGN" ihsan calibrate --quiet --model "$model" --rubric "$rubric" --labels "$labels" \
        --output "$TMPDIR/fitted.json"
    exits 0 && out_has 'wisdom ' && out_has 'Brier' || return 1
    grep -q '<svg' "$TMPDIR/fitted.json.svg" || return 1
    local temperature
    temperature=$(sed -n '/"wisdom"/,/}/s/.*"temperature": \([0-9.e+-]*\).*/\1/p' "$TMPDIR/fitted.json")
    [ "$temperature" != 1 ] || { echo "the temperature is still 1" && return 1; }
    cp "$TMPDIR/fitted.json" "$TMPDIR/first.json"
    run "$SOVEREIGN" ihsan calibrate --quiet --model "$model" --rubric "$rubric" --labels "$labels" --threads 1 \
        --output "$TMPDIR/fitted.json" --plot "$TMPDIR/plot.svg"
    exits 0 && cmp "$TMPDIR/first.json" "$TMPDIR/fitted.json" && cmp "$TMPDIR/fitted.json.svg" "$TMPDIR/plot.svg" ||
        return 1
    rubric=$TMPDIR/fitted.json score
}
check 'calibration writes a rubric and a plot, the same every time' calibrates

check 'no action' fails 2 'say what' "$SOVEREIGN" ihsan
check 'an unknown action' fails 2 "'judge' is not an action" "$SOVEREIGN" ihsan judge
check 'score without an answer' fails 2 '--answer TEXT are needed' "$SOVEREIGN" ihsan score --question x
check 'calibrate without labels' fails 2 '--labels FILE is needed' "$SOVEREIGN" ihsan calibrate
check 'a rubric that is not there' fails 1 "$TMPDIR/none.json" "$SOVEREIGN" ihsan rubric --rubric "$TMPDIR/none.json"
printf '{"dimensions": {}}' >"$TMPDIR/bad.json"
check 'a rubric without a dimension' fails 1 "no 'truthfulness'" "$SOVEREIGN" ihsan rubric --rubric "$TMPDIR/bad.json"
printf '\n{"question": "q", "answer": "a", "labels": {"wit": 1}}\n' >"$TMPDIR/bad.jsonl"
check 'labels name line and field' fails 1 "line 2: 'labels.wit'" \
    "$SOVEREIGN" ihsan calibrate --quiet --model "$model" --labels "$TMPDIR/bad.jsonl"
sed 's/\["yes"\]/["zyzzyva"]/' "$rubric" >"$TMPDIR/words.json"
check 'words that are no tokens' fails 1 'zyzzyva' "$SOVEREIGN" ihsan score --quiet --model "$model" \
    --rubric "$TMPDIR/words.json" --question x --answer y
check 'weights that are none' fails 1 "'weights' must be" "$SOVEREIGN" ihsan score --quiet --model "$model" \
    --ihsan-weights <(printf '{"weights": 1, "bias": [0, 0, 0]}') --question x --answer y
check 'serve with weights that are none' fails 1 '--ihsan-weights' "$SOVEREIGN" serve --port 0 \
    --ihsan-weights "$TMPDIR/none.json"
written_to_a_full_disk() {
    "$SOVEREIGN" ihsan rubric >/dev/full 2>"$TMPDIR/full.err"
    equal "$?" 1 && has "$(cat "$TMPDIR/full.err")" 'could not be written'
}
check 'a full disk' written_to_a_full_disk
cannot_be_written() {
    run "$SOVEREIGN" ihsan calibrate --quiet --model "$model" --rubric "$rubric" --labels "$labels" \
        --output "$TMPDIR/no/such/folder.json"
    exits 1 && err_has "$TMPDIR/no/such/folder.json"
}
check 'an output that cannot be written' cannot_be_written
finish
