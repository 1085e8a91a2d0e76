#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The NEON kernels of norms, rotary embedding, attention and projection against the written arithmetic, without SDOT and
# with it.
cd "$(dirname "$0")/../.." || exit 1
. tests/aarch64/lib_aarch64.sh

for cpu in cortex-a72 neoverse-n1; do
    on "$cpu" test_vec_exact
    on "$cpu" test_projection_exact
done
finish
