#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# The commands that speak to nodes which run: sovereign federation try, start, status, propose, approve and change, and
# serve --federation. What nodes survive is tested by tests/test_federation_nodes.c.
cd "$(dirname "$0")/../.." || exit 1
. tests/e2e/lib_e2e.sh

fed=$TMPDIR/fed
port=$((20000 + RANDOM % 10000))
pids=()
trap 'kill "${pids[@]}" 2>/dev/null; wait' EXIT

status_field() { "$SOVEREIGN" federation status --json --data-dir "$fed/node$1" | grep -oE "\"$2\":[^,]*" | head -n 1 | cut -d: -f2; }
connected() { [ "$("$SOVEREIGN" federation status --json --data-dir "$fed/node$1" | grep -o '"connected":true' | wc -l)" = "$2" ]; }
# propose NODE JSON [FLAGS]
propose() { echo "$2" | "$SOVEREIGN" federation propose - --data-dir "$fed/node$1" "${@:3}"; }
same_heads() {
    local i
    for i in 1 2 3; do [ "$(status_field "$i" head)" = "$(status_field 0 head)" ] || return 1; done
}

# ---- without a node ----

mkdir "$TMPDIR/empty"
check 'no node runs there' fails 1 'no node of a federation runs there' "$SOVEREIGN" federation status --data-dir "$TMPDIR/empty"
check 'propose wants a file' fails 2 'FILE is missing' "$SOVEREIGN" federation propose --data-dir "$TMPDIR/empty"
check 'start wants a configuration' fails 1 'federation.json' "$SOVEREIGN" federation start --data-dir "$TMPDIR/empty"
check 'a change must be one' fails 2 "begins with 'add', 'remove' or 'rekey'" "$SOVEREIGN" federation change nonsense --data-dir "$TMPDIR/empty"
check 'serve --federation needs a data directory' fails 2 'needs --data-dir' "$SOVEREIGN" serve --federation x.json

# ---- four nodes ----

"$SOVEREIGN" federation try --dir "$fed" --base-port "$port" >"$TMPDIR/try.out" 2>"$TMPDIR/try.err" &
pids+=($!)
try=$!
for i in 0 1 2 3; do check "node $i is connected" within 30 connected "$i" 3; done
check 'try says how to speak to it' grep -q "federation status --data-dir $fed/node0" "$TMPDIR/try.out"
run propose 0 '{"b": 2, "a": 1}'
check 'a pattern is committed' exits 0
id=${out% *}
check 'and has an id and a sequence' test "${#id}" = 64 -a "${out#* }" -ge 1
run propose 2 '{"a":1,"b":2.0}'
check 'the same pattern has the same id' equal "${out% *}" "$id"
check 'get finds it on another node' within 10 "$SOVEREIGN" federation get "$id" --data-dir "$fed/node3"
check 'as canonical JSON' equal "$("$SOVEREIGN" federation get "$id" --data-dir "$fed/node3")" '{"a":1,"b":2}'
check 'what is no JSON is refused' fails 1 'expected' "$SOVEREIGN" federation propose tests/e2e/federation.sh --data-dir "$fed/node0"
for i in $(seq 1 700); do echo "{\"line\": $i}"; done >"$TMPDIR/lines"
run "$SOVEREIGN" federation propose "$TMPDIR/lines" --lines --data-dir "$fed/node1"
check 'each line is a pattern' equal "$(wc -l <<<"$out")" 700
run "$SOVEREIGN" federation status --data-dir "$fed/node1"
check 'status names the primary' out_has 'the primary is node '
check 'status lists the others' out_has "127.0.0.1:$((port + 3))"

# ---- a node that is killed ----

victim=$(pgrep -P "$try" | head -n 1)
kill -9 "$victim"
run propose 1 '{"without": "one"}'
check 'three go on without the fourth' exits 0
check 'try starts it again' within 30 grep -q 'is started again' "$TMPDIR/try.err"
check 'and it is back' within 30 connected 0 3
check 'with the same log' within 30 same_heads

# ---- logs that prove themselves ----

run kill -INT "$try"
wait "$try"
check 'try ends' test "$?" = 0
pids=()
check 'and no node is left' fails 1 'no node' "$SOVEREIGN" federation status --data-dir "$fed/node1"
for i in 0 1 2 3; do
    "$SOVEREIGN" federation export --data-dir "$fed/node$i" -o "$TMPDIR/log$i"
    check "the log of node $i is good" "$SOVEREIGN" federation verify-log "$TMPDIR/log$i" --config "$fed/node0/federation.json"
done

# ---- a node without a quorum ----

"$SOVEREIGN" federation start --data-dir "$fed/node1" 2>"$TMPDIR/node1.err" &
pids+=($!)
check 'one node alone runs' within 30 "$SOVEREIGN" federation status --data-dir "$fed/node1"
# Sent, unless the time was over before the node had a turn.
undecided() { run propose 1 "$1" --timeout 0.2; [ "$status" = 4 ]; }
step 'a proposal that was sent is undecided' within 30 undecided '{"alone": 1}'
check 'and why is said' err_has 'not committed within 0.2 s'
alone=$(grep -oE 'federation get [0-9a-f]{64}' <<<"$err" | cut -d' ' -f3)
step 'so is a second' within 30 undecided '{"alone": 2}'
run propose 1 '{"alone": 3}' --timeout 0.2 --json
check 'what was not sent is taken back' exits 3
check 'as the JSON says' out_has '"may_be_committed":false,"timed_out":true,"timeout_ms":200,"ids":[]'

# ---- a node inside the server ----

for i in 2 3; do
    "$SOVEREIGN" federation start --data-dir "$fed/node$i" 2>"$TMPDIR/node$i.err" &
    pids+=($!)
done
"$SOVEREIGN" serve --port "$((port + 9))" --data-dir "$fed/node0" --federation "$fed/node0/federation.json" 2>"$TMPDIR/serve.err" &
pids+=($!)
url=http://127.0.0.1:$((port + 9))/v1/federation
check 'the server is a member' within 60 connected 0 3
body=$(curl -s -m 20 "$url/propose" -d '{"pattern": {"over": "HTTP"}}')
check 'it proposes' has "$body" '"object":"federation.commit"'
id=$(grep -oE '[0-9a-f]{64}' <<<"$body")
check 'another node has it' within 10 "$SOVEREIGN" federation get "$id" --data-dir "$fed/node2"
check 'and so has the server' within 10 curl -sf "$url/patterns/$id"
check 'what was undecided is committed' within 30 "$SOVEREIGN" federation get "$alone" --data-dir "$fed/node3"
check 'its status' has "$(curl -s "$url/status")" '"state":"normal"'
metrics() { curl -s "http://127.0.0.1:$((port + 9))/metrics"; }
counts_commit() { metrics | grep -q '^sovereign_federation_commit_seconds_count 1$'; }
check 'its metrics' within 10 counts_commit
check 'a second node on the same directory is refused' fails 1 'process' "$SOVEREIGN" federation start --data-dir "$fed/node0"

# ---- a node that is killed while somebody waits for it ----

kill -9 "${pids[@]}" 2>/dev/null
wait "${pids[@]}" # until then the data directory is theirs
"$SOVEREIGN" federation start --data-dir "$fed/node1" 2>"$TMPDIR/node1.err" &
pids+=($!)
check 'a node runs again, alone' within 30 "$SOVEREIGN" federation status --data-dir "$fed/node1"
propose 1 '{"nobody": "knows"}' --timeout 0 2>"$TMPDIR/waits.err" &
waits=$!
under_way() { "$SOVEREIGN" federation status --json --data-dir "$fed/node1" | grep -q '"under_way":1'; }
check 'it has a proposal under way' within 30 under_way
kill -9 "${pids[-1]}"
wait "$waits"
check 'whoever waits is told that it is undecided' test "$?" = 4
check 'and why' grep -q 'ended.*may be committed' "$TMPDIR/waits.err"
finish
