#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# scripts/setup on systems that lack things, pretended by a PATH with only the commands that the script itself needs.
set -u
unset SETUP # a caller that said no means its own build
. tests/scripts/lib_tap.sh

bin=$TMPDIR/bin
mkdir -p "$bin"
fake() { # fake NAME: a command whose body comes on standard input
    { echo '#!/bin/sh'; cat; } >"$bin/$1"
    chmod +x "$bin/$1"
}
# Not links to the real ones: writing to a link would write to what it points at.
for command in cut tr env id mktemp rm tail uname; do
    fake "$command" <<<"exec $(command -v "$command") \"\$@\""
done
run() { # run [GROUP]: sets output and status
    output=$(PATH=$bin CC=cc /bin/sh scripts/setup "$@" 2>&1 </dev/null)
    status=$?
}

run build
check "without apt it fails" equal "$status" 1
check "without apt it names the packages" has "$output" "libmicrohttpd-dev: HTTP server"
check "and says what to do" has "$output" "no apt-get"

run test
check "the tests need more" has "$output" "libcmocka-dev"
if [ "$(uname -m)" != aarch64 ]; then
    check "and would like an emulator" has "$output" "qemu-user: emulates that CPU"
    mkdir "$TMPDIR/all"
    for command in "$bin"/* make pkg-config g++ cmake git node npm curl; do
        printf '#!/bin/sh\n' >"$TMPDIR/all/${command##*/}"
    done
    for command in cc clang; do echo 'echo /' >"$TMPDIR/all/$command"; done
    chmod +x "$TMPDIR"/all/*
    output=$(PATH=$TMPDIR/all:$bin CC=cc /bin/sh scripts/setup test 2>&1 </dev/null)
    check "but does without one" has "$? $output" "0 setup: missing for 'make test'"
    check "and says so" has "$output" "setup: going on without"
fi

run nonsense
check "an unknown group is refused" has "$status $output" "2 scripts/setup: unknown group 'nonsense'"

output=$(SETUP=no PATH=$bin /bin/sh scripts/setup test 2>&1)
check "SETUP=no leaves the system alone" equal "$?$output" 0

# An apt that records what it is asked, and cannot install anything.
fake apt-get <<<'echo "$@" >>"$APT_LOG"; exit 0'
fake apt-cache <<<'[ "$2" != libedit-dev ]'
fake id <<<'echo 0'
export APT_LOG=$TMPDIR/apt.log
run build
asked=$(cat "$APT_LOG")
check "the lists are updated first" has "$asked" "update"
check "all are installed in one go" has "$asked" "gcc libc6-dev pkg-config libmicrohttpd-dev"
check "non-interactively" has "$asked" "-y"
check "a package that apt does not know is left out" equal "${asked/libedit-dev/}" "$asked"
check "and told" has "$output" "knows no package 'libedit-dev'"
check "what is still missing afterwards is an error" has "$status $output" "still missing after the installation"

fake apt-get <<<'echo "E: no space left"; exit 100'
run build
check "a failing apt is shown" has "$status $output" "E: no space left"

fake id <<<'echo 1000'
run build
check "without privileges it says what to run as root" has "$status $output" "As root, run: apt-get install"

fake sudo <<<'echo "sudo $*" >>"$APT_LOG"; exit 1'
: >"$APT_LOG"
run build
check "sudo is used where there is one, and never asks when nobody is there" has "$(cat "$APT_LOG")" "sudo -n env"

finish
