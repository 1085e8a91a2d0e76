#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The NEON kernels of norms, rotary embedding and attention against the written arithmetic, without SDOT and with it, and
# those of projection, which have no use for it.
cd "$(dirname "$0")/../.." || exit 1
. tests/aarch64/lib_aarch64.sh

for cpu in cortex-a72 neoverse-n1; do
    on "$cpu" test_vec_exact
done
on cortex-a72 test_projection_exact
finish
