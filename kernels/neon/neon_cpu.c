/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which matrix kernels this CPU runs, as the kernel tells programs what the CPU has. The auxiliary vector is in memory:
 * asking costs a few instructions.
 */
#include <asm/hwcap.h>
#include <sys/auxv.h>

#include "kernels/neon/neon_tables.h"

const struct matmul_isa_table *matmul_neon_table(void)
{
    bool dot = (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) != 0;
    bool i8mm = (getauxval(AT_HWCAP2) & HWCAP2_I8MM) != 0;
    if (dot && i8mm) return &matmul_table_neon_i8mm;
    return dot ? &matmul_table_neon_dot : &matmul_table_neon_plain;
}
