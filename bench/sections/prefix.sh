# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
# prefix: requests that share a system prompt of about 1,000 tokens and differ in the question, all sent at once.
# llama-server reuses a prompt within a slot only, so many slots make it read the shared part many times: it gets
# PREFIX_SLOTS of them, with which it was fastest (docs/performance.md).

type=${types%% *}
file=$(model_file "$type")
isa=$(best_isa)
prefix_slots=${PREFIX_SLOTS:-2}

prefix_visit() {
    local slots=$prefix_requests
    [ "$1" = sovereign ] || slots=$prefix_slots
    server_start "$1" "$file" "$slots" 1280
    server_load --clients "$prefix_requests" --prefix-words 245 --words 5 --tokens 32 --salt "$salt"
    server_stop
}

for round in $(seq "$rounds"); do
    next_salt
    for engine in $server_engines; do
        measure "prefix, $prefix_requests requests, round $round of $rounds, $engine" prefix_visit "$engine"
        keep prefix "$type" "$isa" "$prefix_requests" "$engine"
    done
done
