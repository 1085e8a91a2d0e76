# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
# overhead: the built-in model, so small that what is around the kernels dominates, with 32 clients.

isa=$(best_isa)
overhead_visit() {
    server_start "$1" models/guide.gguf 32 512
    server_load --clients 32 --requests 16 --words 2 --tokens 32 --salt "$salt"
    server_stop
}

for round in $(seq "$rounds"); do
    next_salt
    for engine in $server_engines; do
        measure "overhead, round $round of $rounds, $engine" overhead_visit "$engine"
        keep overhead guide "$isa" 32 "$engine"
    done
done
