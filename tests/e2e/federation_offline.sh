#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# sovereign federation without any node running: init, and what log, get, export and verify-log say of logs that are good,
# empty, torn, tampered with or not there. The log in tests/data/federation is made by tests/test_federation_certificate.c:
# 40 batches of a federation of four; behind sequence 24 member 1 has another key, and there is a member 4.
cd "$(dirname "$0")/../.." || exit 1
. tests/e2e/lib_e2e.sh

log=tests/data/federation/log.jsonl
config=tests/data/federation/federation.json
fed=$TMPDIR/fed

umask 0 # what is made is private all the same
init() {
    run "$SOVEREIGN" federation init --nodes 4 --dir "$fed" --host 10.1.2.3 --base-port 9100
    exits 0 && equal "$err" '' && out_has '4 nodes, of which 1 may be faulty' && out_has "$fed/node3  10.1.2.3:9103" || return
    local node
    for node in 0 1 2 3; do
        equal "$(stat -c %a "$fed/node$node")" 700 &&
            equal "$(cd "$fed/node$node" && stat -c '%a %n' node.key federation.sqlite)" $'600 node.key\n600 federation.sqlite' &&
            cmp "$fed/node0/federation.json" "$fed/node$node/federation.json" || return
    done
    # Each node's key is in the file, under its id.
    for node in 0 1 2 3; do
        grep -q "{\"id\": $node, \"address\": \"10.1.2.3:910$node\", \"public_key\": \"$(cut -d ' ' -f 3 "$fed/node$node/node.key")\"}" \
            "$fed/node0/federation.json" || return
    done
}
step 'init makes a folder for each node' init
again() {
    find "$fed" -type f -exec sha256sum {} + | sort >"$TMPDIR/before"
    fails 1 'node0: is there already, and nothing is overwritten' "$SOVEREIGN" federation init --dir "$fed" || return
    find "$fed" -type f -exec sha256sum {} + | sort | cmp - "$TMPDIR/before"
}
check 'a second init touches nothing' again
check 'init without --dir' fails 2 '--dir D is needed' "$SOVEREIGN" federation init
check 'too few nodes' fails 2 'must be a whole number, 4 to 64' "$SOVEREIGN" federation init --dir "$TMPDIR/x" --nodes 3
check 'ports that do not fit' fails 1 'a port is 1 to 65535' "$SOVEREIGN" federation init --dir "$TMPDIR/x" --base-port 65534
check 'a host that is none' fails 1 'is no host' "$SOVEREIGN" federation init --dir "$TMPDIR/x" --host 'a/b'
unwritable() {
    touch "$TMPDIR/file"
    fails 1 "$TMPDIR/file" "$SOVEREIGN" federation init --dir "$TMPDIR/file/fed"
}
check 'a folder that cannot be made' unwritable

empty() {
    run "$SOVEREIGN" federation log --data-dir "$fed/node1"
    exits 0 && out_has 'sequence' && equal "$(wc -l <"$TMPDIR/run.out")" 1 || return
    run "$SOVEREIGN" federation log --data-dir "$fed/node1" --json
    exits 0 && equal "$out" '' || return
    run "$SOVEREIGN" federation verify-log --data-dir "$fed/node1"
    exits 0 && out_has 'good: 0 batches' || return
    run "$SOVEREIGN" federation export --data-dir "$fed/node1" --output "$TMPDIR/empty.jsonl"
    exits 0 && equal "$(stat -c %a "$TMPDIR/empty.jsonl")" 600 || return
    run "$SOVEREIGN" federation verify-log "$TMPDIR/empty.jsonl" --config "$fed/node2/federation.json"
    exits 0 && out_has 'good: 0 batches' || return
    fails 1 'is there already' "$SOVEREIGN" federation export --data-dir "$fed/node1" --output "$TMPDIR/empty.jsonl"
}
check 'the log of a new node is empty, and good' empty
absent() {
    fails 1 'has no pattern of this id' "$SOVEREIGN" federation get "$(printf '%064d' 7)" --data-dir "$fed/node1"
}
check 'a pattern that is not there' absent
check 'an id that is none' fails 2 'must be 64 hexadecimal digits' "$SOVEREIGN" federation get 7 --data-dir "$fed/node1"
check 'a folder without a log' fails 1 'no node of a federation has run' "$SOVEREIGN" federation log --data-dir "$TMPDIR"
check 'log without a folder' fails 2 '--data-dir DIR is needed' "$SOVEREIGN" federation log
check 'sequence 0' fails 2 'sequences begin with 1' "$SOVEREIGN" federation log --data-dir "$fed/node1" --from 0

good() {
    run "$SOVEREIGN" federation verify-log "$log" --config "$config"
    exits 0 && out_has 'good: 40 batches with 47 requests and 71 patterns, 136 signatures; 5 members in epoch 1' || return
    "$SOVEREIGN" federation verify-log - --config "$config" --json --threads 1 <"$log" >"$TMPDIR/run.out" || return
    has "$(cat "$TMPDIR/run.out")" '{"good":true,"batches":40,'
}
check 'a good log is good, through changes of keys and members' good

# tampered NAME SED: the log with one change.
tampered() { sed "$2" "$log" >"$TMPDIR/$1.jsonl"; ! cmp -s "$log" "$TMPDIR/$1.jsonl"; }
# wrong NAME SEQUENCE MESSAGE: verify-log says what is wrong, and where first; and the same in JSON.
wrong() {
    run "$SOVEREIGN" federation verify-log "$TMPDIR/$1.jsonl" --config "$config"
    exits 6 && err_has "sequence $2: " && err_has "$3" && err_has "(the $(($2 - 1)) before it are good)" && equal "$out" '' || return
    run "$SOVEREIGN" federation verify-log "$TMPDIR/$1.jsonl" --config "$config" --json
    exits 6 && equal "$(json_field good)" false && equal "$(json_field sequence)" "$2" && equal "$(json_field batches)" $(($2 - 1))
}
text() { tampered text '13s/"answer":12/"answer":13/' && wrong text 12 'one of them was changed'; }
check 'a changed pattern' text
signature() { tampered signature '31s/\("member":1,"signature":"\)./\1f/' && wrong signature 30 'signature of member 1'; }
check 'a changed signature of a certificate' signature
voter() { tampered voter '6s/{"member":3,"signature":"[0-9a-f]*"}/{"member":2,"signature":"'"$(printf '%0128d' 0)"'"}/' && wrong voter 5 'signature of member 2'; }
check 'a signature in the name of another' voter
fewer() { tampered fewer '8s/,{"member":3,"signature":"[0-9a-f]*"}\],"digest"/],"digest"/' && wrong fewer 7 '2 signatures; a quorum of 4 members is 3'; }
check 'a signature too few' fewer
chain() { tampered chain '22s/"head":"[0-9a-f]/"head":"0/' && wrong chain 21 'its head is not that of the chain'; }
check 'a changed head' chain
missing() { tampered missing '16d' && wrong missing 15 'the line is sequence 16'; }
check 'a missing batch' missing
swapped() { tampered swapped '4{h;d};5{G}' && wrong swapped 3 'the line is sequence 4'; }
check 'two batches swapped' swapped
short() { tampered short '30,$d' && wrong short 29 'the file ends here'; }
check 'a file that ends early' short
torn() { head -c -200 "$log" >"$TMPDIR/torn.jsonl" && wrong torn 40 'the file ends within this line'; }
check 'a file that ends within a line' torn
longer() { { cat "$log" && tail -n 1 "$log"; } >"$TMPDIR/longer.jsonl" && wrong longer 41 'goes on behind the last batch'; }
check 'a file that goes on' longer
rekeyed() { # an epoch is what says whose keys are to be used
    tampered rekeyed '25,$s/"epoch":1/"epoch":0/' && wrong rekeyed 25 'the certificate is of configuration 0; at this place 1 was in force'
}
check 'a certificate of the configuration before' rekeyed
unchanged() { tampered unchanged '4s/"kind":"rekey"/"kind":"remove"/' && wrong unchanged 3 'one of them was changed'; }
check 'a changed change of the configuration' unchanged
garbage() { tampered garbage '10s/.*/garbage/' && wrong garbage 9 ''; }
check 'a line that is no JSON' garbage
reordered() { # JSON that says the same is as good
    [ -n "$(command -v jq)" ] || return 0
    jq -c --sort-keys . "$log" | sed 's/,/ , /g;s/ , "/, "/g' >"$TMPDIR/reordered.jsonl"
    run "$SOVEREIGN" federation verify-log "$TMPDIR/reordered.jsonl" --config "$config"
    exits 0
}
check 'spaces between the members of objects do not matter' reordered

check 'a log of another federation' fails 3 'another federation' "$SOVEREIGN" federation verify-log "$log" --config "$fed/node0/federation.json"
check 'a folder of another federation' fails 3 'another federation' "$SOVEREIGN" federation verify-log --data-dir "$fed/node0" --config "$config"
check 'a file that is no log' fails 3 'is no exported log' "$SOVEREIGN" federation verify-log "$config" --config "$config"
check 'a file that is not there' fails 3 "$TMPDIR/none: cannot be opened" "$SOVEREIGN" federation verify-log "$TMPDIR/none" --config "$config"
check 'no configuration' fails 2 '--config FILE is needed' "$SOVEREIGN" federation verify-log "$log"
check 'neither file nor folder' fails 2 'either FILE or --data-dir' "$SOVEREIGN" federation verify-log --config "$config"
broken_config() {
    sed 's/"window": 16/"window": 24/' "$config" >"$TMPDIR/broken.json"
    fails 1 "$TMPDIR/broken.json: 'federation' is not the id of these members and limits" \
        "$SOVEREIGN" federation verify-log "$log" --config "$TMPDIR/broken.json"
}
check 'a configuration with another limit' broken_config
check 'an action that there is not' fails 2 "did you mean 'export'" "$SOVEREIGN" federation exprot
help() { run "$SOVEREIGN" federation --help && exits 0 && out_has 'Actions:' && out_has 'verify-log'; }
check 'help lists the actions' help
finish
