#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# docs/cli.md tells of every flag that --help lists, and of no other.
cd "$(dirname "$0")/../.." || exit 1
. tests/e2e/lib_e2e.sh

# flags_in FILE: the long flags named in a text, one per line.
flags_in() { grep -oE -- '--[a-z][a-z-]+' "$1" | sort -u; }

for command in serve query chat generate tokenize logits inspect ihsan verify bench canonical-json; do
    "$SOVEREIGN" "$command" --help >"$TMPDIR/$command.help"
done
# The actions of `sovereign federation` have flags of their own.
actions=$("$SOVEREIGN" federation --help | sed -n '/^Actions:/,/^$/s/^  \([a-z-]*\) .*/\1/p')
for action in $actions; do
    "$SOVEREIGN" federation "$action" --help >"$TMPDIR/federation-$action.help"
done
cat "$TMPDIR"/*.help >"$TMPDIR/all.help"
printf '%s\n' --version >>"$TMPDIR/all.help"
check 'the page names the flags that there are' equal "$(flags_in docs/cli.md)" "$(flags_in "$TMPDIR/all.help")"

# documented COMMAND [HELP]: each of its flags is in its own section or among the shared ones, which name the command.
documented() {
    local flag missing=''
    awk -v name="## $1" '/^## /{on = $0 == name} on' docs/cli.md >"$TMPDIR/section"
    grep -E "^\| .*\| [a-z, ]*(\b$1\b|all)[a-z, ]*\|" docs/cli.md >>"$TMPDIR/section"
    case $1 in chat | generate | query) awk '/^## /{on = /^## Sampling/} on' docs/cli.md >>"$TMPDIR/section" ;; esac
    for flag in $(sed -n '/^Flags/,/^Examples/p' "$TMPDIR/${2:-$1}.help" | grep -oE -- '^  (-., )?--[a-z-]+' | grep -oE -- '--.*'); do
        [ "$flag" = --help ] || grep -q -- "$flag\b" "$TMPDIR/section" || missing+=" $flag"
    done
    equal "$missing" ''
}
for command in serve query chat generate tokenize logits inspect ihsan verify bench canonical-json; do
    check "every flag of $command is told of" documented "$command"
done
for action in $actions; do
    check "every flag of federation $action is told of" documented federation "federation-$action"
done
commands() {
    local command
    for command in $("$SOVEREIGN" --help | sed -n '/^Commands:/,/^$/s/^  \([a-z-]*\) .*/\1/p'); do
        grep -q "^## $command$" docs/cli.md || { echo "no section on $command"; return 1; }
    done
}
check 'every command has a section' commands
finish
