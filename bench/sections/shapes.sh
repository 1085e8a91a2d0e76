# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
# shapes: models smaller and larger than TinyLlama's, and an odd one (the forms are in bench/lib.sh), each engine on its
# best instruction set: speed, time from the start of the program to the first token, and the largest memory it had.
# The report sets each shape against TinyLlama's by how much of its limit it reaches (bytes where memory sets the limit,
# multiply-adds elsewhere): a shape that falls behind there is one that something in the engine does not suit.
#
#   SHAPES="tinyllama qwen2.5-0.5b odd llama-3.2-3b llama-3.1-8b"   PREFILL=256   BATCH=1,8,32
#   KEEP=yes   keep the models; otherwise those of a type are removed when it is done
#
# llama-3.1-8b is for q4_k_m only, and left out, as any other, where memory or disk are too small.

shapes=${SHAPES:-tinyllama qwen2.5-0.5b odd llama-3.2-3b llama-3.1-8b}
shapes=${shapes//,/ }
isa=$(best_isa)

# shape_fits SHAPE TYPE: whether there is room for the file, and for the file and packed weights in memory.
shape_fits() {
    local millions=PARAMETERS_${1//[-.]/_} bits=5 megabytes free
    [ "$2" != q8_0 ] || bits=9
    megabytes=$((${!millions} * bits / 8))
    free=$(df --output=avail -m "$models" | tail -n 1)
    if [ ! -e "$models/$1-$2.gguf" ] && [ "$free" -lt $((megabytes + megabytes / 10)) ]; then
        say "$1 $2 left out: it takes $megabytes MB of disk, and $free MB are free"
        return 1
    fi
    free=$(awk '/^MemAvailable/ { print int($2 / 1024) }' /proc/meminfo)
    if [ "$free" -lt $((2 * megabytes + megabytes / 5)) ]; then
        say "$1 $2 left out: it takes twice $megabytes MB of memory, and $free MB are available"
        return 1
    fi
}

for shape in $shapes; do
    form=FORM_${shape//[-.]/_}
    if [ -z "${!form:-}" ]; then
        say "there is no shape '$shape'"
        exit 2
    fi
done

for type in $types; do
    at_hand=''
    for shape in $shapes; do
        [ "$shape" != llama-3.1-8b ] || [ "$type" = q4_k_m ] || continue
        shape_fits "$shape" "$type" || continue
        model_file "$type" "$shape" >/dev/null
        at_hand="$at_hand $shape"
    done
    for round in $(seq "$rounds"); do
        for shape in $at_hand; do
            for engine in engine llama; do
                name=llama
                [ "$engine" = llama ] || name=sovereign
                measure "$shape $type, round $round of $rounds, $name" "$out/bench_$engine" \
                    --model "$(model_file "$type" "$shape")" --threads "$threads" --prefill "${PREFILL:-256}" \
                    --decode "$decode" --batch "${BATCH:-1,8,32}"
                keep_speeds shapes "$shape/$type" "$isa" "$name"
                awk -v w="$shape/$type" -v i="$isa" -v e="$name" '
                    $1 == "first" { print "shapes first_token", w, i, 16, e, $2, "s" }
                    $1 == "memory" { print "shapes peak_memory", w, i, 0, e, $2, "B" }' "$measured" >>"$records"
            done
        done
    done
    for shape in $at_hand; do
        [ "$shape" = tinyllama ] || [ "${KEEP:-no}" = yes ] || rm -f "$models/$shape-$type.gguf"
    done
done
