# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
#
# TAP for test scripts: source it, call check for each test, and end with finish.

tap_count=0
tap_failed=0

# check NAME COMMAND...: one test; passes if the command succeeds, and shows what it printed if not.
check() {
    local name=$1 output
    shift
    tap_count=$((tap_count + 1))
    if output=$("$@" 2>&1); then
        echo "ok $tap_count - $name"
    else
        tap_failed=$((tap_failed + 1))
        echo "not ok $tap_count - $name"
        printf '# %s\n' "${output//$'\n'/$'\n'# }"
    fi
}

# has TEXT PART: succeeds if PART occurs in TEXT, and says what TEXT was if not.
has() {
    [[ $1 == *"$2"* ]] && return
    printf 'expected to find "%s" in:\n%s\n' "$2" "$1"
    return 1
}
# equal FOUND EXPECTED
equal() {
    [ "$1" = "$2" ] && return
    printf 'found:    %s\nexpected: %s\n' "$1" "$2"
    return 1
}

# Prints the plan; the script's exit status is this function's.
finish() {
    echo "1..$tap_count"
    [ "$tap_failed" = 0 ]
}
