#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# mkmodel: the same options make the same bytes everywhere, others make others; mistakes and full disks are told.
cd "$(dirname "$0")/../.." || exit 1
. tests/e2e/lib_e2e.sh

mkmodel=$BUILD/mkmodel
shape=(--dim 256 --layers 2 --heads 4 --kv-heads 2 --ffn 512)
digest() { # digest FLAGS...: of the file they make
    "$mkmodel" "$@" "$TMPDIR/m.gguf" 2>/dev/null && sha256sum <"$TMPDIR/m.gguf" | cut -c 1-16
}

# Pinned, so that a machine, compiler or change that makes other bytes is noticed.
check 'llama q4_k_m makes the pinned bytes' equal \
    "$(digest --arch llama "${shape[@]}" --type q4_k_m --seed 1)" 1922c800ee332d96
check 'qwen3 q8_0 with YaRN makes the pinned bytes' equal \
    "$(digest --arch qwen3 "${shape[@]}" --type q8_0 --seed 2 --rope-scaling yarn)" 6c518fcc7c51285c
check 'llama q2_k_m with frequency factors makes the pinned bytes' equal \
    "$(digest --arch llama "${shape[@]}" --type q2_k_m --seed 3 --rope-freqs --tied)" 6983d32d134b01a0
check 'qwen2 f16 makes the pinned bytes' equal \
    "$(digest --arch qwen2 "${shape[@]}" --type f16 --seed 4)" 62f6323820f406c6

differs() {
    local one two
    one=$(digest --arch llama "${shape[@]}" --type q4_0 --seed 1) || return
    two=$(digest --arch llama "${shape[@]}" --type q4_0 --seed 2) || return
    [ "$one" != "$two" ]
}
check 'another seed makes another model' differs

same_vocabulary() { # taken from the file just made
    digest --arch llama "${shape[@]}" --type q8_0 --vocab-bytes 300 >/dev/null && mv "$TMPDIR/m.gguf" "$TMPDIR/from.gguf"
    digest --arch qwen2 "${shape[@]}" --type q8_0 --vocab-from "$TMPDIR/from.gguf" >/dev/null || return
    local text='Hello, the model answers: 2010 ÄÖÜ 中文'
    equal "$("$SOVEREIGN" tokenize --model "$TMPDIR/m.gguf" <<<"$text")" \
        "$("$SOVEREIGN" tokenize --model "$TMPDIR/from.gguf" <<<"$text")"
}
check 'a vocabulary is taken from another file' same_vocabulary

generates() {
    digest --arch llama "${shape[@]}" --type q3_k_m >/dev/null
    run "$SOVEREIGN" generate --model "$TMPDIR/m.gguf" --prompt 'Hello' -n 4
    exits 0
}
check 'what it makes runs' generates

falls_back() {
    run "$mkmodel" --arch llama --dim 96 --layers 1 --heads 3 --ffn 200 --type q4_k "$TMPDIR/m.gguf"
    exits 0 && err_has 'get q5_0 for q4_k' && err_has 'get f16 for q4_k'
}
check 'rows that are not whole blocks get another type, and it says so' falls_back

check 'help' bash -c "'$mkmodel' --help | grep -q -- --rope-freqs"
check 'no flags' fails 2 'are needed' "$mkmodel" "$TMPDIR/x.gguf"
check 'no output' fails 2 'expected one output file' "$mkmodel" --arch llama "${shape[@]}" --type q8_0
check 'an unknown type' fails 2 '"q9_9"' "$mkmodel" --arch llama "${shape[@]}" --type q9_9 "$TMPDIR/x.gguf"
check 'an unknown architecture' fails 2 '"gpt5"' "$mkmodel" --arch gpt5 "${shape[@]}" --type q8_0 "$TMPDIR/x.gguf"
check 'a negative seed' fails 2 '"-1"' "$mkmodel" --arch llama "${shape[@]}" --type q8_0 --seed -1 "$TMPDIR/x.gguf"
check 'heads that do not divide' fails 2 'multiple of --kv-heads' \
    "$mkmodel" --arch llama "${shape[@]}" --kv-heads 3 --type q8_0 "$TMPDIR/x.gguf"
check 'a vocabulary that is not there' fails 1 "$TMPDIR/none: cannot open" \
    "$mkmodel" --arch llama "${shape[@]}" --type q8_0 --vocab-from "$TMPDIR/none" "$TMPDIR/x.gguf"
check 'a vocabulary in a text file' fails 1 'not a GGUF file' \
    "$mkmodel" --arch llama "${shape[@]}" --type q8_0 --vocab-from Makefile "$TMPDIR/x.gguf"
check 'a folder that is not there' fails 1 'cannot create' \
    "$mkmodel" --arch llama "${shape[@]}" --type q8_0 "$TMPDIR/none/x.gguf"
check 'a device as output' fails 1 'is not a regular file' \
    "$mkmodel" --arch llama "${shape[@]}" --type q8_0 /dev/full

full_disk() { # a limit on the size of files stands for the disk
    run bash -c "ulimit -f 100; trap '' XFSZ; exec '$mkmodel' --arch llama ${shape[*]} --type f32 '$TMPDIR/x.gguf'"
    exits 1 && err_has 'cannot write: File too large'
}
check 'a full disk' full_disk
check 'none of them leaves a file behind' equal "$(cd "$TMPDIR" && echo x.gguf*)" 'x.gguf*'

finish
