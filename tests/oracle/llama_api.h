/* SPDX-License-Identifier: Apache-2.0 */
/*
 * llama.h, whose gguf.h declares two names that our gguf.h has too: its ones get other names here,
 * and are not used.
 */
#ifndef SOV_TESTS_ORACLE_LLAMA_API_H
#define SOV_TESTS_ORACLE_LLAMA_API_H

#define gguf_type ggml_gguf_type
#pragma push_macro("gguf_find_tensor")
#undef gguf_find_tensor
#define gguf_find_tensor ggml_gguf_find_tensor
#include "llama.h"
#undef gguf_type
#pragma pop_macro("gguf_find_tensor")

#endif
