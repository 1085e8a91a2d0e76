/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/projection.h"

#include "kernels/projection_step.h"

const struct projection_kernels *projection_kernels_for(enum kern_isa isa)
{
    switch (isa) {
#if defined(__x86_64__)
    case KERN_ISA_AVX512:
    case KERN_ISA_AMX: return &projection_kernels_avx512;
    case KERN_ISA_AVX2: return &projection_kernels_avx2;
#elif defined(__aarch64__)
    case KERN_ISA_NEON: return &projection_kernels_neon;
#endif
    default: return &projection_kernels_scalar;
    }
}
