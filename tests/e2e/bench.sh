#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# run-tests: serial
#
# sovereign bench: a short run of all sections with the built-in guide, its JSON as a baseline, exit statuses, and what is
# said when something is wrong. What it measures is not judged here: other things may run beside it.
cd "$(dirname "$0")/../.." || exit 1
. tests/e2e/lib_e2e.sh

bench() { "$SOVEREIGN" bench --iterations 1 "$@"; }
before=$TMPDIR/before.json

all_sections() {
    local name
    run bench --all --data-dir "$TMPDIR" --output "$before"
    exits 0 || return 1
    for name in query.zipf query.distinct query.scored inference.prefill inference.decode batching.1 batching.8 \
        cache.key_1k cache.hit cache.evict_large cache.http_hit projection.single projection.batch \
        consensus.round_4 consensus.round_8 consensus.load_4_of_512 consensus.failover_4 consensus.restart_4 \
        consensus.memory_8 consensus.digest_once consensus.digest_each; do
        out_has "$name " && has "$(cat "$before")" "\"name\":\"$name\"" || return 1
    done
    out_has 'PERFORMANCE SCORE' && out_has 'Query latency (p50)' && out_has 'Memory (peak)' &&
        out_has 'Federations stored on' && out_has '81 + 9 ln(ours / before)'
}
check 'all sections with the built-in guide' all_sections
is_json() {
    "$SOVEREIGN" canonical-json <"$before" >/dev/null && grep -q '"format":"sovereign-bench","version":1' "$before"
}
check 'the output is JSON' is_json
# field NAME FIELD: a number of a benchmark, its extras included.
field() {
    awk -v name="\"name\":\"$1\"" -v field="\"$2\":" '
        index($0, "\"name\":\"") { on = index($0, name) > 0 }
        on && (at = index($0, field)) { print substr($0, at + length(field)) + 0; exit }' "$before"
}
consensus_figures() {
    local name
    for name in signatures_share digests_share protocol_share storage_share network_share syncs_per_batch; do
        [ -n "$(field consensus.round_4 $name)" ] || return 1
    done
    # Each pattern is digested once per replica, and checked by all but its maker.
    equal "$(field consensus.memory_8 digests_each)" 1 && equal "$(field consensus.memory_8 canonical_each)" 0.875 || return 1
    # Nothing is committed before the patience with the dead primary is over, nor digested less often than it says.
    equal "$(field consensus.failover_4 view_timeout_ms)" 2000 && [ "$(field consensus.failover_4 median | cut -d. -f1)" -ge 1500 ] &&
        equal "$(field consensus.digest_each digests)" 1024 && [ -z "$(find "$TMPDIR" -name 'sovereign-bench-*')" ]
}
check 'shares of a round, digests counted, no folder left behind' consensus_figures
plotted() { grep -q '<svg' "$before.svg" && grep -q 'query.zipf' "$before.svg"; }
check 'and beside it lies a plot' plotted

quiet() {
    run bench --projection --quiet --plot "$TMPDIR/p.svg"
    exits 0 && equal "$err" '' && out_has 'projection.batch' && [ -s "$TMPDIR/p.svg" ] || return 1
    case $out in *query.zipf*) return 1 ;; esac
}
check 'one section, quietly' quiet
to_stdout() {
    run bench --projection --quiet --output -
    exits 0 && [ "${out:0:1}" = '{' ] && "$SOVEREIGN" canonical-json <"$TMPDIR/run.out" >/dev/null
}
check 'JSON on standard output' to_stdout

# edited NAME SED: the baseline with an edit, in $TMPDIR/NAME.json.
edited() { sed "$2" "$before" >"$TMPDIR/$1.json"; }
# All samples of projection.single times a factor; one result has its samples on its last line.
scaled() { # scaled FACTOR FILE
    awk -v factor="$1" '
        /"name":"/ { on = /"name":"projection\.single"/ }
        on && /"samples":\[/ {
            begin = index($0, "["); end = index($0, "]")
            n = split(substr($0, begin + 1, end - begin - 1), values, ",")
            text = ""
            for (i = 1; i <= n; i++) text = text (i > 1 ? "," : "") values[i] * factor
            $0 = substr($0, 1, begin) text substr($0, end)
        }
        { print }' "$before" >"$2"
}
regression() {
    scaled 0.01 "$TMPDIR/faster.json"
    run bench --projection --quiet --baseline "$TMPDIR/faster.json"
    exits 0 && out_has ': worse' || return 1
    run bench --projection --quiet --baseline "$TMPDIR/faster.json" --fail-on-regression 10
    exits 1 && out_has 'projection.single' && err_has 'worse than' && err_has 'projection.single' || return 1
    scaled 100 "$TMPDIR/slower.json"
    run bench --projection --quiet --baseline "$TMPDIR/slower.json" --fail-on-regression 100000
    exits 0 && out_has ': better'
}
check 'a regression is an exit status on request only' regression
foreign() { edited "$1" "s/\"foreign_cpu_percent\":[0-9.e+-]*/\"foreign_cpu_percent\":$2/"; } # foreign NAME PERCENT
itself() {
    foreign alone 0
    run bench --cache --quiet --baseline "$TMPDIR/alone.json" --fail-on-regression 100000
    exits 0 && out_has 'before' && equal "$err" ''
}
check 'against a run of the same machine nothing is warned of' itself
disturbed() {
    foreign disturbed 50
    run bench --projection --quiet --baseline "$TMPDIR/disturbed.json"
    exits 0 && err_has 'beside others, who had 50% of the CPUs'
}
check 'a baseline that was disturbed is told' disturbed
another_machine() {
    edited machine 's/"cpu":"[^"]*"/"cpu":"Another CPU"/; s/"digest":"[0-9a-f]*"/"digest":"00"/'
    run bench --cache --quiet --baseline "$TMPDIR/machine.json"
    exits 0 && err_has 'another CPU: Another CPU' && err_has 'another model' && out_has 'another CPU'
}
check 'a baseline of another machine and model is told' another_machine
other_workload() {
    edited other 's/"what":"one projection/"what":"two projections/'
    run bench --projection --quiet --baseline "$TMPDIR/other.json"
    exits 0 && out_has 'measured something else'
}
check 'another workload is not compared' other_workload

check 'federations in a folder that is not there' fails 1 "$TMPDIR/none" bench --consensus --data-dir "$TMPDIR/none"
check 'and that is said before anything runs' fails 1 "--data-dir $TMPDIR/none" bench --all --data-dir "$TMPDIR/none"
check 'an output that is a folder' fails 1 "$TMPDIR: cannot be written (it is a folder)" bench --output "$TMPDIR"
check 'a baseline that is not there' fails 1 "$TMPDIR/none.json" bench --cache --baseline "$TMPDIR/none.json"
echo '{"cut":' >"$TMPDIR/broken.json"
check 'a broken baseline' fails 1 "$TMPDIR/broken.json" bench --cache --baseline "$TMPDIR/broken.json"
echo '{"benchmarks": []}' >"$TMPDIR/foreign.json"
check 'a foreign baseline' fails 1 'not a report of sovereign bench' bench --cache --baseline "$TMPDIR/foreign.json"
edited newer 's/"version":1/"version":2/'
check 'a baseline of a newer version' fails 1 'version 2' bench --cache --baseline "$TMPDIR/newer.json"
check 'a regression without a baseline' fails 2 'only with --baseline' bench --fail-on-regression 10
check 'iterations out of range' fails 2 '--iterations' bench --iterations 0
check 'a percentage that is none' fails 2 '--fail-on-regression' bench --baseline x --fail-on-regression -1
check 'an output that cannot be written is said before anything runs' fails 1 "$TMPDIR/no/out.json" \
    bench --output "$TMPDIR/no/out.json"
check 'a plot that cannot be written' fails 1 "$TMPDIR/no/out.svg" bench --plot "$TMPDIR/no/out.svg"
check 'one file for output and plot' fails 2 'the same file' bench --cache --output "$TMPDIR/a" --plot "$TMPDIR/a"
check 'a model that is not there' fails 1 "$TMPDIR/none.gguf" bench --inference --model "$TMPDIR/none.gguf"
interrupted() {
    local folder=$TMPDIR/federations pid
    mkdir "$folder"
    "$SOVEREIGN" bench --consensus --iterations 1000 --quiet --data-dir "$folder" >"$TMPDIR/interrupted.out" 2>&1 &
    pid=$!
    for _ in $(seq 600); do
        [ -z "$(find "$folder" -name 'sovereign-bench-*')" ] || break
        kill -0 "$pid" 2>/dev/null || break
        sleep 0.1
    done
    kill -TERM "$pid"
    wait "$pid"
    equal $? 143 && equal "$(find "$folder" -mindepth 1)" '' && equal "$(cat "$TMPDIR/interrupted.out")" ''
}
check 'who interrupts it finds no federations left behind' interrupted
full() {
    [ -w /dev/full ] || return 0
    bench --projection --quiet 2>"$TMPDIR/full.err" >/dev/full
    equal $? 1 && has "$(cat "$TMPDIR/full.err")" 'could not be written'
}
check 'a full disk' full
file_limit() {
    (
        trap '' XFSZ
        ulimit -f 1
        bench --projection --quiet --output "$TMPDIR/limited.json" >/dev/null 2>"$TMPDIR/limited.err"
        equal $? 1
    ) && has "$(cat "$TMPDIR/limited.err")" "$TMPDIR/limited.json" && [ ! -e "$TMPDIR/limited.json" ]
}
check 'an output that there is no room for leaves no half of itself' file_limit
finish
