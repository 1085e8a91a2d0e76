# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
# engine: prefill and decode at each batch size, each engine on its best instruction set.

isa=$(best_isa)
for type in $types; do
    file=$(model_file "$type")
    for round in $(seq "$rounds"); do
        for engine in engine llama; do
            name=llama
            [ "$engine" = llama ] || name=sovereign
            measure "$type, round $round of $rounds, $name" "$out/bench_$engine" --model "$file" --threads "$threads" \
                --prefill "$prefill" --decode "$decode" --batch "$batch"
            keep_speeds engine "$type" "$isa" "$name"
        done
    done
done
