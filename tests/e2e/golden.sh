#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# The same bits on every machine and in every later version: digests of all logits of a greedy answer, for models that
# mkmodel makes the same everywhere, against tests/data/golden-arithmetic-1.txt. A change here is a change of the
# arithmetic: bump SOV_ARITHMETIC_VERSION and write a new file with `tests/e2e/golden.sh --write`.
cd "$(dirname "$0")/../.." || exit 1
. tests/e2e/lib_e2e.sh

golden=tests/data/golden-arithmetic-1.txt

# digest ISA OPTIONS...: of 24 tokens after a prompt, with the model that mkmodel makes from the options; "kv=TYPE"
# first: with keys and values of that type.
digest() {
    local isa=$1 file=$TMPDIR/golden.gguf kv=f16
    shift
    case $1 in kv=*) kv=${1#kv=} && shift ;; esac
    "$BUILD/mkmodel" --vocab-bytes 512 --seed 7 "$@" "$file" >/dev/null 2>&1 || return 1
    run "$SOVEREIGN" generate --model "$file" --isa "$isa" --kv-type "$kv" --ignore-eos -n 24 --json \
        --prompt 'The quick brown fox jumps over the lazy dog, then reads 1,234 pages of pi: 3.14159.'
    exits 0 && json_field logits_digest
}

small='--dim 256 --layers 2 --heads 4 --kv-heads 2 --ffn 512'
models() {
    local type
    for type in f32 f16 bf16 q8_0 q4_0 q4_1 q5_0 q5_1 q2_k q3_k q4_k q5_k q6_k q4_k_m; do
        echo "--arch llama $small --type $type"
    done
    echo "--arch qwen2 $small --type q8_0"
    echo "--arch qwen3 $small --type q4_k"
    echo "--arch llama $small --type q8_0 --rope-scaling yarn --rope-factor 4 --rope-orig-ctx 32"
    echo "--arch llama $small --type q8_0 --rope-freqs"
    echo "--arch llama --dim 160 --layers 2 --heads 2 --kv-heads 1 --head-dim 80 --ffn 352 --type q5_0 --tied"
    echo "kv=q8_0 --arch llama $small --type q8_0"
    echo "kv=q8_0 --arch llama $small --type f32"
    echo "kv=q8_0 --arch qwen3 --dim 160 --layers 2 --heads 4 --kv-heads 2 --head-dim 80 --ffn 352 --type q4_0"
}

if [ "${1:-}" = --write ]; then
    models | while read -r options; do
        # shellcheck disable=SC2086
        echo "$(digest scalar $options) $options"
    done >"$golden"
    exit 0
fi

matches() {
    # shellcheck disable=SC2086
    equal "$(digest "$2" $3)" "$1"
}
while read -r wanted options; do
    for isa in scalar auto; do check "$isa $options" matches "$wanted" "$isa" "$options"; done
done <"$golden"
check 'every model of the list is in the file' equal "$(models)" "$(cut -d ' ' -f 2- "$golden")"
finish
