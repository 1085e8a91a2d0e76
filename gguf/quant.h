/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The block formats of GGUF: what the bytes mean (dequantize, exact) and one deterministic way to
 * make them (quantize, for the model maker; simple round-to-nearest without importance search).
 * Source: ggml's block layouts, described in docs/arithmetic.md, "Weight formats".
 *
 * n is a multiple of the type's block_elems. Threads: pure functions.
 */
#ifndef SOV_GGUF_QUANT_H
#define SOV_GGUF_QUANT_H

#include <stddef.h>
#include <stdint.h>

#include "gguf/gguf.h"

/* n elements at data (possibly unaligned) to float32. Each result is the float32 the format
 * defines. */
void quant_dequantize(enum gguf_type type, const void *data, float *out, size_t n);
/* n finite float32 to the type's blocks at out. */
void quant_quantize(enum gguf_type type, const float *in, void *out, size_t n);

/* IEEE half and bfloat16 conversions in integer arithmetic (the meaning of F16C's and AVX-512's
 * instructions): to half rounds to nearest even, keeps denormals, overflows to infinity. */
float quant_f16_to_f32(uint16_t half);
uint16_t quant_f32_to_f16(float value);
float quant_bf16_to_f32(uint16_t bits);
uint16_t quant_f32_to_bf16(float value);

#endif
