#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Whole forward passes with the NEON kernels: the recorded digests of logits come out.
cd "$(dirname "$0")/../.." || exit 1
. tests/aarch64/lib_aarch64.sh

for cpu in cortex-a72 max; do
    on "$cpu" test_model_exact quick
done
finish
