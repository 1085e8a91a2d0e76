#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# sovereign chat behind a pipe: every line is a question, commands work, no prompts or terminal codes are written.
cd "$(dirname "$0")/../.." || exit 1
. tests/e2e/lib_e2e.sh

export HOME=$TMPDIR/home
mkdir -p "$HOME"

model=$TMPDIR/random.gguf
make_model "$model" || exit 1

chat() { # chat INPUT FLAGS...: $status, $out, $err
    local input=$1
    shift
    printf '%b' "$input" | "$SOVEREIGN" chat "$@" >"$TMPDIR/chat.out" 2>"$TMPDIR/chat.err"
    status=$?
    out=$(cat "$TMPDIR/chat.out")
    err=$(cat "$TMPDIR/chat.err")
}
answers() {
    chat 'What is Sovereign?\n' --quiet
    exits 0 && out_has Sovereign && equal "$err" '' && equal "$(tr -d '\n' <<<"$out" | tr -d '[:print:]' | wc -c)" 0
}
check 'a question gets an answer, and nothing else is printed' answers
same() {
    chat 'What is Sovereign?\n' --quiet
    local first=$out
    chat 'What is Sovereign?' --quiet --threads 1 --isa scalar
    equal "$out" "$first"
}
check 'the guide answers the same every time; the last line needs no newline' same
continued() {
    chat 'What is \\\nSovereign?\n/save '"$TMPDIR"'/saved.json\n' --quiet
    exits 0 && has "$(cat "$TMPDIR/saved.json")" 'What is \nSovereign?'
}
check 'a backslash continues the line' continued
saves() {
    has "$(cat "$TMPDIR/saved.json")" '"role": "assistant"' && chat "/save $TMPDIR/saved.json\n" --quiet &&
        err_has 'File exists'
}
check 'save writes messages and overwrites nothing' saves
commands() {
    chat '/help\n/system Be brief.\n/system\n/stats\n/clear\n/nonsense\n/exit\nnever asked\n' --quiet --model "$model"
    exits 0 && out_has '/retry' && out_has 'system message: Be brief.' && out_has 'nothing was asked yet' &&
        out_has '(forgotten)' && err_has '/nonsense: there is no such command' && equal "$(grep -c . <<<"$out")" \
        "$(grep -vc never <<<"$out")"
}
check 'commands' commands
statistics() {
    chat 'What is Sovereign?\n/stats\n' --quiet
    exits 0 && out_has 'context' && out_has 'temperature 0'
}
check 'statistics of an answer' statistics
forgets() {
    local many
    many=$(printf 'What is Sovereign?\\n%.0s' $(seq 12))
    chat "$many" --ctx 160 -n 8 --model "$model"
    exits 0 && err_has 'are forgotten'
}
alone() {
    chat 'What is Sovereign?\n' --quiet
    local first=$out
    chat 'How do I use a real model?\nHow do I stream answers?\nWhat is Sovereign?\n' --quiet
    has "$out" "$first"
}
check 'the guide answers each question on its own' alone
check 'and takes no system message' fails 2 'takes no system message' "$SOVEREIGN" chat --system 'Be brief.'
check 'a conversation longer than the context forgets its beginning' forgets
too_long() {
    chat "$(printf 'word %.0s' $(seq 400))\nWhat is Sovereign?\n" --quiet --ctx 160
    exits 1 && err_has 'the context holds 160' && out_has Sovereign
}
check 'a message longer than the context is refused, and the next one answered' too_long
binary() {
    chat '\0377\0376 \0303(\n\r\n' --quiet
    exits 0
}
check 'invalid UTF-8 and empty lines' binary
nothing() {
    chat '' --quiet
    exits 0 && equal "$out" ''
}
check 'no input' nothing
no_history() { [ ! -e "$HOME/.local" ]; }
check 'a pipe leaves no history' no_history
finish
