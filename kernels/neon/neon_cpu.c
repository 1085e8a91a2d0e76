/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which kernels this CPU runs, as the kernel tells programs what the CPU has. The auxiliary vector is in memory: asking
 * costs a few instructions.
 */
#include <asm/hwcap.h>
#include <sys/auxv.h>

#include "kernels/neon/neon_tables.h"
#include "kernels/neon/vec_neon.h"

static bool neon_has_dot(void)
{
    return (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) != 0;
}

const struct matmul_isa_table *matmul_neon_table(void)
{
    bool i8mm = (getauxval(AT_HWCAP2) & HWCAP2_I8MM) != 0;
    if (!neon_has_dot()) return &matmul_table_neon_plain;
    return i8mm ? &matmul_table_neon_i8mm : &matmul_table_neon_dot;
}

void neon_attention(const struct vec_attention *a)
{
    if (neon_has_dot())
        neon_attention_dot(a);
    else
        neon_attention_plain(a);
}
