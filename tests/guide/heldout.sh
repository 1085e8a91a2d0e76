#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# run-tests: seconds=600
#
# The built-in model on questions in words that it has not seen (tests/guide/heldout.tsv says how they are judged):
# at least 85 of 100 answered right, on at least 60 subjects, and most of what it does not know declined.
cd "$(dirname "$0")/../.." || exit 1
. tests/e2e/lib_e2e.sh

questions=()
subjects=()
facts=()
while IFS=$'\t' read -r subject question fact; do
    [[ $subject != '#'* ]] && [ -n "$fact" ] || continue
    subjects+=("$subject")
    questions+=(--prompt "$question")
    facts+=("$fact")
done <tests/guide/heldout.tsv
total=${#facts[@]}

# All questions in one batch; the answer to question N follows the line "==> prompt N <==".
"$SOVEREIGN" generate --quiet --chat -n 128 --parallel 32 "${questions[@]}" >"$TMPDIR/answers" 2>"$TMPDIR/errors"
check 'all questions are answered' equal "$?$(cat "$TMPDIR/errors")" 0
answers=()
number=0
while IFS= read -r line; do
    if [[ $line =~ ^'==> prompt '([0-9]+)' <=='$ ]]; then
        number=${BASH_REMATCH[1]}
    else
        answers[number]+="$line"$'\n'
    fi
done <"$TMPDIR/answers"

right=0
unknown=0
declined=0
declare -A known=()
for ((i = 0; i < total; i++)); do
    answer=${answers[i + 1]:-}
    good=1
    IFS='|' read -ra parts <<<"${facts[i]}"
    for part in "${parts[@]}"; do
        [[ $answer == *"$part"* ]] || good=0
    done
    if [ "${subjects[i]}" = offtopic ]; then
        unknown=$((unknown + 1))
        declined=$((declined + good))
    fi
    right=$((right + good))
    if [ "$good" = 1 ]; then
        known[${subjects[i]}]=1
    else
        echo "# wrong (${subjects[i]}): ${questions[2 * i + 1]} -> ${answer//$'\n'/ } (expected ${facts[i]})"
    fi
done
echo "# $right of $total right; $declined of $unknown declined; ${#known[@]} subjects"
check "at least 85 of 100 questions are answered right ($right of $total)" \
    test "$total" -ge 180 -a $((right * 100)) -ge $((total * 85))
check "at least 60 subjects are known (${#known[@]})" test "${#known[@]}" -ge 60
check "at least 85 of 100 questions about other things are declined ($declined of $unknown)" \
    test "$unknown" -gt 0 -a $((declined * 100)) -ge $((unknown * 85))
finish
