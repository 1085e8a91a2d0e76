/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The tables of the format: tensor types and value types. Types that Sovereign does not compute
 * with are listed too, with their sizes, so that a file using them can be checked and described and
 * the error can name the type.
 */
#include <ctype.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "gguf/gguf_internal.h"

static const struct gguf_type_info type_infos[GGUF_TYPE_LIMIT] = {
    [GGUF_TYPE_F32] = {"f32", 1, 4, true},
    [GGUF_TYPE_F16] = {"f16", 1, 2, true},
    [GGUF_TYPE_Q4_0] = {"q4_0", 32, 18, true},
    [GGUF_TYPE_Q4_1] = {"q4_1", 32, 20, true},
    [GGUF_TYPE_Q5_0] = {"q5_0", 32, 22, true},
    [GGUF_TYPE_Q5_1] = {"q5_1", 32, 24, true},
    [GGUF_TYPE_Q8_0] = {"q8_0", 32, 34, true},
    [GGUF_TYPE_Q8_1] = {"q8_1", 32, 36, false},
    [GGUF_TYPE_Q2_K] = {"q2_k", 256, 84, true},
    [GGUF_TYPE_Q3_K] = {"q3_k", 256, 110, true},
    [GGUF_TYPE_Q4_K] = {"q4_k", 256, 144, true},
    [GGUF_TYPE_Q5_K] = {"q5_k", 256, 176, true},
    [GGUF_TYPE_Q6_K] = {"q6_k", 256, 210, true},
    [GGUF_TYPE_Q8_K] = {"q8_k", 256, 292, false},
    [16] = {"iq2_xxs", 256, 66, false},
    [17] = {"iq2_xs", 256, 74, false},
    [18] = {"iq3_xxs", 256, 98, false},
    [19] = {"iq1_s", 256, 50, false},
    [20] = {"iq4_nl", 32, 18, false},
    [21] = {"iq3_s", 256, 110, false},
    [22] = {"iq2_s", 256, 82, false},
    [23] = {"iq4_xs", 256, 136, false},
    [24] = {"i8", 1, 1, false},
    [25] = {"i16", 1, 2, false},
    [26] = {"i32", 1, 4, false},
    [27] = {"i64", 1, 8, false},
    [28] = {"f64", 1, 8, false},
    [29] = {"iq1_m", 256, 56, false},
    [GGUF_TYPE_BF16] = {"bf16", 1, 2, true},
    [34] = {"tq1_0", 256, 54, false},
    [35] = {"tq2_0", 256, 66, false},
    [39] = {"mxfp4", 32, 17, false},
    [40] = {"nvfp4", 64, 36, false},
    [41] = {"q1_0", 128, 18, false},
    [42] = {"q2_0", 64, 18, false},
};

const struct gguf_type_info *gguf_type_info(uint32_t type)
{
    if (type >= GGUF_TYPE_LIMIT || type_infos[type].name == NULL) return NULL;
    return &type_infos[type];
}

bool gguf_type_by_name(const char *name, enum gguf_type *out)
{
    for (uint32_t type = 0; type < GGUF_TYPE_LIMIT; type++) {
        if (type_infos[type].name == NULL || strcasecmp(type_infos[type].name, name) != 0) continue;
        *out = (enum gguf_type)type;
        return true;
    }
    return false;
}

static const struct {
    const char *name;
    size_t bytes;
} value_types[GGUF_VALUE_TYPES] = {
    [GGUF_U8] = {"u8", 1},       [GGUF_I8] = {"i8", 1},     [GGUF_U16] = {"u16", 2},
    [GGUF_I16] = {"i16", 2},     [GGUF_U32] = {"u32", 4},   [GGUF_I32] = {"i32", 4},
    [GGUF_F32] = {"f32", 4},     [GGUF_BOOL] = {"bool", 1}, [GGUF_STRING] = {"string", 0},
    [GGUF_ARRAY] = {"array", 0}, [GGUF_U64] = {"u64", 8},   [GGUF_I64] = {"i64", 8},
    [GGUF_F64] = {"f64", 8},
};

size_t gguf_value_bytes(enum gguf_value_type type)
{
    return value_types[type].bytes;
}

const char *gguf_value_type_name(enum gguf_value_type type)
{
    return (unsigned)type < GGUF_VALUE_TYPES ? value_types[type].name : "unknown";
}

bool gguf_tensor_bytes(const struct gguf_type_info *info, uint32_t n_dims, const uint64_t *dims,
                       uint64_t *out, char *why, size_t why_size)
{
    if (n_dims < 1 || n_dims > GGUF_DIMS_MAX) {
        snprintf(why, why_size, "has %u dimensions, expected 1 to %d", n_dims, GGUF_DIMS_MAX);
        return false;
    }
    uint64_t elements = 1;
    for (uint32_t i = 0; i < n_dims; i++) {
        if (dims[i] == 0) {
            snprintf(why, why_size, "has dimension %u equal to 0", i);
            return false;
        }
        if (__builtin_mul_overflow(elements, dims[i], &elements) || elements > INT64_MAX) {
            snprintf(why, why_size, "has more elements than fit 63 bits");
            return false;
        }
    }
    if (dims[0] % info->block_elems != 0) {
        snprintf(why, why_size, "of type %s has rows of %llu elements, expected a multiple of %u",
                 info->name, (unsigned long long)dims[0], info->block_elems);
        return false;
    }
    uint64_t bytes;
    if (__builtin_mul_overflow(elements / info->block_elems, (uint64_t)info->block_bytes, &bytes) ||
        bytes > INT64_MAX) {
        snprintf(why, why_size, "has more bytes than fit 63 bits");
        return false;
    }
    *out = bytes;
    return true;
}

const char *gguf_printable(const char *text, uint64_t length, char out[GGUF_PRINTABLE_MAX])
{
    size_t used = 0;
    for (uint64_t i = 0; i < length; i++) {
        unsigned char c = (unsigned char)text[i];
        bool plain = c < 0x80 && isprint(c);
        if (used + (plain ? 1 : 4) + sizeof "..." > GGUF_PRINTABLE_MAX) {
            memcpy(out + used, "...", sizeof "...");
            return out;
        }
        used +=
            (size_t)snprintf(out + used, GGUF_PRINTABLE_MAX - used, plain ? "%c" : "\\x%02x", c);
    }
    out[used] = '\0';
    return out;
}
