/* SPDX-License-Identifier: Apache-2.0 */
/* Typed reads of metadata: what the rooms above ask for, with the key named in every error. */
#include <float.h>
#include <math.h>

#include "gguf/gguf_internal.h"

static enum sov_error missing(const char *key, struct sov_errbuf *err)
{
    return sov_fail(err, SOV_ERR_NOT_FOUND, "key %s is missing", key);
}

static enum sov_error wrong_type(const struct gguf_kv *kv, const char *key, const char *wanted,
                                 struct sov_errbuf *err)
{
    return sov_fail(err, SOV_ERR_FORMAT, "key %s has type %s, expected %s", key,
                    gguf_value_type_name(kv->type), wanted);
}

enum sov_error gguf_get_u32(const struct gguf *gguf, const char *key, uint32_t *out,
                            struct sov_errbuf *err)
{
    const struct gguf_kv *kv = gguf_find(gguf, key);
    if (kv == NULL) return missing(key, err);
    switch (kv->type) {
    case GGUF_U8:
    case GGUF_U16:
    case GGUF_U32:
    case GGUF_U64:
        if (kv->value.u > UINT32_MAX) {
            return sov_fail(err, SOV_ERR_FORMAT, "key %s is %llu, expected at most %u", key,
                            (unsigned long long)kv->value.u, UINT32_MAX);
        }
        *out = (uint32_t)kv->value.u;
        return SOV_OK;
    case GGUF_I8:
    case GGUF_I16:
    case GGUF_I32:
    case GGUF_I64:
        if (kv->value.i < 0 || kv->value.i > (int64_t)UINT32_MAX) {
            return sov_fail(err, SOV_ERR_FORMAT, "key %s is %lld, expected 0 to %u", key,
                            (long long)kv->value.i, UINT32_MAX);
        }
        *out = (uint32_t)kv->value.i;
        return SOV_OK;
    default: return wrong_type(kv, key, "an integer", err);
    }
}

enum sov_error gguf_get_f32(const struct gguf *gguf, const char *key, float *out,
                            struct sov_errbuf *err)
{
    const struct gguf_kv *kv = gguf_find(gguf, key);
    if (kv == NULL) return missing(key, err);
    if (kv->type != GGUF_F32 && kv->type != GGUF_F64) return wrong_type(kv, key, "f32", err);
    if (!(fabs(kv->value.f) <= (double)FLT_MAX)) {
        return sov_fail(err, SOV_ERR_FORMAT, "key %s is %g, expected a finite float32", key,
                        kv->value.f);
    }
    *out = (float)kv->value.f;
    return SOV_OK;
}

enum sov_error gguf_get_bool(const struct gguf *gguf, const char *key, bool *out,
                             struct sov_errbuf *err)
{
    const struct gguf_kv *kv = gguf_find(gguf, key);
    if (kv == NULL) return missing(key, err);
    if (kv->type != GGUF_BOOL) return wrong_type(kv, key, "bool", err);
    *out = kv->value.u != 0;
    return SOV_OK;
}

enum sov_error gguf_get_str(const struct gguf *gguf, const char *key, struct gguf_str *out,
                            struct sov_errbuf *err)
{
    const struct gguf_kv *kv = gguf_find(gguf, key);
    if (kv == NULL) return missing(key, err);
    if (kv->type != GGUF_STRING) return wrong_type(kv, key, "string", err);
    *out = kv->value.str;
    return SOV_OK;
}

enum sov_error gguf_get_array(const struct gguf *gguf, const char *key, enum gguf_value_type type,
                              const struct gguf_array **out, struct sov_errbuf *err)
{
    const struct gguf_kv *kv = gguf_find(gguf, key);
    if (kv == NULL) return missing(key, err);
    if (kv->type != GGUF_ARRAY) return wrong_type(kv, key, "array", err);
    if (kv->value.array.type != type) {
        return sov_fail(err, SOV_ERR_FORMAT, "key %s is an array of %s, expected an array of %s",
                        key, gguf_value_type_name(kv->value.array.type),
                        gguf_value_type_name(type));
    }
    *out = &kv->value.array;
    return SOV_OK;
}
