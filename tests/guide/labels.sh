#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# run-tests: seconds=600
#
# What docs/ihsan.md says of the built-in model's scores: measured by labelled answers, they do not tell its right
# answers from those to other questions.
cd "$(dirname "$0")/../.." || exit 1
. tests/e2e/lib_e2e.sh

labels="$TMPDIR/labels.jsonl"
makes() {
    SOVEREIGN="$SOVEREIGN" scripts/guide-labels >"$labels" || return 1
    local right wrong
    right=$(grep -c '"labels":{"truthfulness":1}}$' "$labels")
    wrong=$(grep -c '"labels":{"truthfulness":0}}$' "$labels")
    [ "$right" -ge 100 ] && equal "$wrong" "$right"
}
check 'answers to the held-out questions are labelled' makes
documented() {
    run "$SOVEREIGN" ihsan calibrate --quiet --labels "$labels" --output "$TMPDIR/rubric.json"
    exits 0 || return 1
    local row
    row=$(awk '$1 == "truthfulness" { printf "| %s | %s | %s | %s | %s |", $2, $3, $7, $4, $6 }' "$TMPDIR/run.out")
    grep -qF "$row" docs/ihsan.md && return
    echo "# docs/ihsan.md has no row $row"
    return 1
}
check 'the documentation has the Brier score of these labels' documented
finish
