#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# A federation of four nodes, each in a network namespace of its own, all of them on one bridge, and what happens when
# the network between them breaks: two and two, three and one, and one that is not heard. A port that moves to a second
# bridge is cut off from those on the first; what goes to a wrong Ethernet address is lost in one direction.
#
# The script runs itself anew in namespaces for the network and for mounts, so that whatever it makes is gone when it
# ends, however that is. Where namespaces are not permitted, the partitions are made by proxies (test_federation_nodes).
cd "$(dirname "$0")/../.." || exit 1
. tests/e2e/lib_e2e.sh
PATH=$PATH:/usr/sbin

if [ "${1:-}" != inside ]; then
    as=()
    [ "$(id -u)" = 0 ] || as=(--user --map-root-user)
    # A tmpfs in the place of /run: names of namespaces are kept there.
    # shellcheck disable=SC2016
    probe='mount -t tmpfs none /run && mkdir /run/netns && ip netns add probe && ip link add probe0 type bridge &&
        ip link add probe1 type veth peer name probe2 netns probe && ip link set probe1 master probe0'
    if why=$(unshare "${as[@]}" --net --mount sh -c "$probe" 2>&1); then
        exec unshare "${as[@]}" --net --mount bash "$0" inside
    fi
    echo "# network namespaces cannot be made here, so that proxies make the partitions: ${why%%$'\n'*}"
    check 'partitions, made by proxies' "$BUILD/tests/test_federation_nodes" test_partitions
    finish
    exit
fi

fed=$TMPDIR/fed
pids=()
trap 'kill -9 "${pids[@]}" 2>/dev/null; wait' EXIT
trap 'exit 1' INT TERM HUP

# ---- the network ----

mount -t tmpfs none /run && mkdir /run/netns || exit 1
for bridge in main aside; do ip link add "$bridge" type bridge && ip link set "$bridge" up || exit 1; done
for i in 0 1 2 3; do
    ip netns add "n$i" || exit 1
    ip link add "port$i" type veth peer name eth netns "n$i"
    ip link set "port$i" master main up
    ip -n "n$i" link set lo up
    ip -n "n$i" link set eth up
    ip -n "n$i" address add "10.77.0.1$i/24" dev eth
done
# aside NODE...: these are on a bridge of their own.
aside() {
    local i
    for i in "$@"; do ip link set "port$i" master aside; done
}
# unheard NODE OTHER...: what the node sends to the others is lost.
unheard() {
    local node=$1 other
    shift
    for other in "$@"; do ip -n "n$node" neighbour replace "10.77.0.1$other" lladdr 02:00:00:00:00:01 nud permanent dev eth; done
}
heal() {
    local i other
    for i in 0 1 2 3; do
        ip link set "port$i" master main
        for other in 0 1 2 3; do ip -n "n$i" neighbour delete "10.77.0.1$other" dev eth 2>/dev/null; done
    done
}

# ---- the nodes ----

: >"$TMPDIR/acknowledged"
status_field() { "$SOVEREIGN" federation status --json --data-dir "$fed/node$1" | grep -oE "\"$2\":[^,]*" | head -n 1 | cut -d: -f2; }
connected() { [ "$("$SOVEREIGN" federation status --json --data-dir "$fed/node$1" | grep -o '"connected":true' | wc -l)" = 3 ]; }
# propose NODE JSON SECONDS: 0 when it is committed; then its id is written down.
propose() {
    local answer
    answer=$(echo "$2" | "$SOVEREIGN" federation propose - --timeout "$3" --data-dir "$fed/node$1" 2>"$TMPDIR/propose$1.err") || return
    echo "${answer% *}" >>"$TMPDIR/acknowledged"
}
# go_on NAME NODE...: each of them gets some patterns committed.
go_on() {
    local name=$1 i n
    shift
    for n in 0 1 2 3; do
        for i in "$@"; do
            propose "$i" "{\"when\": \"$name\", \"by\": $i, \"n\": $n}" 60 || { cat "$TMPDIR/propose$i.err"; return 1; }
        done
    done
}
# stands NAME NODE...: what is proposed at them, at the same time, is not committed.
stands() {
    local name=$1 i committed=0 waits=()
    shift
    for i in "$@"; do
        propose "$i" "{\"when\": \"$name\", \"at\": $i}" 1.5 &
        waits+=($!)
    done
    for i in "${waits[@]}"; do wait "$i" && committed=$((committed + 1)); done
    [ "$committed" = 0 ] || { echo "$committed of $# were committed"; return 1; }
}
same_heads() {
    local i
    for i in 1 2 3; do [ "$(status_field "$i" head)" = "$(status_field 0 head)" ] || return 1; done
}

"$SOVEREIGN" federation init --nodes 4 --dir "$fed" >/dev/null || exit 1
for i in 0 1 2 3; do
    # Addresses and time-outs are not a part of the federation's id.
    sed -i -E 's/127\.0\.0\.1:710([0-3])/10.77.0.1\1:7100/; s/("view_timeout_ms": *)[0-9]+/\1500/; s/("view_timeout_ms_max": *)[0-9]+/\12000/' \
        "$fed/node$i/federation.json"
    ip netns exec "n$i" "$SOVEREIGN" federation start --data-dir "$fed/node$i" 2>"$TMPDIR/node$i.err" &
    pids+=($!)
done
for i in 0 1 2 3; do check "node $i is connected" within 60 connected "$i"; done
check 'all four get patterns committed' go_on whole 0 1 2 3

aside 2 3
check 'two and two: nothing is committed' stands halves 0 1 2 3
heal
check 'healed: all four go on' go_on 'after halves' 0 1 2 3

alone=$(status_field 0 primary)
others=(0 1 2 3)
unset "others[$alone]"
aside "$alone"
check 'three and one: the three go on' go_on three "${others[@]}"
check 'the one, which was the primary, does not' stands one "$alone"
heal
check 'healed again: all four go on' go_on 'after one' 0 1 2 3

alone=$(status_field 0 primary)
others=(0 1 2 3)
unset "others[$alone]"
unheard "$alone" "${others[@]}"
check 'a primary that hears and is not heard: the others go on' go_on unheard "${others[@]}"
check 'with another primary' test "$(status_field "${others[*]:0:1}" primary)" != "$alone"
heal
check 'healed at last: all four go on' go_on 'at last' 0 1 2 3

# ---- what is left ----

check 'all logs come to the same end' within 60 same_heads
kill "${pids[@]}"
wait
heads=()
for i in 0 1 2 3; do
    run "$SOVEREIGN" federation verify-log --json --data-dir "$fed/node$i"
    check "the log of node $i verifies" exits 0
    heads+=("$(json_field head)")
done
check 'and is the same as all others' equal "${heads[*]}" "${heads[0]} ${heads[0]} ${heads[0]} ${heads[0]}"
everywhere() {
    local i id
    for i in 0 1 2 3; do
        while read -r id; do
            "$SOVEREIGN" federation get "$id" --data-dir "$fed/node$i" >/dev/null || { echo "node $i lacks $id"; return 1; }
        done <"$TMPDIR/acknowledged"
    done
}
check "every acknowledged proposal ($(wc -l <"$TMPDIR/acknowledged")) is on every node" everywhere
finish
