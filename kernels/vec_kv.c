/* SPDX-License-Identifier: Apache-2.0 */
/* Keys and values into the pages, and what they take there. */
#include "kernels/vec_kv.h"

#include "gguf/quant.h"

static const char *const KV_TYPE_NAMES[KV_TYPES] = {"f16", "q8_0"};
enum { KV_ALIGNMENT = 64 };

const char *vec_kv_type_name(enum kv_type type)
{
    return type < KV_TYPES ? KV_TYPE_NAMES[type] : "unknown";
}

bool vec_kv_type_parse(const char *name, enum kv_type *out)
{
    for (int type = 0; type < KV_TYPES; type++)
        if (strcmp(name, KV_TYPE_NAMES[type]) == 0) {
            *out = (enum kv_type)type;
            return true;
        }
    return false;
}

static size_t kv_bytes(enum kv_type type, int head_dim, size_t quants)
{
    size_t scales = (size_t)vec_kv_blocks(head_dim) * KV_PAGE_POSITIONS * sizeof(uint16_t);
    size_t bytes = type == KV_TYPE_Q8_0 ? quants + scales
                                        : (size_t)head_dim * KV_PAGE_POSITIONS * sizeof(uint16_t);
    return (bytes + KV_ALIGNMENT - 1) / KV_ALIGNMENT * KV_ALIGNMENT;
}

size_t vec_kv_k_bytes(enum kv_type type, int head_dim)
{
    return kv_bytes(type, head_dim, vec_kv_k_scales(head_dim));
}

size_t vec_kv_v_bytes(enum kv_type type, int head_dim)
{
    return kv_bytes(type, head_dim, vec_kv_v_scales(head_dim));
}

static void kv_store_q8_0(const float *k, const float *v, int head_dim, unsigned char *k_page,
                          unsigned char *v_page, int slot)
{
    uint16_t *k_scales = (uint16_t *)(k_page + vec_kv_k_scales(head_dim));
    uint16_t *v_scales = (uint16_t *)(v_page + vec_kv_v_scales(head_dim));
    int8_t *values = (int8_t *)v_page + (size_t)slot * (size_t)head_dim;
    for (int block = 0; block < vec_kv_blocks(head_dim); block++) {
        int8_t quants[KV_BLOCK] = {0};
        int first = block * KV_BLOCK;
        float scale = kv_quantize_block(k, head_dim, block, quants);
        k_scales[block * KV_PAGE_POSITIONS + slot] = quant_f32_to_f16(scale);
        for (int i = 0; i < KV_BLOCK && first + i < head_dim; i += 4) {
            unsigned char *four =
                k_page + ((size_t)(first + i) / 4 * KV_PAGE_POSITIONS + (size_t)slot) * 4;
            for (int j = 0; j < 4; j++) four[j] = (unsigned char)(quants[i + j] + KV_BIAS);
        }
        scale = kv_quantize_block(v, head_dim, block, values + first);
        v_scales[block * KV_PAGE_POSITIONS + slot] = quant_f32_to_f16(scale);
    }
}

void vec_kv_store(const struct vec_kernels *vec, enum kv_type type, const float *k, const float *v,
                  int head_dim, unsigned char *k_page, unsigned char *v_page, int slot)
{
    if (type == KV_TYPE_Q8_0) {
        kv_store_q8_0(k, v, head_dim, k_page, v_page, slot);
        return;
    }
    vec->store_f16(k, (uint16_t *)k_page + slot, head_dim, KV_PAGE_POSITIONS);
    vec->store_f16(v, (uint16_t *)v_page + (size_t)slot * (size_t)head_dim, head_dim, 1);
}
