#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What make bench makes of its records: medians, ratios, limits, floors, plots; and what bench_http sees of a server.
set -u
. tests/scripts/lib_tap.sh

make --no-print-directory SETUP=no BUILD="$BUILD" "$BUILD/bench/report" >"$TMPDIR/make.log" 2>&1
check "the report is built" test -x "$BUILD/bench/report"

records=$TMPDIR/records.txt
cat >"$TMPDIR/machine.txt" <<'END'
cpu Test & Sons
threads 2
commit 671e261
END
cat >"$records" <<'END'
roofline read_bandwidth - any 2 machine 50 GB/s
roofline int8_dot - avx512 2 machine 1.0 TOPS
roofline fma - avx512 2 machine 0.25 TOPS
engine weight_bytes q4_0 - 0 model 500000000 B
engine macs q4_0 - 0 model 1000000000 n
engine decode q4_0 avx512 1 sovereign 60 tokens/s
engine decode q4_0 avx512 1 sovereign 50 tokens/s
engine decode q4_0 avx512 1 sovereign 90 tokens/s
engine decode q4_0 avx512 1 llama 40 tokens/s
engine decode q4_0 avx512 8 sovereign 270 tokens/s
engine decode q4_0 avx512 8 llama 200 tokens/s
idle idle_cpu q4_0 avx512 32 sovereign 0.00 percent
prefix seconds q4_0 avx512 64 sovereign 30 s
shapes weight_bytes tinyllama/q4_0 - 0 model 600 B
shapes macs tinyllama/q4_0 - 0 model 1100 n
shapes output_macs tinyllama/q4_0 - 0 model 100 n
shapes weight_bytes odd/q4_0 - 0 model 300 B
shapes macs odd/q4_0 - 0 model 550 n
shapes output_macs odd/q4_0 - 0 model 250 n
shapes decode tinyllama/q4_0 avx512 1 sovereign 10 tokens/s
shapes decode odd/q4_0 avx512 1 sovereign 20 tokens/s
shapes decode tinyllama/q4_0 avx512 8 sovereign 50 tokens/s
shapes decode odd/q4_0 avx512 8 sovereign 80 tokens/s
shapes prefill tinyllama/q4_0 avx512 256 sovereign 100 tokens/s
shapes prefill odd/q4_0 avx512 256 sovereign 280 tokens/s
prefix seconds q4_0 avx512 64 llama 100 s
http hit_rate nginx two-cpus 64 sovereign 90000 requests/s
http hit_rate nginx two-cpus 64 peer 120000 requests/s
http hit_latency_p50 memcached one-cpu 1 sovereign 18 us
http hit_latency_p50 memcached one-cpu 1 peer 16 us
http hit_latency_p50 memcached two-cpus 1 sovereign 150 us
http hit_latency_p50 memcached two-cpus 1 peer 60 us
END
run() { # sets output and status
    rm -f "$TMPDIR"/*.svg "$TMPDIR/bench.json"
    output=$("$BUILD/bench/report" "$records" "$TMPDIR/machine.txt" "$TMPDIR" 2>&1)
    status=$?
}
# json EXPRESSION: of the figures f, by a function that finds one.
json() {
    node -e '
        const b = JSON.parse(require("fs").readFileSync(process.argv[1]));
        const f = (metric, size) => b.figures.find(x => x.metric === metric && x.size === size);
        console.log(eval(process.argv[2]));' "$TMPDIR/bench.json" "$1"
}

run
check "below a floor the status is 1" equal "$status" 1
check "the median of the rounds counts" equal "$(json 'f("decode", 1).sovereign.median')" 60
check "the ratio is of medians" equal "$(json 'f("decode", 1).ratio')" 1.5
check "batch 1 is limited by memory" equal "$(json '[f("decode", 1).limit, f("decode", 1).bound].join()')" 100,memory
check "batch 8 by arithmetic" equal "$(json '[f("decode", 8).limit, f("decode", 8).bound].join()')" 500,compute
check "1.35 times llama.cpp is below the floor at batch 8" equal "$(json 'f("decode", 8).met')" false
check "1.5 times is above it at batch 1" equal "$(json 'f("decode", 1).met')" true
check "the gain of batching is a figure" equal "$(json 'f("batch_8_over_1", 8).sovereign.median')" 4.5
check "of times, less is better" equal "$(json 'f("seconds", 64).met')" false
check "an idle server is judged alone" equal "$(json 'f("idle_cpu", 32).met')" true
check "what the machine is stays as it was" equal "$(json 'b.machine.cpu + " " + b.machine.commit')" "Test & Sons 671e261"
check "the table counts the floors" has "$output" "5 of 11 floors met"
check "hits through HTTP are set against nginx" equal "$(json '[f("hit_rate", 64).ratio, f("hit_rate", 64).met].join()')" 0.75,true
check "and named after whom they are set against" equal "$(json 'f("hit_rate", 64).weights + f("hit_rate", 64).peer.median')" nginx120000
check "their latency against memcached, placement by placement" equal \
    "$(json 'b.figures.filter(x => x.metric === "hit_latency_p50").map(x => x.isa + x.ratio + x.met).join()')" \
    "one-cpu1.125true,two-cpus2.5false"
shape() { # what the report says of a metric of the odd shape
    json "(x => x.sovereign.median.toFixed(3) + ' ' + x.met)(b.figures.find(x => x.weights === 'odd/q4_0' && x.metric === '$1' && x.size === $2))"
}
check "at batch 1 a shape is set against another by the byte" equal "$(shape decode_alike 1)" "1.000 true"
check "at batch 8 by the multiply-add" equal "$(shape decode_alike 8)" "0.800 false"
check "in a prompt without the output matrix of all tokens but one" equal "$(shape prefill_alike 256)" "0.842 false"
check "there is a plot of decode" has "$(cat "$TMPDIR/decode.svg")" "limit of the machine"

sed -i 's/ 30 s$/ 20 s/; s/sovereign 270/sovereign 500/; s/sovereign 80 /sovereign 95 /
    s/sovereign 280 /sovereign 290 /; s/sovereign 150 us/sovereign 90 us/' "$records"
run
check "with all floors met the status is 0" equal "$status $(json 'f("decode", 8).of_limit')" "0 1"

echo "engine decode q4_0 avx512 8 nobody 200 tokens/s" >>"$records"
run
check "a line that is no record is named" has "$status $output" "records.txt:33"

# bench_http against a server that has one answer.
make --no-print-directory SETUP=no BUILD="$BUILD" "$BUILD/bench/bench_http" "$BUILD/sovereign" >"$TMPDIR/make.log" 2>&1
"$BUILD/sovereign" serve --model models/guide.gguf --port 0 --threads 1 --parallel 1 --ctx 512 </dev/null >/dev/null \
    2>"$TMPDIR/serve.log" &
server=$!
trap 'kill -KILL "$server" 2>/dev/null' EXIT
for _ in $(seq 300); do # half a minute; it takes a moment
    port=$(sed -n 's|.* on http://127.0.0.1:\([0-9]*\).*|\1|p' "$TMPDIR/serve.log")
    [ -z "$port" ] || break
    sleep 0.1
done
ask() { # ask EXPECTED: the answer to one question, for a second over four connections
    "$BUILD/bench/bench_http" --port "$port" --connections 4 --seconds 1 --post /v1/completions \
        --body '{"prompt":"What is a hit?","max_tokens":8,"temperature":0}' --expect "$1" 2>&1
}
curl -s -o "$TMPDIR/answer" -d '{"prompt":"What is a hit?","max_tokens":8,"temperature":0}' \
    -H 'Content-Type: application/json' "http://127.0.0.1:$port/v1/completions"
output=$(ask 'x-sovereign-cache: hit')
rate=$(sed -n 's/^hit_rate \([0-9]*\)[0-9.]* requests.s$/\1/p' <<<"$output")
check "hits over connections that stay open are counted" test "${rate:-0}" -gt 100
check "and timed" has "$output" "hit_latency_p50"
check "an answer that is not the expected one ends it" has "$(ask 'x-sovereign-cache: miss')" "not the expected answer"
check "so does an error" has "$("$BUILD/bench/bench_http" --port "$port" --post /v1/completions --body '{}' 2>&1)" \
    "the answer is not 200"
kill "$server"
wait "$server" || true
trap - EXIT

check "a section that there is not is refused" has "$(bench/run SECTIONS=engine,speed 2>&1)" "no section 'speed'"
check "so is an argument without a value" has "$(bench/run engine 2>&1)" "not NAME=VALUE"
finish
