/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A float64 transformer, written from the architectures' definitions and sharing nothing with
 * model/ but the file reader and the block formats: weights are dequantized, everything else is
 * double and libm, attention is one softmax over all positions. Slow on purpose. Included by the
 * oracle programs.
 */
#ifndef SOV_TESTS_ORACLE_REFERENCE_H
#define SOV_TESTS_ORACLE_REFERENCE_H

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "gguf/gguf.h"
#include "gguf/quant.h"

/* count values of size bytes; a test without memory ends here. */
static void *reference_memory(size_t count, size_t size)
{
    void *p = calloc(count, size);
    if (p == NULL) abort();
    return p;
}

struct reference {
    const struct gguf *gguf;
    char arch[32];
    int layers, width, heads, kv_heads, head_dim, ffn, vocab;
    double eps;
    double *frequency; /* head_dim / 2 */
    double length;     /* of rotated vectors */
};

static double reference_number(const struct reference *r, const char *suffix, double fallback)
{
    char key[128];
    snprintf(key, sizeof key, "%s.%s", r->arch, suffix);
    float f;
    uint32_t u;
    if (gguf_get_f32(r->gguf, key, &f, NULL) == SOV_OK) return (double)f;
    if (gguf_get_u32(r->gguf, key, &u, NULL) == SOV_OK) return (double)u;
    return fallback;
}

/* A tensor as doubles, or NULL. */
static double *reference_tensor(const struct reference *r, const char *name)
{
    const struct gguf_tensor *t = gguf_find_tensor(r->gguf, name);
    if (t == NULL) return NULL;
    size_t n = (size_t)(t->dims[0] * t->dims[1]);
    float *values = reference_memory(n, sizeof *values);
    double *out = reference_memory(n, sizeof *out);
    quant_dequantize((enum gguf_type)t->type, t->data, values, n);
    for (size_t i = 0; i < n; i++) out[i] = (double)values[i];
    free(values);
    return out;
}

static double *reference_layer_tensor(const struct reference *r, int layer, const char *suffix)
{
    char name[128];
    snprintf(name, sizeof name, "blk.%d.%s", layer, suffix);
    return reference_tensor(r, name);
}

/* Rotary frequencies: base^(-2i/d), divided by factors, scaled linearly or by YaRN's ramp. */
static void reference_rope(struct reference *r)
{
    int pairs = r->head_dim / 2, d = r->head_dim;
    double base = reference_number(r, "rope.freq_base", 10000.0),
           factor = reference_number(r, "rope.scaling.factor", 1.0);
    double context = reference_number(r, "context_length", 0.0);
    double original = reference_number(r, "rope.scaling.original_context_length", context);
    double *factors = reference_tensor(r, "rope_freqs.weight");
    char key[128];
    snprintf(key, sizeof key, "%s.rope.scaling.type", r->arch);
    struct gguf_str type = {.data = "", .length = 0};
    (void)gguf_get_str(r->gguf, key, &type, NULL);
    int yarn = type.length == 4 && memcmp(type.data, "yarn", 4) == 0;
    double fast = floor(d * log(original / (32.0 * 2.0 * M_PI)) / (2.0 * log(base)));
    double slow = ceil(d * log(original / (1.0 * 2.0 * M_PI)) / (2.0 * log(base)));
    fast = fmax(0.0, fast);
    slow = fmin(d - 1.0, slow);
    r->frequency = reference_memory((size_t)pairs, sizeof(double));
    for (int i = 0; i < pairs; i++) {
        double f = pow(base, -2.0 * i / d) / (factors != NULL ? factors[i] : 1.0);
        double keep =
            yarn ? 1.0 - fmin(1.0, fmax(0.0, (i - fast) / fmax(0.001, slow - fast))) : 0.0;
        r->frequency[i] = f * keep + f / factor * (1.0 - keep);
    }
    r->length = yarn && factor > 1.0 ? 1.0 + 0.1 * log(factor) : 1.0;
    free(factors);
}

static void reference_open(struct reference *r, const struct gguf *gguf)
{
    struct gguf_str arch;
    memset(r, 0, sizeof *r);
    r->gguf = gguf;
    assert_int_equal(gguf_get_str(gguf, "general.architecture", &arch, NULL), SOV_OK);
    snprintf(r->arch, sizeof r->arch, "%.*s", (int)arch.length, arch.data);
    r->layers = (int)reference_number(r, "block_count", 0);
    r->width = (int)reference_number(r, "embedding_length", 0);
    r->ffn = (int)reference_number(r, "feed_forward_length", 0);
    r->heads = (int)reference_number(r, "attention.head_count", 0);
    r->kv_heads = (int)reference_number(r, "attention.head_count_kv", r->heads);
    int equal_share = r->width / r->heads;
    r->head_dim = (int)reference_number(r, "attention.key_length", equal_share);
    r->eps = reference_number(r, "attention.layer_norm_rms_epsilon", 0);
    r->vocab = (int)gguf_find_tensor(gguf, "token_embd.weight")->dims[1];
    reference_rope(r);
}

static void reference_norm(const double *x, const double *weight, double eps, int n, double *out)
{
    double sum = 0.0;
    for (int i = 0; i < n; i++) sum += x[i] * x[i];
    double scale = 1.0 / sqrt(sum / n + eps);
    for (int i = 0; i < n; i++) out[i] = x[i] * scale * weight[i];
}

/* out[t][i] = sum over j of w[i][j] * x[t][j] (+ bias[i]) */
static double *reference_linear(const double *x, int tokens, int columns, const double *w, int rows,
                                const double *bias)
{
    double *out = reference_memory((size_t)tokens * (size_t)rows, sizeof *out);
    for (int t = 0; t < tokens; t++)
        for (int i = 0; i < rows; i++) {
            double sum = 0.0;
            for (int j = 0; j < columns; j++)
                sum += w[(size_t)i * (size_t)columns + (size_t)j] * x[t * columns + j];
            out[(size_t)t * (size_t)rows + (size_t)i] = sum + (bias != NULL ? bias[i] : 0.0);
        }
    return out;
}

/* As above, by the tensors' names. */
static double *reference_apply(const struct reference *r, int layer, const char *name,
                               const double *x, int tokens, int columns, int rows)
{
    char text[64];
    snprintf(text, sizeof text, "%s.weight", name);
    double *w = reference_layer_tensor(r, layer, text);
    snprintf(text, sizeof text, "%s.bias", name);
    double *bias = reference_layer_tensor(r, layer, text);
    double *out = reference_linear(x, tokens, columns, w, rows, bias);
    free(w);
    free(bias);
    return out;
}

static void reference_rotate(const struct reference *r, double *head, int position)
{
    int pairs = r->head_dim / 2, interleaved = strcmp(r->arch, "llama") == 0;
    for (int i = 0; i < pairs; i++) {
        double *a = interleaved ? head + 2 * i : head + i, *b = interleaved ? a + 1 : a + pairs;
        double c = cos(position * r->frequency[i]) * r->length,
               s = sin(position * r->frequency[i]) * r->length;
        double x = *a, y = *b;
        *a = x * c - y * s;
        *b = x * s + y * c;
    }
}

static void reference_heads(const struct reference *r, int layer, const char *norm, double *x,
                            int tokens, int heads)
{
    double *weight = reference_layer_tensor(r, layer, norm);
    for (int t = 0; t < tokens; t++)
        for (int h = 0; h < heads; h++) {
            double *head = x + (t * heads + h) * r->head_dim;
            if (weight != NULL) reference_norm(head, weight, r->eps, r->head_dim, head);
            reference_rotate(r, head, t);
        }
    free(weight);
}

static void reference_attend(const struct reference *r, const double *q, const double *k,
                             const double *v, int tokens, double *out)
{
    int d = r->head_dim, group = r->heads / r->kv_heads;
    double *p = reference_memory((size_t)tokens, sizeof *p);
    for (int t = 0; t < tokens; t++)
        for (int h = 0; h < r->heads; h++) {
            double top = -INFINITY, sum = 0.0, *o = out + (t * r->heads + h) * d;
            for (int j = 0; j <= t; j++) {
                p[j] = 0.0;
                for (int i = 0; i < d; i++)
                    p[j] +=
                        q[(t * r->heads + h) * d + i] * k[(j * r->kv_heads + h / group) * d + i];
                p[j] /= sqrt(d);
                top = fmax(top, p[j]);
            }
            for (int i = 0; i < d; i++) o[i] = 0.0;
            for (int j = 0; j <= t; j++) {
                p[j] = exp(p[j] - top);
                sum += p[j];
                for (int i = 0; i < d; i++) o[i] += p[j] * v[(j * r->kv_heads + h / group) * d + i];
            }
            for (int i = 0; i < d; i++) o[i] /= sum;
        }
    free(p);
}

static double *reference_norm_rows(const struct reference *r, const double *x, int tokens,
                                   double *weight)
{
    double *out = reference_memory((size_t)tokens * (size_t)r->width, sizeof *out);
    assert_non_null(weight);
    for (int t = 0; t < tokens; t++)
        reference_norm(x + t * r->width, weight, r->eps, r->width, out + t * r->width);
    free(weight);
    return out;
}

static void reference_layer(const struct reference *r, int layer, double *x, int tokens)
{
    int qw = r->heads * r->head_dim, kvw = r->kv_heads * r->head_dim;
    double *n =
        reference_norm_rows(r, x, tokens, reference_layer_tensor(r, layer, "attn_norm.weight"));
    double *q = reference_apply(r, layer, "attn_q", n, tokens, r->width, qw);
    double *k = reference_apply(r, layer, "attn_k", n, tokens, r->width, kvw);
    double *v = reference_apply(r, layer, "attn_v", n, tokens, r->width, kvw);
    reference_heads(r, layer, "attn_q_norm.weight", q, tokens, r->heads);
    reference_heads(r, layer, "attn_k_norm.weight", k, tokens, r->kv_heads);
    double *a = reference_memory((size_t)tokens * (size_t)qw, sizeof *a);
    reference_attend(r, q, k, v, tokens, a);
    double *o = reference_apply(r, layer, "attn_output", a, tokens, qw, r->width);
    for (int i = 0; i < tokens * r->width; i++) x[i] += o[i];
    double *m =
        reference_norm_rows(r, x, tokens, reference_layer_tensor(r, layer, "ffn_norm.weight"));
    double *gate = reference_apply(r, layer, "ffn_gate", m, tokens, r->width, r->ffn);
    double *up = reference_apply(r, layer, "ffn_up", m, tokens, r->width, r->ffn);
    for (int i = 0; i < tokens * r->ffn; i++) gate[i] = gate[i] / (1.0 + exp(-gate[i])) * up[i];
    double *down = reference_apply(r, layer, "ffn_down", gate, tokens, r->ffn, r->width);
    for (int i = 0; i < tokens * r->width; i++) x[i] += down[i];
    double *all[] = {n, q, k, v, a, o, m, gate, up, down};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i]);
}

/* tokens x vocab logits, to be freed. */
static double *reference_logits(const struct gguf *gguf, const int32_t *ids, int tokens)
{
    struct reference r;
    reference_open(&r, gguf);
    double *table = reference_tensor(&r, "token_embd.weight");
    double *x = reference_memory((size_t)tokens * (size_t)r.width, sizeof *x);
    if (table == NULL) abort();
    for (int t = 0; t < tokens; t++)
        memcpy(x + t * r.width, table + (size_t)ids[t] * (size_t)r.width,
               (size_t)r.width * sizeof *x);
    for (int layer = 0; layer < r.layers; layer++) reference_layer(&r, layer, x, tokens);
    double *n = reference_norm_rows(&r, x, tokens, reference_tensor(&r, "output_norm.weight"));
    double *output = reference_tensor(&r, "output.weight");
    double *logits =
        reference_linear(n, tokens, r.width, output != NULL ? output : table, r.vocab, NULL);
    free(output);
    free(n);
    free(x);
    free(table);
    free(r.frequency);
    return logits;
}

#endif
