#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# sovereign canonical-json from the shell: what comes out, with which status, and where an error is.
cd "$(dirname "$0")/../.." || exit 1
. tests/e2e/lib_e2e.sh

# form TEXT EXPECTED
form() {
    printf '%s' "$1" | "$SOVEREIGN" canonical-json >"$TMPDIR/out" || return 1
    printf '%s' "$2" | cmp - "$TMPDIR/out"
}
check 'members are sorted, spaces go, numbers are as ECMAScript prints them' \
    form '{ "b" : [1E30, 4.50, 1e-7] ,"a":"\u20ac\u000F" }' '{"a":"€\u000f","b":[1e+30,4.5,1e-7]}'
check 'a newline at the end of a file is no part of the value' form $'[]\n' '[]'

# refused TEXT MESSAGE: status 1, nothing on standard output.
refused() {
    printf '%s' "$1" | "$SOVEREIGN" canonical-json >"$TMPDIR/out" 2>"$TMPDIR/err"
    equal "$?" 1 && has "$(cat "$TMPDIR/err")" "$2" && equal "$(cat "$TMPDIR/out")" ''
}
check 'nothing' refused '' 'standard input: byte 0: the text ends where a value is expected'
check 'a second member of one name' refused '{"a":1,"a":2}' 'standard input: byte 7: a second member "a"'
check 'half a surrogate pair' refused '["\ud800"]' 'byte 2: \ud800 is half of a surrogate pair'
check 'a number out of range' refused '[1,1e999]' 'byte 3: the number is out of range'
check 'too deep' refused "$(printf '[%.0s' {1..600})" 'byte 512: more than 512'
check 'an argument' fails 2 "unexpected argument 'x'" "$SOVEREIGN" canonical-json x

full() {
    [ -e /dev/full ] || return 0
    "$SOVEREIGN" canonical-json <<<'[1]' >/dev/full 2>"$TMPDIR/err"
    equal "$?" 1 && has "$(cat "$TMPDIR/err")" 'standard output could not be written'
}
check 'a full disk' full
closed() {
    "$SOVEREIGN" canonical-json <&- 2>"$TMPDIR/err"
    equal "$?" 1 && has "$(cat "$TMPDIR/err")" 'standard input'
}
check 'standard input that is closed' closed
finish
