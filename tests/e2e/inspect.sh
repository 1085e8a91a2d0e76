#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# sovereign inspect: what it says of files that run, files that do not, and files that are no GGUF at all.
cd "$(dirname "$0")/../.." || exit 1
. tests/e2e/lib_e2e.sh

model=$TMPDIR/model.gguf
"$BUILD/mkmodel" --arch llama --dim 256 --layers 2 --heads 4 --kv-heads 2 --ffn 512 --type q4_k_m --seed 3 \
    --name 'A model' "$model" || exit 1

describes() {
    run "$SOVEREIGN" inspect "$model"
    exits 0 && equal "$err" '' && out_has 'GGUF version 3' && out_has 'general.architecture' && out_has '"A model"' &&
        out_has 'string[512]' && out_has 'blk.1.ffn_down.weight' && out_has '512 x 256' &&
        out_has 'llama: 2 layers of width 256, 4 heads of 64 (2 for keys and values)' &&
        out_has 'verdict    runs'
}
check 'a model is described' describes

json() {
    run "$SOVEREIGN" inspect --json "$model"
    # 2 layers x 2 heads x 64 x (key and value) x 2 bytes
    exits 0 && equal "$(json_field kv_bytes_per_token)" 1024 && equal "$(json_field supported)" true &&
        out_has '"by_type":{"f32":{"tensors":5,"elements":1280,"bytes":5120}' &&
        out_has '{"name":"output.weight","type":"q6_k","dims":[256,512],"bytes":107520,'
}
check 'and in JSON' json

unsupported() {
    "$BUILD/mkmodel" --arch llama --dim 64 --layers 1 --heads 2 --ffn 64 --type f32 "$TMPDIR/other.gguf" &&
        LC_ALL=C sed -i 's/\(general.architecture.\{12\}\)llama/\1mamba/' "$TMPDIR/other.gguf"
    run "$SOVEREIGN" inspect "$TMPDIR/other.gguf"
    exits 0 && out_has 'not supported: ' && out_has 'mamba' && out_has 'does not run this file' || return
    run "$SOVEREIGN" inspect --json "$TMPDIR/other.gguf"
    exits 0 && equal "$(json_field supported)" false && out_has '"model_error":"'
}
check 'an architecture that does not run is named' unsupported

hostile() { # control characters in a key: the escape sequence must not reach the terminal
    LC_ALL=C sed 's/general.name/gener\x1b[2J\nab/' "$model" >"$TMPDIR/hostile.gguf"
    run "$SOVEREIGN" inspect "$TMPDIR/hostile.gguf"
    exits 0 && out_has 'gener␛[2J?ab' && [[ $out != *$'\x1b'* ]]
}
check 'control characters of a file do not reach the terminal' hostile

truncated() {
    head -c 20000 "$model" >"$TMPDIR/short.gguf"
    fails 1 'but the file has 20000 bytes; is it cut off?' "$SOVEREIGN" inspect "$TMPDIR/short.gguf"
}
check 'a truncated file' truncated
check 'a file that is not there' fails 1 "$TMPDIR/none: cannot open" "$SOVEREIGN" inspect "$TMPDIR/none"
check 'a directory' fails 1 'is a directory' "$SOVEREIGN" inspect "$TMPDIR"
check 'a text file' fails 1 'not a GGUF file: it begins with "# SP"' "$SOVEREIGN" inspect Makefile
full_disk() {
    run sh -c '"$SOVEREIGN" inspect "$1" >/dev/full' - "$model"
    exits 1 && err_has 'standard output could not be written'
}
check 'standard output that is full' full_disk

finish
