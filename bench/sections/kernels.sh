# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
# kernels: the matrix products alone, per ISA, type and number of rows, with weights from memory and in cache, and the
# sampler. Sovereign only: how llama.cpp cuts its work is its own affair, and the engine section compares the whole.

for isa in $(cpu_isas); do
    [ "$isa" != scalar ] || continue # it is there to define the meaning, not for speed
    for type in $types; do
        file=$(model_file "$type")
        measure "kernels, $isa, $type" "$out/bench_kernels" --model "$file" --threads "$threads" --isa "$isa" \
            --rows 1,2,4,8,16,32,64,256
        awk -v w="$type" -v i="$isa" '{
            print "kernels", $1 "_read", w, i, $2, "sovereign", $3, "GB/s"
            print "kernels", $1 "_compute", w, i, $2, "sovereign", $4, "TOPS" }' "$measured" >>"$records"
    done
    measure "sampler, $isa" "$out/bench_sampler" --isa "$isa"
    awk '{ print "kernels", "sample_" $1, "-", $2, $3, "sovereign", $4, "us" }' "$measured" >>"$records"
done
