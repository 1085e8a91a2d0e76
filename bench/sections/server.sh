# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
# server, memory, idle: both servers with the first of the types, the same slots and context. Prompts of about 100 tokens,
# answers of 32, one client and many; then the largest memory they had (VmHWM), and the CPU time of ten idle seconds.

slots=$(echo "$clients" | tr ' ' '\n' | sort -n | tail -n 1)
context=512
type=${types%% *}
file=$(model_file "$type")
isa=$(best_isa)

# Requests per client: enough to mean something, few enough to end.
requests_for() {
    if [ "$1" -le 2 ]; then echo 4; elif [ "$1" -le 32 ]; then echo 2; else echo 1; fi
}

# The server's CPU time, in hundredths of a second.
server_ticks() {
    awk '{ sub(/^.*\) /, ""); print $12 + $13 }' "/proc/$server/stat"
}

server_visit() { # server_visit ENGINE COUNT: starts it, loads it with so many clients, and prints what was measured
    server_start "$1" "$file" "$slots" "$context"
    server_load --clients "$2" --requests "$(requests_for "$2")" --tokens 32 --salt "$salt"
    awk '/^VmHWM/ { print "peak_memory", $2 * 1024, "B" }' "/proc/$server/status"
    server_stop
}

server_idle() {
    server_start "$1" "$file" "$slots" "$context"
    "$out/bench_clients" --port "$port" --tokens 2 --words 2 >/dev/null
    sleep 1
    before=$(server_ticks)
    sleep 10
    echo "idle_cpu $(awk -v t=$(($(server_ticks) - before)) 'BEGIN { printf "%.2f", t / 10 }') percent"
    server_stop
}

if wants server || wants memory; then
    counts=$clients
    wants server || counts=$slots
    for round in $(seq "$rounds"); do
        for count in $counts; do
            next_salt
            for engine in $server_engines; do
                measure "server, $count clients, round $round of $rounds, $engine" server_visit "$engine" "$count"
                wants server || sed -i '/^peak_memory /!d' "$measured"
                keep server "$type" "$isa" "$count" "$engine"
            done
        done
    done
fi
if wants idle; then
    for engine in $server_engines; do
        # No other program's time is in this figure: one try.
        TRIES=1 measure "idle for 10 s, $engine" server_idle "$engine"
        keep idle "$type" "$isa" "$slots" "$engine"
    done
fi
