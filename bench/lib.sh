# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
#
# What the sections of bench/run share: models, measuring beside an idle machine, records, and servers. Sourced by
# bench/run, whose variables it uses: BUILD, deps, sections, threads, out, models, records.

server=''
trap '[ -z "$server" ] || kill "$server" 2>/dev/null || true' EXIT

# wants SECTION: whether it was asked for.
wants() {
    case " $sections " in *" $1 "*) return 0 ;; esac
    return 1
}

say() {
    echo "bench: $*" >&2
}

# The shapes of well-known models, and an odd one, as mkmodel takes them. Vocabularies are those of the oracle's models.
# odd: heads of 80 dimensions, 13 to a KV head; no width is a multiple of 256; a vocabulary of 50,257, which fills no panel.
# In names of variables "_" stands for "-" and "."; PARAMETERS are in millions.
FORM_tinyllama="--arch llama --dim 2048 --layers 22 --heads 32 --kv-heads 4 --ffn 5632"
VOCABULARY_tinyllama=llama-spm PARAMETERS_tinyllama=1100
FORM_qwen2_5_0_5b="--arch qwen2 --dim 896 --layers 24 --heads 14 --kv-heads 2 --ffn 4864 --tied"
VOCABULARY_qwen2_5_0_5b=qwen2 PARAMETERS_qwen2_5_0_5b=494
FORM_odd="--arch llama --dim 2080 --layers 20 --heads 26 --kv-heads 2 --ffn 5536"
VOCABULARY_odd=gpt-2 PARAMETERS_odd=1090
FORM_llama_3_2_3b="--arch llama --dim 3072 --layers 28 --heads 24 --kv-heads 8 --ffn 8192 --tied --rope-freqs --rope-base 500000"
VOCABULARY_llama_3_2_3b=llama-bpe PARAMETERS_llama_3_2_3b=3213
FORM_llama_3_1_8b="--arch llama --dim 4096 --layers 32 --heads 32 --kv-heads 8 --ffn 14336 --rope-freqs --rope-base 500000"
VOCABULARY_llama_3_1_8b=llama-bpe PARAMETERS_llama_3_1_8b=8030

# model_file TYPE [SHAPE]: makes the model once, of TinyLlama's shape unless another is said, and prints its name.
model_file() {
    local shape=${2:-tinyllama} form vocabulary file
    form=FORM_${shape//[-.]/_}
    vocabulary=VOCABULARY_${shape//[-.]/_}
    file=$models/$shape-$1.gguf
    if [ ! -e "$file" ]; then
        say "making $file"
        # shellcheck disable=SC2086 # a list of options
        "$BUILD/mkmodel" ${!form} --vocab-from "$deps/llama/models/ggml-vocab-${!vocabulary}.gguf" --type "$1" --seed 1 \
            "$file.part" >&2
        mv "$file.part" "$file"
    fi
    echo "$file"
}

# The instruction sets that this CPU runs, the best one, and whether one is among them.
cpu_isas() {
    "$BUILD/sovereign" --version | sed -n 's/.*this CPU runs: \(.*\))/\1/p'
}
best_isa() {
    "$BUILD/sovereign" --version | sed -n 's/^instruction set \([a-z0-9]*\).*/\1/p'
}
has_isa() {
    case " $(cpu_isas) " in *" $1 "*) return 0 ;; esac
    return 1
}

# machine_write RUN: lines "KEY VALUE" about a run of bench/run, the machine and the programs.
machine_write() {
    echo "run $1"
    echo "sections $sections"
    echo "types $types"
    echo "date $(date -u +%Y-%m-%dT%H:%M:%SZ)"
    echo "cpu $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)"
    echo "cpus $(nproc)"
    echo "threads $threads"
    echo "memory_bytes $(awk '/^MemTotal/ { print $2 * 1024 }' /proc/meminfo)"
    echo "kernel $(uname -sr)"
    echo "compiler $(${CC:-cc} --version | head -n 1)"
    echo "isas $(cpu_isas)"
    echo "sovereign $("$BUILD/sovereign" --version | head -n 1)"
    echo "commit $(git describe --always --dirty 2>/dev/null || echo unknown)"
    echo "llama $(cut -d ' ' -f 1,2 "$deps/llama/stamp" 2>/dev/null || pkg-config --modversion llama || echo unknown)"
    ! wants http || echo "http_peers $(PATH=$PATH:/usr/sbin nginx -v 2>&1 | sed -n 's/.*: //p') $(memcached --version 2>/dev/null)"
    echo "load_average $(cut -d ' ' -f 1 /proc/loadavg)"
    echo "rounds $rounds"
}

# The CPU time, in hundredths of a second, that all programs and that our finished children have used.
cpu_busy() {
    awk '/^cpu / { print $2 + $3 + $4 + $7 + $8 + $9 }' /proc/stat
}
cpu_ours() {
    awk '{ sub(/^.*\) /, ""); print $12 + $13 + $14 + $15 }' /proc/$$/stat
}

# measure WHAT COMMAND...: runs the command, whose output is then in the file $measured. When other programs took more
# than FOREIGN_PERCENT of the CPUs meanwhile, it is run again, TRIES times in all. The share of the run that counts goes
# into the records, as section "machine".
measured=$out/measured.txt
FOREIGN_PERCENT=5
TRIES=${TRIES:-3}
measure() {
    local what=$1 try busy ours start foreign
    shift
    for try in $(seq "$TRIES"); do
        say "$what"
        start=$EPOCHREALTIME
        busy=$(cpu_busy)
        ours=$(cpu_ours)
        "$@" >"$measured" || { say "failed: $*"; say "what was measured before is in $records; ADD=yes adds the rest to it"; exit 2; }
        foreign=$(awk -v busy="$(($(cpu_busy) - busy))" -v ours="$(($(cpu_ours) - ours))" -v start="$start" \
            -v end="$EPOCHREALTIME" -v cpus="$(nproc)" \
            'BEGIN { f = (busy - ours) / ((end - start) * cpus); printf "%.2f", (f > 0 ? f : 0) }')
        awk -v f="$foreign" -v max="$FOREIGN_PERCENT" 'BEGIN { exit f > max }' && break
        [ "$try" = "$TRIES" ] || say "other programs took $foreign% of the CPUs: once more"
    done
    echo "machine foreign_cpu - - 0 machine $foreign percent" >>"$records"
}

# keep SECTION WEIGHTS ISA SIZE ENGINE: the lines "METRIC VALUE UNIT" of $measured become records.
keep() {
    awk -v s="$1" -v w="$2" -v i="$3" -v n="$4" -v e="$5" 'NF == 3 { print s, $1, w, i, n, e, $2, $3 }' "$measured" \
        >>"$records"
}

# keep_speeds SECTION WEIGHTS ISA ENGINE: the lines of bench_engine and bench_llama (bench_options.h).
keep_speeds() {
    awk -v s="$1" -v w="$2" -v i="$3" -v e="$4" '
        $1 == "prefill" || $1 == "decode" { print s, $1, w, i, $2, e, $3, "tokens/s" }
        $1 == "load" { print s, "load", w, i, 0, e, $2, "s" }
        $1 == "cost" {
            print s, "weight_bytes", w, "-", 0, "model", $2, "B"
            print s, "macs", w, "-", 0, "model", $3, "n"
            print s, "kv_bytes", w, "-", 0, "model", $4, "B"
            print s, "attention_macs", w, "-", 0, "model", $5, "n"
            print s, "output_macs", w, "-", 0, "model", $6, "n"
        }' "$measured" >>"$records"
}

# The limits of the machine, again before each section that is held against them: on a virtual machine they vary with
# what its neighbours do, and the median of the run counts.
roofline_measure() {
    local metric isa count value unit
    measure "roofline" "$out/bench_roofline" "$threads"
    while read -r metric isa count value unit; do
        echo "roofline $metric - $isa $count machine $value $unit" >>"$records"
    done <"$measured"
}

# The peer's server, or nothing.
peer_server=$deps/llama/bin/llama-server
[ -x "$peer_server" ] || peer_server=$(command -v llama-server || true)
if [ -z "$peer_server" ]; then
    server_engines="sovereign"
    say "no llama-server here: the servers' figures are Sovereign's alone"
else
    server_engines="sovereign llama"
fi

# server_ready NAME COMMAND...: waits until the command works, while the server lives. Bounded: a model of the sizes here is
# there within seconds.
server_ready() {
    local name=$1
    shift
    for _ in $(seq 600); do
        if "$@" >/dev/null 2>&1; then return; fi
        kill -0 "$server" 2>/dev/null || break
        sleep 0.1
    done
    tail -n 20 "$out/server-$name.log" >&2
    say "the $name server did not start"
    exit 2
}

# server_start ENGINE MODEL SLOTS CONTEXT: context is in tokens per slot. Sets server and port; waits until it is ready.
# llama-server keeps continuous batching and prompt reuse between requests of a slot, which it has by default, and
# flash attention where it finds it useful; its copies of idle slots in memory are off (-cram 0), since they cost memory
# and time and none of our prompts comes again. For the same reason ours has no answer cache.
server_start() {
    port=$((20000 + (RANDOM * 7 + $$) % 12000)) # below those that the system hands out
    if [ "$1" = sovereign ]; then
        "$BUILD/sovereign" serve --model "$2" --port "$port" --threads "$threads" --parallel "$3" --ctx "$4" \
            --cache off >"$out/server-$1.log" 2>&1 &
    else
        "$peer_server" -m "$2" --host 127.0.0.1 --port "$port" -t "$threads" -np "$3" -c $(($3 * $4)) -cram 0 \
            --no-webui >"$out/server-$1.log" 2>&1 &
    fi
    server=$!
    server_ready "$1" curl -fs "http://127.0.0.1:$port/health"
}

server_stop() {
    kill "$server"
    wait "$server" || true
    server=''
}

# server_load ARGUMENTS...: bench_clients against the server at hand, after one short request that warms it up. Answers
# that failed end the bench: the rest would mean nothing.
server_load() {
    "$out/bench_clients" --port "$port" --tokens 2 --words 2 --salt 999999 >/dev/null
    "$out/bench_clients" --port "$port" "$@" >"$out/clients.txt"
    cat "$out/clients.txt"
    if ! grep -q '^errors 0 ' "$out/clients.txt"; then
        say "requests failed: $(grep '^errors' "$out/clients.txt")"
        exit 2
    fi
}

# Prompts of every measurement differ from those of all others.
salt=$((RANDOM * 10))
next_salt() {
    salt=$(((salt + 1) % 900000))
}
