#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# scripts/oracle refuses what is not the pinned source, and leaves nothing half made behind. npm is a stand-in here.
set -u
. tests/scripts/lib_tap.sh

bin=$TMPDIR/bin
mkdir -p "$bin"
fake() { # fake NAME: a command whose body comes on standard input
    { echo '#!/bin/sh'; cat; } >"$bin/$1"
    chmod +x "$bin/$1"
}
run() { # run [ARGUMENTS...]: sets output and status
    output=$(PATH=$bin:$PATH SOVEREIGN_DEPS=$TMPDIR/deps scripts/oracle "$@" 2>&1)
    status=$?
}
left() {
    (cd "$TMPDIR/deps" && ls -d llama llama-work.* 2>/dev/null)
}
fake pkg-config <<<'exit 1'

fake npm <<<'echo "code E404, no such package"; exit 1'
run
check "npm's failure is shown" has "$status $output" "code E404, no such package"
check "nothing is left of it" equal "$(left)" ""

fake npm <<<'for last; do :; done; echo "not the package" >node-llama-cpp-${last#*@}.tgz'
run
check "another content is refused" has "$status $output" "has SHA-512"
check "and the expected one is named" has "$output" "expected 6e5b48"
check "nothing is left of it either" equal "$(left)" ""

run sse9
check "an instruction set it does not know is refused" has "$status $output" "2 oracle: unknown argument 'sse9'"

finish
