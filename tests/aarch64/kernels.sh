#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The NEON kernels of matrix products against the written arithmetic, without SDOT, with it, and with SMMLA. What does
# not depend on these is run once.
cd "$(dirname "$0")/../.." || exit 1
. tests/aarch64/lib_aarch64.sh

on cortex-a72 aarch64/test_neon_table plain
on neoverse-n1 aarch64/test_neon_table dot
on max aarch64/test_neon_table i8mm
for cpu in cortex-a72 neoverse-n1 max; do
    on "$cpu" test_matmul
done
on cortex-a72 test_quant
on neoverse-n1 test_vec_accuracy
finish
