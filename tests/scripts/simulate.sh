#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# run-tests: seconds=600
# The federation under every fault (docs/federation.md, "Simulator"): no seed finds anything in the core, and every
# fault that is planted in it is found.
set -u
. tests/scripts/lib_tap.sh

simulate=$BUILD/simulate
mutants=$BUILD/simulate-mutants
seeds=${SIMULATE_SEEDS:-1000}

"$simulate" --seeds 1.."$seeds" --coverage >"$TMPDIR/runs.txt" 2>&1
status=$?
check "$seeds seeds without violation" test "$status" = 0
[ "$status" = 0 ] || sed 's/^/# /' "$TMPDIR/runs.txt"
check "they met everything that there is to meet" equal "$(grep ' in 0 runs' "$TMPDIR/runs.txt")" ''

once=$("$simulate" --seed 5)
check "a seed is the same run again" equal "$("$simulate" --seed 5)" "$once"
"$simulate" --seed 5 --trace >"$TMPDIR/trace.txt"
check "telling its story does not change it" equal "$(tail -n 1 "$TMPDIR/trace.txt")" "$once"
check "the story has messages" grep -q -- '-> .*  PRE-PREPARE by [0-9]* view 0\.0 sequence 1, ' "$TMPDIR/trace.txt"
check "another seed is another run" test "$("$simulate" --seed 6)" != "$once"

"$simulate" --extra 1 --seeds 1..200 --all >"$TMPDIR/extra.txt"
check "f + 1 Byzantine replicas break agreement" test $? = 1
check "which is seen as such" has "$(cat "$TMPDIR/extra.txt")" 'VIOLATION of agreement'

"$mutants" --mutations --seeds 1..1000 >"$TMPDIR/mutants.txt"
check "every planted fault is found within 1000 seeds" test $? = 0
grep 'NOT FOUND' "$TMPDIR/mutants.txt" | sed 's/^/# /'
check "there are at least 15" test "$(grep -c 'found by seed' "$TMPDIR/mutants.txt")" -ge 15

# A failure is made shorter, and the command that it ends with fails in the same way.
"$mutants" --mutation forgets_accepted --seeds 1..1000 >"$TMPDIR/found.txt"
seed=$(sed -n 's/^the first: --seed //p' "$TMPDIR/found.txt")
"$mutants" --mutation forgets_accepted --seed "$seed" --shrink >"$TMPDIR/shrunk.txt"
read -r before after <<<"$(sed -n 's/^Shrunk in .* from \([0-9]*\) entries to \([0-9]*\):$/\1 \2/p' "$TMPDIR/shrunk.txt")"
check "a failing schedule is shrunk" test "${after:-0}" -lt "${before:-0}"
replay=$(sed -n 's/^All of it: \(.*\)$/\1/p' "$TMPDIR/shrunk.txt")
# shellcheck disable=SC2086
again=$("$mutants" --mutation forgets_accepted $replay | tail -n 1)
check "and fails as before" has "$again" "$(sed -n '1s/.*\(VIOLATION of [a-z -]*\) at .*/\1/p' "$TMPDIR/shrunk.txt")"

"$simulate" --seed 1 --seeds 1..2 >/dev/null 2>&1
check "wrong use is status 2" test $? = 2
"$simulate" --seed 1 --mutation quorum_2f >/dev/null 2>&1
check "the production core has no planted faults" test $? = 2
finish
