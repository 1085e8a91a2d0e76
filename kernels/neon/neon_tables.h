/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The tables of this folder. "neon" is one ISA to the user; which of its matrix kernels run depends on whether the CPU
 * has the instructions for dot products of bytes (SDOT: optional in Armv8.2, there since Cortex-A75 and Neoverse N1) and
 * for products of matrices of bytes (SMMLA, the feature i8mm). Private to kernels/neon/.
 */
#ifndef SOV_KERNELS_NEON_TABLES_H
#define SOV_KERNELS_NEON_TABLES_H

#include "kernels/matmul_layout.h"

extern const struct matmul_isa_table matmul_table_neon_plain; /* every aarch64 CPU */
extern const struct matmul_isa_table matmul_table_neon_dot;
extern const struct matmul_isa_table matmul_table_neon_i8mm;

#endif
