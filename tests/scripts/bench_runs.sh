#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# bench/run with measuring programs that answer at once: what ADD=yes keeps of earlier runs, what is said when a peer is
# missing or fails; and that plots and JSON have everything that a server was measured for, in well-formed files.
set -u
. tests/scripts/lib_tap.sh

make --no-print-directory SETUP=no BUILD="$BUILD" "$BUILD/bench/report" "$BUILD/sovereign" >"$TMPDIR/make.log" 2>&1
tree=$TMPDIR/build
mkdir -p "$tree/bench/models"
ln -s "$BUILD/sovereign" "$tree/sovereign"
ln -s "$BUILD/bench/report" "$tree/bench/report"
touch "$tree/bench/models/tinyllama-q4_0.gguf"
program() { # program NAME: the body comes on standard input
    { echo '#!/bin/sh'; cat; } >"$tree/bench/$1"
    chmod +x "$tree/bench/$1"
}
# The bandwidth allows 100 steps of this model per second with two threads, 50 with one.
program bench_roofline <<<'echo "read_bandwidth any $1 $((25 * $1)) GB/s"'
program bench_engine <<<'echo prefill 256 300; echo decode 1 60; echo cost 500000000 1000000000 0 90112 66000000'
program bench_llama <<<'echo prefill 256 100; echo decode 1 40'
measure() { # measure SETTING...: sets output and status
    output=$(BUILD=$tree SOVEREIGN_DEPS=$TMPDIR/none PATH=/usr/bin:/bin bench/run SECTIONS=engine TYPES=q4_0 ROUNDS=1 TRIES=1 \
        PREFILL=256 BATCH=1 "$@" 2>&1)
    status=$?
}
json() { # json EXPRESSION: of the report b
    node -e '
        const b = JSON.parse(require("fs").readFileSync(process.argv[1]));
        const f = (metric, size) => b.figures.find(x => x.metric === metric && x.size === size);
        console.log(eval(process.argv[2]));' "$folder/bench.json" "$1"
}
folder=$tree/bench

measure THREADS=2
check "a run measures and reports" equal "$status $(json 'f("decode", 1).ratio')" "0 1.5"
check "it says what it was measured on" equal \
    "$(json '[b.runs.length, b.runs[0].run, b.runs[0].threads, b.runs[0].sections, b.machine.run].join()')" 1,1,2,engine,1
check "one run needs no list of runs" equal "$(grep -c '^run 1 ' <<<"$output")" 0
if ! PATH=/usr/bin:/bin command -v llama-server >/dev/null; then
    check "that there is no llama-server is said" has "$output" "no llama-server here: the servers' figures are Sovereign's alone"
fi

program bench_engine <<<'echo decode 4 90; echo cost 500000000 1000000000 0 90112 66000000'
program bench_llama <<<'echo decode 4 60'
measure THREADS=1 ADD=yes
check "a second run is added" equal "$(json '[f("decode", 1).ratio, f("decode", 4).ratio].join()')" 1.5,1.5
check "each run keeps what it was measured on" equal \
    "$(json 'b.runs.map(x => [x.run, x.threads].join(":")).join() + " " + b.machine.threads')" "1:2,2:1 1"
check "and each figure the runs it is from" equal "$(json '[f("decode", 1).runs, f("decode", 4).runs].join(";")')" "1;2"
check "a figure's limit is that of its own run's threads" equal \
    "$(json '[f("decode", 1).limit, f("decode", 4).limit].join()')" 100,200
check "the table lists them" equal "$(grep -c '^run 1 .*2 threads.*engine$' <<<"$output") $(grep -c '^run 2 .*1 threads' <<<"$output")" "1 1"

measure THREADS=2
check "without ADD=yes it begins anew" equal "$(json 'b.runs.map(x => x.run).join() + typeof f("decode", 1)')" 1undefined

for run in $(seq 2 64); do echo "run $run"; done >>"$tree/bench/machine.txt"
measure THREADS=2 ADD=yes
check "more runs than there is room for are refused before they are measured" equal \
    "$status $(grep -c 'has 64 runs, and no room for another' <<<"$output")" "2 1"

rm "$tree/bench/records.txt"
program bench_llama <<<'exit 1'
measure THREADS=2
check "a peer that fails ends the run by name" equal "$status $(grep -c 'failed: .*/bench_llama ' <<<"$output")" "2 1"
check "and it is said where the rest is" has "$output" "records.txt; ADD=yes adds the rest to it"
rm "$tree/bench/bench_llama"
measure THREADS=2
check "so does one that is missing" equal "$status $(grep -c 'failed: .*/bench_llama ' <<<"$output")" "2 1"

# Every chart there is, of records as the sections write them.
folder=$TMPDIR/report
mkdir -p "$folder"
printf '%s\n' 'cpu Test & <Sons>' 'threads 2' >"$folder/machine.txt"
for clients in 1 8 32 64; do
    for engine in sovereign llama; do
        for metric in ttft_p50 ttft_p95 ttft_p99 tpot_p50 tpot_p95 tpot_p99; do
            echo "server $metric q4_0 avx512 $clients $engine 0.$clients s"
        done
        echo "server throughput q4_0 avx512 $clients $engine 2$clients tokens/s"
        echo "server peak_memory q4_0 avx512 $clients $engine 1000000 B"
        echo "engine decode q4_0 avx512 $clients $engine 1$clients tokens/s"
        echo "engine prefill q4_0 avx512 $clients $engine 1$clients tokens/s"
    done
    echo "kernels stream_read q4_0 avx512 $clients sovereign 9 GB/s"
    echo "kernels stream_compute q4_0 avx512 $clients sovereign 0.3 TOPS"
    echo "kernels cache_compute q4_0 avx512 $clients sovereign 0.3 TOPS"
done >"$folder/records.txt"
table=$("$BUILD/bench/report" "$folder/records.txt" "$folder/machine.txt" "$folder" 2>&1)
check "a server's figures of all clients are in the JSON" equal \
    "$(json '["ttft", "tpot"].every(m => ["p50", "p95", "p99"].every(p => [1, 8, 32, 64].every(n =>
        f(m + "_" + p, n).sovereign.median > 0 && f(m + "_" + p, n).llama.median > 0)))')" true
check "and in the table" equal "$(grep -c ' t[tp][fo]t_p[59][059] ' <<<"$table")" 24
for chart in decode prefill server kernels; do
    # Tags that close what was opened last, one outermost element, and no & that begins no entity.
    check "$chart.svg is well-formed" node -e '
        const text = require("fs").readFileSync(process.argv[1], "utf8"), open = [];
        let roots = 0;
        for (const [tag, slash, name, rest] of text.matchAll(/<(\/?)([A-Za-z][\w:-]*)((?:[^<>"]|"[^<"]*")*)>/g)) {
            if (slash && open.pop() !== name) throw tag;
            if (!slash && open.length === 0) roots++;
            if (!slash && !rest.endsWith("/")) open.push(name);
        }
        const left = text.replace(/<[^<>]*>/g, "");
        if (roots !== 1 || open.length || /[<>]/.test(left) || /&(?!\w+;|#\d+;)/.test(text)) throw "not well-formed";
        ' "$folder/$chart.svg"
done
svg=$(cat "$folder/server.svg")
for title in Throughput {"Time to first token","Time per further token"}", p"{50,95,99}; do
    check "the servers' plots have: $title" has "$svg" "$title"
done
for clients in 1 8 32 64; do check "for $clients clients" has "$svg" ">$clients<"; done
finish
