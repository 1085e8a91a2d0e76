#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# run-tests: seconds=600
#
# A node of four, the primary, whose file system is full: it says so, casts no vote that it could forget, and contradicts
# nothing; the three others go on; and when there is room again it catches up, both as it runs and after a kill -9.
#
# The file system is a small tmpfs in a mount namespace of this script's own. Where a process may not have one (no root, a
# container), the node's files may not grow beyond a size instead, until the limit is lifted: a comment says which it was.
cd "$(dirname "$0")/../.." || exit 1

if [ -z "${DISK_FULL_BY:-}" ]; then
    probe=$(mktemp -d)
    if unshare -m --propagation private mount -t tmpfs -o size=1m tmpfs "$probe" 2>/dev/null; then
        rmdir "$probe"
        DISK_FULL_BY=tmpfs exec unshare -m --propagation private bash tests/e2e/federation_disk_full.sh
    fi
    rmdir "$probe"
    export DISK_FULL_BY=limit
fi
. tests/e2e/lib_e2e.sh

fed=$TMPDIR/fed
port=$((20000 + RANDOM % 10000))
pids=()
stop() {
    kill "${pids[@]}" 2>/dev/null
    wait
    [ "$DISK_FULL_BY" = limit ] || umount "$fed/node0"
}
trap stop EXIT

if [ "$DISK_FULL_BY" = tmpfs ]; then
    echo '# the full disk is a real one: a tmpfs in a mount namespace'
else
    echo '# no mount namespace is permitted here: the full disk is a limit of the size of files (RLIMIT_FSIZE)'
fi

# within SECONDS COMMAND...: succeeds some time before that.
within() {
    local until=$((SECONDS + $1))
    shift
    while ! "$@" >/dev/null 2>&1; do
        [ "$SECONDS" -lt "$until" ] || { "$@"; return; }
        sleep 0.2
    done
}
start() {
    (
        trap '' XFSZ # a write beyond the limit is an error, not the end
        exec "$SOVEREIGN" federation start --data-dir "$fed/node$1" 2>>"$TMPDIR/node$1.err"
    ) &
    pids[$1]=$!
}
status_field() { "$SOVEREIGN" federation status --json --data-dir "$fed/node$1" | grep -oE "\"$2\":(\"[^\"]*\"|[^,]*)" | head -n 1 | cut -d: -f2-; }
connected() { [ "$("$SOVEREIGN" federation status --json --data-dir "$fed/node$1" | grep -o '"connected":true' | wc -l)" = 3 ]; }
same_heads() {
    local i head
    head=$(status_field 1 head)
    for i in 0 2 3; do [ "$(status_field "$i" head)" = "$head" ] || return 1; done
}
same_on_disk() { [ "$(status_field 0 durable)" = "$(status_field 1 sequence)" ]; }
number=0
# One pattern of 60 KB, proposed at node 1.
propose() {
    number=$((number + 1))
    printf '{"n":%d,"text":"%s"}\n' "$number" "$text" | "$SOVEREIGN" federation propose - --data-dir "$fed/node1" --timeout 120
}
text=$(head -c 60000 /dev/zero | tr '\0' x)
free_bytes() { df --output=avail -B1 "$fed/node0" | tail -n 1; }
fill() {
    if [ "$DISK_FULL_BY" = tmpfs ]; then
        cat /dev/zero >"$fed/node0/filler" 2>/dev/null
        equal "$(($(free_bytes)))" 0
    else
        prlimit --pid "${pids[0]}" --fsize=$(($(stat -c %s "$fed/node0/federation.sqlite-wal") + 65536)):unlimited
    fi
}
make_room() {
    if [ "$DISK_FULL_BY" = tmpfs ]; then
        rm "$fed/node0/filler"
    else
        [ ! -d "/proc/${pids[0]}" ] || prlimit --pid "${pids[0]}" --fsize=unlimited:unlimited
    fi
}
is_stuck() { [ "$(status_field 0 store_problem)" != '""' ]; }
no_trouble() { [ "$(status_field 0 store_problem)" = '""' ]; }
# For some tries of the store: it may find room in what it has, when its log was moved into its file meanwhile.
stays_stuck() {
    local i
    for i in 1 2 3 4 5; do
        is_stuck || return 1
        sleep 0.3
    done
}
# What is left of the room is used up: the others commit meanwhile, in a new view when the primary is stuck.
propose_until_stuck() {
    local i
    for i in $(seq 1 200); do
        propose >/dev/null || return 1
        if stays_stuck; then return 0; fi
    done
    echo "no trouble after $i patterns of 60 KB"
    return 1
}
# signed_since SEQUENCE: whether node 0's signature is in a certificate from there on, as node 1 has it.
signed_since() {
    "$SOVEREIGN" federation log --json --data-dir "$fed/node1" --from "$1" >"$TMPDIR/since" || return 2
    grep -qE '"signers":\[0[],]' "$TMPDIR/since"
}
silent_since() {
    signed_since "$1"
    [ $? = 1 ] && [ -s "$TMPDIR/since" ]
}
votes_again() {
    propose >/dev/null && signed_since "$1"
}

"$SOVEREIGN" federation init --nodes 4 --dir "$fed" --host 127.0.0.1 --base-port "$port" >/dev/null || exit 1
if [ "$DISK_FULL_BY" = tmpfs ]; then
    cp -rp "$fed/node0" "$TMPDIR/kept"
    mount -t tmpfs -o size=64m,mode=700 tmpfs "$fed/node0" || exit 1
    cp -p "$TMPDIR/kept"/* "$fed/node0"
fi
for i in 0 1 2 3; do start "$i"; done
for i in 0 1 2 3; do check "node $i is connected" within 60 connected "$i"; done
step 'a pattern is committed' propose
check 'and node 0 has it on its disk' within 60 same_on_disk

# full WHAT: the disk gets full, and the others go on.
full() {
    step "$1: there is no room any more" fill
    step "$1: the others commit, and node 0 comes to its end" propose_until_stuck
    run "$SOVEREIGN" federation status --data-dir "$fed/node0"
    check "$1: its status says why" out_has 'full'
    stuck_at=$(($(status_field 1 sequence) + 1))
    durable=$(status_field 0 durable)
    for i in 1 2 3 4 5; do step "$1: three go on ($i)" propose; done
    check "$1: it casts no vote meanwhile" silent_since "$stuck_at"
    check "$1: nothing more is durable there" equal "$(status_field 0 durable)" "$durable"
}

full 'full disk'
check 'what it said' grep -q 'member 0 cannot store: .*full' "$TMPDIR/node0.err"
step 'there is room again' make_room
check 'it catches up by itself' within 120 same_heads
check 'and has it on its disk' within 60 same_on_disk
check 'its status says nothing any more' within 60 no_trouble
stuck_at=$(($(status_field 1 sequence) + 1))
step 'and it votes again' within 120 votes_again "$stuck_at"

full 'again'
kill -9 "${pids[0]}"
wait "${pids[0]}" 2>/dev/null
step 'killed, and there is room again' make_room
start 0
check 'it is back' within 60 connected 0
check 'with the same log' within 120 same_heads
stuck_at=$(($(status_field 1 sequence) + 1))
step 'and with its vote' within 120 votes_again "$stuck_at"
no_blame() { ! grep -H -i 'misbehaves\|bad message\|diverged\|lost its votes' "$TMPDIR"/node?.err; }
check 'nobody saw a contradiction, and nothing was forgotten' no_blame
for i in 0 1; do
    run "$SOVEREIGN" federation verify-log --data-dir "$fed/node$i"
    check "the log of node $i is good" exits 0
done
finish
