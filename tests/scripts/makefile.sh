#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The Makefile rebuilds what changed and nothing else, and installs where it is told. On a small tree: the base room, a
# program that does nothing, and no network or privileges.
set -u
cd "$(dirname "$0")/../.." || exit 1
. tests/scripts/lib_tap.sh

tree=$TMPDIR/tree
mkdir -p "$tree/cli" "$tree/tests"
cp -r Makefile LICENSE CHANGELOG.md scripts base "$tree/"
cp cli/guide.h cli/guide_data.S "$tree/cli/"
unset BUILD SAN SOVEREIGN_DEPS # the runner's, for this tree
cat >"$tree/cli/main.c" <<'C'
#include "cli/guide.h"
int main(void)
{
    return guide_bytes() == GUIDE_EXPECTED ? 0 : 1;
}
C
# build [ARGUMENTS]: sets output and status
build() {
    output=$(cd "$tree" && make SETUP=no "$@" 2>&1)
    status=$?
}
lacks() {
    [[ $1 != *"$2"* ]] && return
    printf 'expected not to find "%s" in:\n%s\n' "$2" "$1"
    return 1
}

export CFLAGS='-O0 -DGUIDE_EXPECTED=0'
build
check "a clean tree builds" equal "$status" 0
check "without a built-in model the program has none" "$tree/build/sovereign"
build
check "an unchanged tree builds nothing" equal "$status${output//*Nothing to be done*/}" 0

touch "$tree/base/utf8.h"
build
check "a header compiles those that include it" has "$output" "cc base/utf8.c"
check "and no others" lacks "$output" "cc base/clock.c"

export CFLAGS='-O0 -DGUIDE_EXPECTED=5'
build
check "other flags compile everything" has "$output" "cc base/clock.c"
mkdir "$tree/models"
printf 'GGUF!' >"$tree/models/guide.gguf"
build
check "a built-in model that appears goes into the program" "$tree/build/sovereign"
build
check "once" equal "$status${output//*Nothing to be done*/}" 0

rm "$tree/base/clock.c" "$tree/base/log.c"
build build/libsovereign.a
check "a source that went away leaves the library" lacks "$(ar t "$tree/build/libsovereign.a")" clock.o
cp base/clock.c base/log.c "$tree/base/"

export CFLAGS='-O0 -DGUIDE_EXPECTED=4'
printf 'GGUF' >"$tree/models/guide.gguf"
build SAN=address,undefined
check "a build with sanitizers has a folder of its own" "$tree/build-address-undefined/sovereign"

build install DESTDIR="$TMPDIR/stage" PREFIX=/usr
check "make install ends well" equal "$status" 0
check "and installs the program" "$TMPDIR/stage/usr/bin/sovereign"
check "with its licence" test -e "$TMPDIR/stage/usr/share/doc/sovereign/LICENSE"

echo 'int broken' >>"$tree/base/utf8.c"
build
check "a compile error fails" has "$status $output" "2 "
build clean
check "make clean leaves no build folder" equal "$(cd "$tree" && ls -d build* 2>/dev/null)" ""

finish
