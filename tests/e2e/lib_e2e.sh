# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
#
# For scripts that drive build/sovereign as a person does: models made on the spot, and what a command printed.

. tests/scripts/lib_tap.sh

: "${BUILD:=build}" "${SOVEREIGN:=$BUILD/sovereign}" "${TMPDIR:=/tmp}"
export SOVEREIGN

# The vocabulary of random models: the built-in model's.
VOCABULARY=models/guide.gguf

# make_model FILE [mkmodel's flags]: a small random model of the llama architecture.
make_model() {
    local file=$1
    shift
    "$BUILD/mkmodel" --arch llama --dim 64 --layers 2 --heads 4 --kv-heads 2 --ffn 128 \
        --vocab-from "$VOCABULARY" --type q8_0 --seed 1 "$@" "$file" >/dev/null
}

# run COMMAND...: leaves its exit status in $status and what it printed in $out and $err.
run() {
    "$@" >"$TMPDIR/run.out" 2>"$TMPDIR/run.err" </dev/null
    status=$?
    out=$(tr -d '\0' <"$TMPDIR/run.out")
    err=$(tr -d '\0' <"$TMPDIR/run.err")
}
# The assertions about the last run.
exits() {
    [ "$status" = "$1" ] && return
    printf 'exit status %s, expected %s\nstdout: %s\nstderr: %s\n' "$status" "$1" "$out" "$err"
    return 1
}
out_has() { has "$out" "$1"; }
err_has() { has "$err" "$1"; }

# fails STATUS MESSAGE COMMAND...: the command ends with that status, says MESSAGE on stderr and nothing on stdout.
fails() {
    local expected=$1 message=$2
    shift 2
    run "$@"
    exits "$expected" && err_has "$message" && equal "$out" ''
}

# step NAME COMMAND...: as check, but in this shell, for tests that start what later tests use.
step() {
    local name=$1
    shift
    tap_count=$((tap_count + 1))
    if "$@" >"$TMPDIR/step.out" 2>&1; then
        echo "ok $tap_count - $name"
    else
        tap_failed=$((tap_failed + 1))
        echo "not ok $tap_count - $name"
        sed 's/^/# /' "$TMPDIR/step.out"
    fi
}

# within SECONDS COMMAND...: succeeds some time before that; tried ten times a second, and the tries are counted.
within() {
    local tries=$((10 * $1))
    shift
    while ! "$@" >/dev/null 2>&1; do
        [ $((tries -= 1)) -gt 0 ] || { "$@"; return; }
        sleep 0.1
    done
}

# json_field NAME: the value of a top-level field of the JSON object in $out (strings without escapes, numbers).
json_field() {
    sed -n "s/.*\"$1\":\"\{0,1\}\([^,\"}]*\).*/\1/p" <<<"$out" | head -n 1
}
