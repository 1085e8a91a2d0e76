# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
# isa: prefill and batch 8 on narrower instruction sets, against llama.cpp built for each (scripts/oracle avx2, avx512).

for isa in avx512 avx2; do
    if ! has_isa "$isa"; then
        say "this CPU has no $isa: left out"
        continue
    fi
    if [ ! -x "$out/bench_llama-$isa" ]; then
        say "no libllama for $isa (scripts/oracle $isa): left out"
        continue
    fi
    for type in $types; do
        file=$(model_file "$type")
        for round in $(seq "$rounds"); do
            measure "$isa, $type, round $round of $rounds, sovereign" "$out/bench_engine" --model "$file" \
                --threads "$threads" --isa "$isa" --prefill 256 --decode "$decode" --batch 8
            keep_speeds isa "$type" "$isa" sovereign
            measure "$isa, $type, round $round of $rounds, llama" "$out/bench_llama-$isa" --model "$file" \
                --threads "$threads" --prefill 256 --decode "$decode" --batch 8
            keep_speeds isa "$type" "$isa" llama
        done
    done
done
