#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The test runner counts what happened: passes, failures, crashes, time-outs, lost tests and programs without TAP.
set -u
. tests/scripts/lib_tap.sh

# A small tree of its own, whose "programs" are scripts.
tree=$TMPDIR/tree
mkdir -p "$tree/scripts" "$tree/tests/e2e" "$tree/build/tests"
cp scripts/run-tests "$tree/scripts/"
program() { # program NAME [OPTIONS]: the body comes on standard input
    { echo '#!/bin/sh'; cat; } >"$tree/build/tests/$1"
    chmod +x "$tree/build/tests/$1"
    echo "/* ${2:-} */" >"$tree/tests/$1.c"
}
run() { # run [PATTERN]: sets output, last (line) and status
    output=$(cd "$tree" && TEST_JOBS=2 SAN='' BUILD=build ASAN_OPTIONS='' scripts/run-tests "$@" 2>&1)
    status=$?
    last=$(tail -n 1 <<<"$output")
}

program test_good <<<'echo 1..2; echo "ok 1 - a"; echo "ok 2 - b"'
run
check "all passing" equal "$last/$status" "2 passed, 0 failed/0"

program test_silent <<<'exit 0'
echo 'test -x scripts/run-tests' >"$tree/tests/e2e/plain.sh"
run
check "a program or script without TAP is one test" equal "$last/$status" "4 passed, 0 failed/0"

run e2e/
check "a pattern selects" equal "$last/$status" "1 passed, 0 failed/0"
run nothing-like-this
check "a pattern that selects nothing is an error" equal "$status" 1

program test_bad <<<'echo 1..3; echo "ok 1 - a"; echo "not ok 2 - sums"; echo "not ok 3 # SKIP c"; exit 1'
run test_bad
check "a failing and a skipped test" equal "$last/$status" "1 passed, 1 failed, 1 skipped/1"
check "the log of a failure is shown" has "$output" "not ok 2 - sums"

program test_absent <<<'echo 1..1; echo "ok 1 - NEON kernels # SKIP no emulator here"'
run test_absent
check "what is skipped has not passed" equal "$last/$status" "0 passed, 0 failed, 1 skipped/0"
mkdir "$TMPDIR/few"
ln -s "$(command -v uname)" "$(command -v dirname)" "$TMPDIR/few/"
for script in tests/aarch64/*.sh; do
    [[ $script != */lib* ]] || continue
    output=$(PATH=$TMPDIR/few "$BASH" "$script" 2>&1)
    check "without a compiler and an emulator for NEON $script skips, and says why" equal \
        "$(grep -c '^ok 1 .* # SKIP [a-z]' <<<"$output") $(wc -l <<<"$output")" "1 2"
done

program test_crash <<<'echo 1..3; echo "ok 1 - a"; kill -SEGV $$'
run test_crash
check "a crash loses tests, and they count as failed" equal "$last/$status" "1 passed, 2 failed/1"
check "a crash is named" has "$output" "killed by signal 11"

program test_leak <<<'echo 1..1; echo "ok 1 - a"; exit 23'
run test_leak
check "a bad exit after passing tests is a failure" equal "$last/$status" "1 passed, 1 failed/1"

program test_slow 'run-tests: seconds=1' <<<'echo 1..1; exec sleep 60'
run test_slow
check "a program out of time fails" equal "$last/$status" "0 passed, 1 failed/1"
check "a time-out is named" has "$output" "out of time (1 s)"

rm -f "$tree/build/tests/test_good"
run test_good
check "a program that was not built fails" equal "$last/$status" "0 passed, 1 failed/1"

# Two programs that wait for each other prove that they run together; a serial one finds nobody running.
program test_meet_a <<<'touch met_a; n=0; until [ -e met_b ]; do n=$((n + 1)); [ $n -lt 200 ] || exit 1; sleep 0.05; done'
program test_meet_b <<<'touch met_b; n=0; until [ -e met_a ]; do n=$((n + 1)); [ $n -lt 200 ] || exit 1; sleep 0.05; done
: >left_b'
program test_meet_c 'run-tests: serial' <<<'test -e left_b'
run test_meet
check "two run together, a serial one after them" equal "$last/$status" "3 passed, 0 failed/0"

finish
