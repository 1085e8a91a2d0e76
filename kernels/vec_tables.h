/* SPDX-License-Identifier: Apache-2.0 */
/* The tables that the ISA folders define and vec.c chooses from. Private to kernels/. */
#ifndef SOV_KERNELS_VEC_TABLES_H
#define SOV_KERNELS_VEC_TABLES_H

#include "kernels/vec.h"

extern const struct vec_kernels vec_kernels_scalar;
extern const struct vec_kernels vec_kernels_avx2;
extern const struct vec_kernels vec_kernels_avx512;
extern const struct vec_kernels vec_kernels_neon;

#endif
