# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
#
# Runs unit tests that `make aarch64` compiled on emulated CPUs: source it, call on for each, and end with finish. Where
# there is no cross compiler or no emulator, or where the machine itself is an aarch64 one and its unit tests are the
# very same, it says so and skips.
. tests/scripts/lib_tap.sh

programs=$BUILD/aarch64/tests

skip_all() {
    echo "1..1"
    echo "ok 1 - NEON kernels on an emulated CPU # SKIP $1"
    exit 0
}
[ "$(uname -m)" != aarch64 ] || skip_all 'this machine has them itself'
command -v aarch64-linux-gnu-gcc >/dev/null || skip_all 'no aarch64-linux-gnu-gcc here'
[ -e "$(aarch64-linux-gnu-gcc -print-file-name=libc.a)" ] || skip_all 'no C library for that CPU here'
command -v qemu-aarch64 >/dev/null || skip_all 'no qemu-aarch64 here'

# on CPU PROGRAM [ARGUMENTS]
on() {
    local cpu=$1 program=$2
    shift 2
    check "$program${*:+ $*} on $cpu" qemu-aarch64 -cpu "$cpu" "$programs/$program" "$@"
}
