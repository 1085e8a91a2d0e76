/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A second engine, written from docs/arithmetic.md alone: no packing, no kernels, no batches, one
 * plain loop per formula (only the file reader is shared). Its logits must equal the real engine's
 * to the bit, for every weight type and architecture. If this test fails, either the engine or its
 * specification is wrong.
 */
#include <libgen.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/pool.h"
#include "gguf/gguf.h"
#include "model/model.h"

enum { TOKENS = 40, PAGE = 32, PAGES = 2, BLOCK_MAX = 256 };

static void *take(size_t count, size_t size)
{
    void *p = calloc(count > 0 ? count : 1, size);
    if (p == NULL) abort();
    return p;
}

/* ---- Weight formats ---- */

static int signed_byte(uint8_t byte)
{
    return byte < 128 ? byte : byte - 256;
}

static float half_value(const uint8_t *at)
{
    unsigned h = at[0] | (unsigned)at[1] << 8, exponent = h >> 10 & 31, fraction = h & 1023;
    double magnitude =
        exponent == 0 ? ldexp(fraction, -24) : ldexp(1024 + fraction, (int)exponent - 25);
    return (float)(h >> 15 ? -magnitude : magnitude);
}

/*
 * A block as the table of formats has it: quants, and per quant its scale and minimum; value = d sc
 * q - dmin mn.
 */
struct block {
    float d, dmin; /* dmin is m with its sign turned for Q4_1 and Q5_1 */
    int q[BLOCK_MAX], sc[BLOCK_MAX], mn[BLOCK_MAX];
};

static void read_32(enum gguf_type type, const uint8_t *at, struct block *b)
{
    bool minimum = type == GGUF_TYPE_Q4_1 || type == GGUF_TYPE_Q5_1;
    bool five = type == GGUF_TYPE_Q5_0 || type == GGUF_TYPE_Q5_1;
    const uint8_t *next = at + (minimum ? 4 : 2), *high = next;
    b->d = half_value(at);
    b->dmin = minimum ? -half_value(at + 2) : 0.0f;
    if (five) next += 4;
    for (int i = 0; i < 32; i++) {
        b->sc[i] = b->mn[i] = 1;
        if (type == GGUF_TYPE_Q8_0) {
            b->q[i] = signed_byte(next[i]);
            continue;
        }
        int q = i < 16 ? next[i] & 15 : next[i - 16] >> 4;
        if (five) q |= (high[i / 8] >> i % 8 & 1) << 4;
        b->q[i] = minimum ? q : q - (five ? 16 : 8);
    }
}

static void read_q2_k(const uint8_t *at, struct block *b)
{
    b->d = half_value(at + 80);
    b->dmin = half_value(at + 82);
    for (int i = 0; i < 256; i++) {
        b->q[i] = at[16 + i / 128 * 32 + i % 32] >> i / 32 % 4 * 2 & 3;
        b->sc[i] = at[i / 16] & 15;
        b->mn[i] = at[i / 16] >> 4;
    }
}

static void read_q3_k(const uint8_t *at, struct block *b)
{
    const uint8_t *scales = at + 96;
    b->d = half_value(at + 108);
    b->dmin = 0.0f;
    for (int i = 0; i < 256; i++) {
        int sub = i / 16;
        int low = at[32 + i / 128 * 32 + i % 32] >> i / 32 % 4 * 2 & 3,
            high = at[i % 32] >> i / 32 & 1;
        b->q[i] = (low | high << 2) - 4;
        b->sc[i] = ((scales[sub % 8] >> sub / 8 * 4 & 15) | (scales[8 + sub % 4] >> sub / 4 * 2 & 3)
                                                                << 4) -
                   32;
        b->mn[i] = 0;
    }
}

static void read_q45_k(bool five, const uint8_t *at, struct block *b)
{
    const uint8_t *s = at + 4, *high = at + 16, *low = five ? at + 48 : at + 16;
    b->d = half_value(at);
    b->dmin = half_value(at + 2);
    for (int i = 0; i < 256; i++) {
        int sub = i / 32;
        b->q[i] = low[sub / 2 * 32 + i % 32] >> sub % 2 * 4 & 15;
        if (five) b->q[i] |= (high[i % 32] >> sub & 1) << 4;
        b->sc[i] = sub < 4 ? s[sub] & 63 : (s[sub + 4] & 15) | s[sub - 4] >> 6 << 4;
        b->mn[i] = sub < 4 ? s[sub + 4] & 63 : s[sub + 4] >> 4 | s[sub] >> 6 << 4;
    }
}

static void read_q6_k(const uint8_t *at, struct block *b)
{
    b->d = half_value(at + 208);
    b->dmin = 0.0f;
    for (int i = 0; i < 256; i++) {
        int part = i / 128, g = i / 32 % 4;
        int low = at[part * 64 + g % 2 * 32 + i % 32] >> g / 2 * 4 & 15;
        b->q[i] = (low | (at[128 + part * 32 + i % 32] >> 2 * g & 3) << 4) - 32;
        b->sc[i] = signed_byte(at[192 + i / 16]);
        b->mn[i] = 0;
    }
}

static void read_block(enum gguf_type type, const uint8_t *at, struct block *b)
{
    switch (type) {
    case GGUF_TYPE_Q2_K: read_q2_k(at, b); break;
    case GGUF_TYPE_Q3_K: read_q3_k(at, b); break;
    case GGUF_TYPE_Q4_K: read_q45_k(false, at, b); break;
    case GGUF_TYPE_Q5_K: read_q45_k(true, at, b); break;
    case GGUF_TYPE_Q6_K: read_q6_k(at, b); break;
    default: read_32(type, at, b); break;
    }
}

/* Element i of a row of F32, F16 or BF16. */
static float float_weight(enum gguf_type type, const uint8_t *row, int i)
{
    float value;
    if (type == GGUF_TYPE_F16) return half_value(row + 2 * i);
    uint32_t bits = 0;
    if (type == GGUF_TYPE_BF16)
        bits = (uint32_t)row[2 * i] << 16 | (uint32_t)row[2 * i + 1] << 24;
    else
        memcpy(&bits, row + 4 * i, 4);
    memcpy(&value, &bits, 4);
    return value;
}

static bool has_minimum(enum gguf_type type)
{
    return type == GGUF_TYPE_Q4_1 || type == GGUF_TYPE_Q5_1 || type == GGUF_TYPE_Q2_K ||
           type == GGUF_TYPE_Q4_K || type == GGUF_TYPE_Q5_K;
}

/* Row r of a tensor in f32. */
static void row_values(const struct gguf_tensor *t, int r, float *out)
{
    const struct gguf_type_info *info = gguf_type_info(t->type);
    enum gguf_type type = (enum gguf_type)t->type;
    int n = (int)t->dims[0], elems = (int)info->block_elems;
    const uint8_t *row =
        (const uint8_t *)t->data + (size_t)r * (size_t)(n / elems) * info->block_bytes;
    for (int i = 0; i < n && elems == 1; i++) out[i] = float_weight(type, row, i);
    for (int at = 0; at < n && elems > 1; at += elems) {
        struct block b;
        read_block(type, row + (size_t)(at / elems) * info->block_bytes, &b);
        for (int i = 0; i < elems; i++) {
            float step = elems == 256 ? b.d * (float)b.sc[i] : b.d, low = b.dmin * (float)b.mn[i];
            float value = step * (float)b.q[i];
            out[at + i] = has_minimum(type) ? value - low : value;
        }
    }
}

/* ---- Activations and matrix products ---- */

struct quantized {
    float da;
    int a[BLOCK_MAX];
};

static struct quantized quantize(const float *x, int n)
{
    struct quantized r = {.da = 0.0f};
    float amax = 0.0f;
    for (int i = 0; i < n; i++) amax = fabsf(x[i]) > amax ? fabsf(x[i]) : amax;
    if (amax < 0x1p-100f) return r;
    float inv = 127.0f / amax;
    for (int i = 0; i < n; i++) r.a[i] = (int)nearbyintf(x[i] * inv);
    r.da = amax / 127.0f;
    return r;
}

static float float_product(enum gguf_type type, const uint8_t *row, const float *x, int n)
{
    float acc = 0.0f;
    for (int run = 0; run < n; run += 32) {
        float part = 0.0f;
        for (int i = run; i < run + 32 && i < n; i++)
            part = fmaf(float_weight(type, row, i), x[i], part);
        acc = acc + part;
    }
    return acc;
}

static float block_product(enum gguf_type type, const struct block *b, const struct quantized *x,
                           int elems, float acc)
{
    int32_t isum = 0, msum = 0;
    for (int i = 0; i < elems; i++) {
        isum += (elems == 256 ? b->sc[i] : 1) * b->q[i] * x->a[i];
        msum += b->mn[i] * x->a[i];
    }
    acc = fmaf(b->d * x->da, (float)isum, acc);
    if (has_minimum(type)) acc = fmaf(-(b->dmin * x->da), (float)msum, acc);
    return acc;
}

/* y = w x (+ bias) */
static void multiply(const struct gguf_tensor *w, const struct gguf_tensor *bias, const float *x,
                     float *y)
{
    const struct gguf_type_info *info = gguf_type_info(w->type);
    enum gguf_type type = (enum gguf_type)w->type;
    int n = (int)w->dims[0], rows = (int)w->dims[1], elems = (int)info->block_elems,
        blocks = n / elems;
    struct quantized *a = take((size_t)blocks, sizeof *a);
    for (int b = 0; b < blocks && elems > 1; b++) a[b] = quantize(x + b * elems, elems);
    for (int r = 0; r < rows; r++) {
        const uint8_t *row =
            (const uint8_t *)w->data + (size_t)r * (size_t)blocks * info->block_bytes;
        float acc = elems == 1 ? float_product(type, row, x, n) : 0.0f;
        for (int b = 0; b < blocks && elems > 1; b++) {
            struct block block;
            read_block(type, row + (size_t)b * info->block_bytes, &block);
            acc = block_product(type, &block, &a[b], elems, acc);
        }
        y[r] = bias != NULL ? acc + float_weight((enum gguf_type)bias->type, bias->data, r) : acc;
    }
    free(a);
}

/* ---- Functions ---- */

static float spec_exp(float x)
{
    if (isnan(x)) return x;
    if (x < -87.0f) return 0.0f;
    if (x > 88.0f) x = 88.0f;
    float n = nearbyintf(x * 0x1.715476p+0f);
    float r = fmaf(n, -0x1.62e4p-1f, x);
    r = fmaf(n, -0x1.7f7d1cp-20f, r);
    float p = fmaf(0x1.6a23dp-10f, r, 0x1.123a2p-7f);
    p = fmaf(p, r, 0x1.5558f2p-5f);
    p = fmaf(p, r, 0x1.555492p-3f);
    p = fmaf(p, r, 0x1.fffffcp-2f);
    p = fmaf(p, r, 1.0f);
    p = fmaf(p, r, 1.0f);
    return ldexpf(p, (int)n);
}

static double factorial_of(int k)
{
    double product = 1.0; /* exact: at most 18! */
    for (int i = 2; i <= k; i++) product *= i;
    return product;
}

/*
 * Coefficients 1/k! or 1/k for k = first, first + step .. last, the first and every second one
 * negative if they alternate; by Horner from the last.
 */
static double horner(double z, int first, int last, int step, bool factorial, bool alternate)
{
    double p = 0.0;
    for (int k = last; k >= first; k -= step) {
        double sign = alternate && (k - first) / step % 2 == 0 ? -1.0 : 1.0;
        double c = sign / (factorial ? factorial_of(k) : (double)k);
        p = k == last ? c : fma(p, z, c);
    }
    return p;
}

static void spec_sincos(double x, double *sine, double *cosine)
{
    double n = nearbyint(x * 0x1.45f306dc9c883p-1);
    double r = fma(n, -0x1.921fb544p+0, x);
    r = fma(n, -0x1.0b4611a6p-34, r);
    r = fma(n, -0x1.3198a2e037073p-69, r);
    double r2 = r * r;
    double s = fma(r * r2, horner(r2, 3, 17, 2, true, true), r);
    double c = fma(r2, horner(r2, 2, 18, 2, true, true), 1.0);
    int turn = (int)fmod(n, 4.0);
    *sine = turn == 0 ? s : turn == 1 ? c : turn == 2 ? -s : -c;
    *cosine = turn == 0 ? c : turn == 1 ? -s : turn == 2 ? -c : s;
}

static double spec_ln(double x)
{
    int exponent;
    double m = frexp(x, &exponent) * 2.0, e = exponent - 1;
    if (m >= 0x1.6a09e667f3bcdp+0) m *= 0.5, e += 1.0;
    double s = (m - 1.0) / (m + 1.0), s2 = s * s, t = s2 * horner(s2, 3, 23, 2, false, false);
    return fma(e, 0x1.62e42feep-1, fma(s + s, t, fma(e, 0x1.a39ef35793c76p-33, s + s)));
}

static double spec_exp64(double x)
{
    if (x < -708.0) return 0.0;
    if (x > 709.0) x = 709.0;
    double n = nearbyint(x * 0x1.71547652b82fep+0);
    double r = fma(n, -0x1.62e42feep-1, x);
    r = fma(n, -0x1.a39ef35793c76p-33, r);
    double p = fma(horner(r, 2, 13, 1, true, false), r, 1.0);
    p = fma(p, r, 1.0);
    return ldexp(p, (int)n);
}

static float fold(float lanes[16])
{
    for (int half = 8; half >= 1; half /= 2)
        for (int l = 0; l < half; l++) lanes[l] += lanes[l + half];
    return lanes[0];
}

static void norm(const float *x, const struct gguf_tensor *weight, float eps, int n, float *y)
{
    float lanes[16] = {0};
    for (int i = 0; i < n; i++) lanes[i % 16] = fmaf(x[i], x[i], lanes[i % 16]);
    float mean = fold(lanes) / (float)n, r = 1.0f / sqrtf(mean + eps);
    for (int i = 0; i < n; i++)
        y[i] = (x[i] * r) * float_weight((enum gguf_type)weight->type, weight->data, i);
}

/* ---- The model ---- */

struct spec {
    const struct gguf *gguf;
    char arch[32];
    int layers, width, heads, kv_heads, head, ffn, dims;
    float eps, scale;
    double frequency[256];
    bool bytes; /* q8_0 keys and values */
    /* [layer][position][kv head][dimension]: values; of q8_0 keys the quants, with scales beside */
    float *k, *v, *k_scale;
};

static double number(const struct spec *s, const char *suffix, double fallback)
{
    char key[128];
    snprintf(key, sizeof key, "%s.%s", s->arch, suffix);
    float f;
    uint32_t u;
    if (gguf_get_f32(s->gguf, key, &f, NULL) == SOV_OK) return (double)f;
    return gguf_get_u32(s->gguf, key, &u, NULL) == SOV_OK ? (double)u : fallback;
}

static const struct gguf_tensor *tensor(const struct spec *s, int layer, const char *suffix)
{
    char name[128];
    snprintf(name, sizeof name, "blk.%d.%s", layer, suffix);
    return gguf_find_tensor(s->gguf, name);
}

static double dimension(const struct spec *s, double turns)
{
    double original =
        number(s, "rope.scaling.original_context_length", number(s, "context_length", 0.0));
    double ln_base = spec_ln(number(s, "rope.freq_base", 10000.0));
    return (double)s->dims * spec_ln(original / (turns * 0x1.921fb54442d18p+2)) / (2.0 * ln_base);
}

static void frequencies(struct spec *s)
{
    char key[128];
    snprintf(key, sizeof key, "%s.rope.scaling.type", s->arch);
    struct gguf_str type = {.data = "linear", .length = 6};
    (void)gguf_get_str(s->gguf, key, &type, NULL);
    bool yarn = type.length == 4 && memcmp(type.data, "yarn", 4) == 0;
    double factor = number(s, "rope.scaling.factor", 1.0), shrink = 1.0 / factor, length = 1.0,
           low = 0.0, high = 0.0;
    if (yarn) {
        low = fmax(0.0, floor(dimension(s, 32.0)));
        high = fmin(s->dims - 1.0, ceil(dimension(s, 1.0)));
        if (factor > 1.0) length = 0.1 * spec_ln(factor) + 1.0;
    }
    s->scale = (float)(length * number(s, "rope.scaling.attn_factor", 1.0));
    const struct gguf_tensor *factors = gguf_find_tensor(s->gguf, "rope_freqs.weight");
    double ln_base = spec_ln(number(s, "rope.freq_base", 10000.0));
    for (int i = 0; i < s->dims / 2; i++) {
        double f = spec_exp64(-((double)(2 * i) / s->dims) * ln_base);
        if (factors != NULL)
            f = f / (double)float_weight((enum gguf_type)factors->type, factors->data, i);
        double blend = yarn ? 1.0 - fmin(1.0, fmax(0.0, (i - low) / fmax(0.001, high - low))) : 0.0;
        s->frequency[i] = f * (shrink * (1.0 - blend) + blend);
    }
}

static void spec_open(struct spec *s, const struct gguf *gguf, bool bytes)
{
    struct gguf_str arch;
    *s = (struct spec){.gguf = gguf, .bytes = bytes};
    assert_int_equal(gguf_get_str(gguf, "general.architecture", &arch, NULL), SOV_OK);
    snprintf(s->arch, sizeof s->arch, "%.*s", (int)arch.length, arch.data);
    s->layers = (int)number(s, "block_count", 0.0);
    s->width = (int)number(s, "embedding_length", 0.0);
    s->ffn = (int)number(s, "feed_forward_length", 0.0);
    s->heads = (int)number(s, "attention.head_count", 0.0);
    s->kv_heads = (int)number(s, "attention.head_count_kv", s->heads);
    int equal_share = s->width / s->heads;
    s->head = (int)number(s, "attention.key_length", equal_share);
    s->dims = (int)number(s, "rope.dimension_count", s->head);
    s->eps = (float)number(s, "attention.layer_norm_rms_epsilon", 0.0);
    frequencies(s);
    size_t values = (size_t)s->layers * TOKENS * (size_t)s->kv_heads * (size_t)s->head;
    s->k = take(values, sizeof(float));
    s->v = take(values, sizeof(float));
    s->k_scale = take(values, sizeof(float));
}

static void rotate(const struct spec *s, float *head, int position)
{
    bool neighbours = strcmp(s->arch, "llama") == 0;
    for (int i = 0; i < s->dims / 2; i++) {
        double sine, cosine;
        spec_sincos((double)position * s->frequency[i], &sine, &cosine);
        float c = (float)cosine * s->scale, sn = (float)sine * s->scale;
        float *a = head + (neighbours ? 2 * i : i), *b = neighbours ? a + 1 : a + s->dims / 2;
        float x0 = *a, x1 = *b;
        *a = fmaf(x0, c, -(x1 * sn));
        *b = fmaf(x0, sn, x1 * c);
    }
}

/* The value of the nearest half, ties to even; the values here are far from overflow. */
static float to_half(float x)
{
    int exponent;
    (void)frexpf(x, &exponent);
    int step = exponent - 11 < -24 ? -24 : exponent - 11;
    return x == 0.0f ? x : ldexpf(nearbyintf(ldexpf(x, -step)), step);
}

static float *kv_at(const struct spec *s, float *base, int layer, int position, int kv_head)
{
    return base + ((layer * TOKENS + position) * s->kv_heads + kv_head) * s->head;
}

/* A key and a value of one head, as the type of KV has them. */
static void store(const struct spec *s, int layer, int t, int kv_head, const float *key,
                  const float *value)
{
    float *k = kv_at(s, s->k, layer, t, kv_head), *v = kv_at(s, s->v, layer, t, kv_head);
    float *k_scale = kv_at(s, s->k_scale, layer, t, kv_head);
    for (int i = 0; i < s->head && !s->bytes; i++) {
        k[i] = to_half(key[i]);
        v[i] = to_half(value[i]);
    }
    for (int first = 0; first < s->head && s->bytes; first += 32) {
        int n = s->head - first < 32 ? s->head - first : 32;
        struct quantized a = quantize(key + first, n), b = quantize(value + first, n);
        for (int i = 0; i < n; i++) {
            k[first + i] = (float)a.a[i];
            k_scale[first + i] = to_half(a.da);
            v[first + i] = to_half(b.da) * (float)b.a[i];
        }
    }
}

static float dot_of(const struct spec *s, const float *q, const float *k, const float *k_scale)
{
    float dot = 0.0f;
    for (int i = 0; i < s->head && !s->bytes; i++) dot = fmaf(q[i], k[i], dot);
    for (int first = 0; first < s->head && s->bytes; first += 32) {
        int n = s->head - first < 32 ? s->head - first : 32, isum = 0;
        struct quantized a = quantize(q + first, n);
        for (int i = 0; i < n; i++) isum += a.a[i] * (int)k[first + i];
        dot = fmaf(a.da * k_scale[first], (float)isum, dot);
    }
    return dot;
}

static void attend(const struct spec *s, int layer, int head, const float *q, int t, float *o)
{
    int kv = head / (s->heads / s->kv_heads);
    float m = -INFINITY, l = 0.0f, factor = 1.0f / sqrtf((float)s->head);
    for (int i = 0; i < s->head; i++) o[i] = 0.0f;
    for (int page = 0; page <= t; page += PAGE) {
        float p[PAGE] = {0}, top = m, lanes[16];
        int count = t + 1 - page < PAGE ? t + 1 - page : PAGE;
        for (int j = 0; j < count; j++) {
            p[j] = dot_of(s, q, kv_at(s, s->k, layer, page + j, kv),
                          kv_at(s, s->k_scale, layer, page + j, kv));
            p[j] = p[j] * factor;
            top = fmaxf(top, p[j]);
        }
        float correction = spec_exp(m - top);
        for (int j = 0; j < count; j++) p[j] = spec_exp(p[j] - top);
        for (int j = 0; j < 16; j++) lanes[j] = p[j] + p[j + 16];
        l = fmaf(l, correction, fold(lanes));
        for (int i = 0; i < s->head; i++) {
            o[i] = o[i] * correction;
            for (int j = 0; j < count; j++)
                o[i] = fmaf(p[j], kv_at(s, s->v, layer, page + j, kv)[i], o[i]);
        }
        m = top;
    }
    for (int i = 0; i < s->head; i++) o[i] = o[i] * (1.0f / l);
}

static void attention_half(struct spec *s, int layer, int t, float *x)
{
    int q_width = s->heads * s->head, kv_width = s->kv_heads * s->head;
    float *n = take((size_t)s->width, sizeof(float)), *y = take((size_t)s->width, sizeof(float));
    float *q = take((size_t)q_width, sizeof(float)), *o = take((size_t)q_width, sizeof(float));
    float *k = take((size_t)kv_width, sizeof(float)), *v = take((size_t)kv_width, sizeof(float));
    norm(x, tensor(s, layer, "attn_norm.weight"), s->eps, s->width, n);
    multiply(tensor(s, layer, "attn_q.weight"), tensor(s, layer, "attn_q.bias"), n, q);
    multiply(tensor(s, layer, "attn_k.weight"), tensor(s, layer, "attn_k.bias"), n, k);
    multiply(tensor(s, layer, "attn_v.weight"), tensor(s, layer, "attn_v.bias"), n, v);
    const struct gguf_tensor *q_norm = tensor(s, layer, "attn_q_norm.weight");
    const struct gguf_tensor *k_norm = tensor(s, layer, "attn_k_norm.weight");
    for (int h = 0; h < s->kv_heads; h++) {
        float *head = k + h * s->head;
        if (k_norm != NULL) norm(head, k_norm, s->eps, s->head, head);
        rotate(s, head, t);
        store(s, layer, t, h, head, v + h * s->head);
    }
    for (int h = 0; h < s->heads; h++) {
        float *head = q + h * s->head;
        if (q_norm != NULL) norm(head, q_norm, s->eps, s->head, head);
        rotate(s, head, t);
        attend(s, layer, h, head, t, o + h * s->head);
    }
    multiply(tensor(s, layer, "attn_output.weight"), tensor(s, layer, "attn_output.bias"), o, y);
    for (int i = 0; i < s->width; i++) x[i] = x[i] + y[i];
    float *all[] = {n, y, q, o, k, v};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i]);
}

static void ffn_half(struct spec *s, int layer, float *x)
{
    float *n = take((size_t)s->width, sizeof(float)), *y = take((size_t)s->width, sizeof(float));
    float *gate = take((size_t)s->ffn, sizeof(float)), *up = take((size_t)s->ffn, sizeof(float));
    norm(x, tensor(s, layer, "ffn_norm.weight"), s->eps, s->width, n);
    multiply(tensor(s, layer, "ffn_gate.weight"), tensor(s, layer, "ffn_gate.bias"), n, gate);
    multiply(tensor(s, layer, "ffn_up.weight"), tensor(s, layer, "ffn_up.bias"), n, up);
    for (int i = 0; i < s->ffn; i++) gate[i] = gate[i] / (1.0f + spec_exp(-gate[i])) * up[i];
    multiply(tensor(s, layer, "ffn_down.weight"), tensor(s, layer, "ffn_down.bias"), gate, y);
    for (int i = 0; i < s->width; i++) x[i] = x[i] + y[i];
    float *all[] = {n, y, gate, up};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i]);
}

/* Logits of every position, one token at a time. */
static void spec_logits(const struct gguf *gguf, bool bytes, const int32_t *tokens, float *logits)
{
    struct spec s;
    spec_open(&s, gguf, bytes);
    const struct gguf_tensor *table = gguf_find_tensor(gguf, "token_embd.weight");
    const struct gguf_tensor *output = gguf_find_tensor(gguf, "output.weight");
    float *x = take((size_t)s.width, sizeof(float));
    for (int t = 0; t < TOKENS; t++) {
        row_values(table, tokens[t], x);
        for (int layer = 0; layer < s.layers; layer++) {
            attention_half(&s, layer, t, x);
            ffn_half(&s, layer, x);
        }
        norm(x, gguf_find_tensor(gguf, "output_norm.weight"), s.eps, s.width, x);
        multiply(output != NULL ? output : table, NULL, x,
                 logits + (size_t)t * (size_t)table->dims[1]);
    }
    free(x);
    free(s.k);
    free(s.v);
    free(s.k_scale);
}

/* ---- The comparison ---- */

static char build_dir[512];
static char model_path[600];

static uint32_t bits_of(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

static void compare_logits(struct model *model, struct pool *pool, const int32_t *tokens,
                           const float *expected)
{
    struct sov_errbuf err = {.message = ""};
    struct model_workspace *ws;
    assert_int_equal(model_workspace_create(model, pool, TOKENS, TOKENS, &ws, &err), SOV_OK);
    unsigned char *pages[PAGES];
    struct model_row rows[TOKENS];
    for (int i = 0; i < PAGES; i++) pages[i] = take(1, model_kv_page_bytes(model));
    for (int i = 0; i < TOKENS; i++)
        rows[i] = (struct model_row){
            .token = tokens[i], .position = i, .pages = pages, .want_logits = true};
    const float *logits;
    if (model_forward(model, ws, rows, TOKENS, &logits, &err) != SOV_OK)
        fail_msg("%s", err.message);
    int vocab = model_config(model)->vocab, line = model_config(model)->vocab_padded;
    for (int t = 0; t < TOKENS; t++)
        for (int i = 0; i < vocab; i++) {
            float a = expected[t * vocab + i], b = logits[t * line + i];
            if (bits_of(a) != bits_of(b))
                fail_msg("logit %d of position %d is %a, by the specification %a", i, t, (double)b,
                         (double)a);
        }
    for (int i = 0; i < PAGES; i++) free(pages[i]);
    model_workspace_free(ws);
}

static void check_kv_type(const struct gguf *gguf, enum kv_type type)
{
    struct sov_errbuf err = {.message = ""};
    struct pool *pool;
    struct model *model;
    assert_int_equal(pool_create(1, &pool, &err), SOV_OK);
    struct model_load_options load = {.isa = kern_isa_best(), .kv_type = type, .pool = pool};
    if (model_load(gguf, &load, &model, &err) != SOV_OK) fail_msg("%s", err.message);
    int32_t tokens[TOKENS];
    for (int i = 0; i < TOKENS; i++) tokens[i] = i * 73 % model_config(model)->vocab;
    float *expected = take((size_t)TOKENS * (size_t)model_config(model)->vocab, sizeof(float));
    spec_logits(gguf, type == KV_TYPE_Q8_0, tokens, expected);
    compare_logits(model, pool, tokens, expected);
    free(expected);
    model_free(model);
    pool_free(pool);
}

static void check(const char *options)
{
    char command[2048];
    snprintf(command, sizeof command, "%s/mkmodel %s %s >/dev/null", build_dir, options,
             model_path);
    if (system(command) != 0) fail_msg("failed: %s", command);
    print_message("# %s\n", options);
    struct sov_errbuf err = {.message = ""};
    struct gguf *gguf;
    if (gguf_open(model_path, &gguf, &err) != SOV_OK) fail_msg("%s", err.message);
    for (int type = 0; type < KV_TYPES; type++) check_kv_type(gguf, (enum kv_type)type);
    gguf_close(gguf);
    unlink(model_path);
}

static void test_weight_types(void **state)
{
    (void)state;
    static const char *const types[] = {"f32",  "f16",  "bf16", "q8_0", "q4_0", "q4_1", "q5_0",
                                        "q5_1", "q2_k", "q3_k", "q4_k", "q5_k", "q6_k", "q4_k_m"};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        char options[256];
        snprintf(options, sizeof options,
                 "--arch llama --dim 256 --layers 1 --heads 4 --kv-heads 2 --ffn 256 --vocab-bytes "
                 "260 --type %s",
                 types[i]);
        check(options);
    }
}

static void test_architectures(void **state)
{
    (void)state;
    check("--arch qwen2 --dim 96 --layers 2 --heads 6 --kv-heads 2 --ffn 96 --type q8_0 --tied "
          "--vocab-bytes 260");
    check("--arch qwen3 --dim 96 --layers 2 --heads 3 --kv-heads 3 --head-dim 32 --ffn 64 --type "
          "q4_1 --vocab-bytes 261");
    check("--arch qwen2 --dim 80 --layers 2 --heads 2 --kv-heads 1 --ffn 64 --type q8_0 "
          "--vocab-bytes 260"); /* heads of 40: a block of 32 and one of 8 */
    check("--arch llama --dim 90 --layers 2 --heads 5 --kv-heads 1 --ffn 70 --type f16 "
          "--vocab-bytes 270");
}

static void test_rotary_scalings(void **state)
{
    (void)state;
#define SHAPE " --dim 64 --layers 1 --heads 2 --kv-heads 1 --ffn 64 --type f32 --vocab-bytes 260 "
    check("--arch llama" SHAPE "--rope-scaling linear --rope-factor 3");
    check("--arch llama" SHAPE "--rope-scaling yarn --rope-factor 4 --rope-orig-ctx 64");
    check("--arch qwen2" SHAPE "--rope-scaling yarn --rope-factor 8 --rope-orig-ctx 512");
    check("--arch llama" SHAPE "--rope-freqs --rope-base 500000");
#undef SHAPE
}

int main(int argc, char **argv)
{
    (void)argc;
    /* This program is <build>/tests/test_arithmetic_spec. */
    char self[512];
    snprintf(self, sizeof self, "%s", argv[0]);
    snprintf(build_dir, sizeof build_dir, "%s/..", dirname(self));
    const char *tmp = getenv("TMPDIR");
    snprintf(model_path, sizeof model_path, "%s/sov-spec-%d.gguf", tmp != NULL ? tmp : "/tmp",
             (int)getpid());
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_weight_types),
        cmocka_unit_test(test_architectures),
        cmocka_unit_test(test_rotary_scalings),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    unlink(model_path);
    return failed;
}
