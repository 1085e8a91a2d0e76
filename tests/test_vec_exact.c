/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every ISA of this machine gives the bits of the scalar kernels: random values of all magnitudes,
 * denormals, signed zeros and infinities, at sizes around every vector width. NaNs must be NaNs in
 * the same places; their payload is not part of the arithmetic.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "gguf/quant.h"
#include "kernels/vec.h"

enum { SIZE_MAX_TESTED = 1100, GUARD = 16 };

static uint64_t random_state;

static uint32_t random_u32(void)
{
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(random_state >> 32);
}

static float random_uniform(float low, float high)
{
    return low + (high - low) * ((float)(random_u32() >> 8) / 16777216.0f);
}

static float from_bits(uint32_t bits)
{
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* Any bit pattern but NaN; every exponent is as likely as any other. */
static float random_any(void)
{
    for (;;) {
        float x = from_bits(random_u32());
        if (x == x) return x;
    }
}

static const float edges[] = {
    0.0f,     -0.0f,      1.0f,     -1.0f,     0x1p-149f, -0x1p-149f, 0x1p-126f,        -0x1p-126f,
    65504.0f, 65519.996f, 65520.0f, -65520.0f, 0x1p-24f,  0x1p-25f,   0x1.8p-25f,       87.0f,
    -87.0f,   88.0f,      -88.0f,   88.7f,     -87.3f,    127.5f,     0x1.fffffep+127f, INFINITY,
    -INFINITY};

enum flavour { ORDINARY, ANY, EDGES, WITH_NAN, FLAVOURS };

static void fill(float *x, int n, enum flavour flavour)
{
    for (int i = 0; i < n; i++) {
        switch (flavour) {
        case ORDINARY: x[i] = random_uniform(-4.0f, 4.0f); break;
        case ANY: x[i] = random_any(); break;
        default: x[i] = edges[random_u32() % (sizeof edges / sizeof *edges)]; break;
        }
    }
    if (flavour == WITH_NAN && n > 0) x[random_u32() % (uint32_t)n] = NAN;
}

static uint32_t bits_of(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

static void assert_same_floats(const float *a, const float *b, int n, const char *what, int isa)
{
    for (int i = 0; i < n; i++) {
        if (a[i] != a[i] && b[i] != b[i]) continue;
        if (bits_of(a[i]) != bits_of(b[i]))
            fail_msg("%s on %s: element %d of %d is %a, the scalar kernel gives %a", what,
                     kern_isa_name((enum kern_isa)isa), i, n, (double)b[i], (double)a[i]);
    }
}

static int next_size(int n)
{
    return n < 70 ? n + 1 : n + 97;
}

/* Calls check for every ISA here but scalar, every size and flavour. */
static void for_all(void (*check)(const struct vec_kernels *k, int isa, int n,
                                  enum flavour flavour))
{
    random_state = 20240607;
    for (int isa = KERN_ISA_SCALAR + 1; isa < KERN_ISAS; isa++) {
        if (!kern_isa_available((enum kern_isa)isa)) continue;
        const struct vec_kernels *k = vec_kernels_for((enum kern_isa)isa);
        for (int n = 1; n <= SIZE_MAX_TESTED; n = next_size(n))
            for (int flavour = 0; flavour < FLAVOURS; flavour++)
                for (int repeat = 0; repeat < 3; repeat++) check(k, isa, n, (enum flavour)flavour);
    }
}

static const struct vec_kernels *scalar(void)
{
    return vec_kernels_for(KERN_ISA_SCALAR);
}

static float buffer_x[SIZE_MAX_TESTED + GUARD], buffer_y[SIZE_MAX_TESTED + GUARD];
static float buffer_a[SIZE_MAX_TESTED + GUARD], buffer_b[SIZE_MAX_TESTED + GUARD];

static void check_rms_norm(const struct vec_kernels *k, int isa, int n, enum flavour flavour)
{
    fill(buffer_x, n, flavour);
    fill(buffer_y, n, ORDINARY);
    scalar()->rms_norm(buffer_x, buffer_y, 1e-5f, n, buffer_a);
    k->rms_norm(buffer_x, buffer_y, 1e-5f, n, buffer_b);
    assert_same_floats(buffer_a, buffer_b, n, "rms_norm", isa);
    k->rms_norm(buffer_x, buffer_y, 1e-5f, n, buffer_x);
    assert_same_floats(buffer_a, buffer_x, n, "rms_norm in place", isa);
}

static void check_silu_mul(const struct vec_kernels *k, int isa, int n, enum flavour flavour)
{
    fill(buffer_x, n, flavour);
    fill(buffer_y, n, ORDINARY);
    scalar()->silu_mul(buffer_x, buffer_y, n, buffer_a);
    buffer_b[n] = 7.0f;
    k->silu_mul(buffer_x, buffer_y, n, buffer_b);
    assert_same_floats(buffer_a, buffer_b, n, "silu_mul", isa);
    assert_true(buffer_b[n] == 7.0f);
}

static void check_add(const struct vec_kernels *k, int isa, int n, enum flavour flavour)
{
    fill(buffer_x, n, flavour);
    fill(buffer_y, n, flavour);
    memcpy(buffer_a, buffer_x, (size_t)n * sizeof(float));
    memcpy(buffer_b, buffer_x, (size_t)n * sizeof(float));
    scalar()->add(buffer_a, buffer_y, n);
    buffer_b[n] = 7.0f;
    k->add(buffer_b, buffer_y, n);
    assert_same_floats(buffer_a, buffer_b, n, "add", isa);
    assert_true(buffer_b[n] == 7.0f);
}

static void check_rope(const struct vec_kernels *k, int isa, int n, enum flavour flavour)
{
    int dims = n & ~1;
    if (dims == 0) return;
    for (int interleaved = 0; interleaved < 2; interleaved++) {
        fill(buffer_x, dims, flavour);
        fill(buffer_y, dims, ORDINARY);
        memcpy(buffer_a, buffer_x, (size_t)dims * sizeof(float));
        memcpy(buffer_b, buffer_x, (size_t)dims * sizeof(float));
        scalar()->rope(buffer_a, buffer_y, dims, interleaved);
        buffer_b[dims] = 7.0f;
        k->rope(buffer_b, buffer_y, dims, interleaved);
        assert_same_floats(buffer_a, buffer_b, dims,
                           interleaved ? "rope interleaved" : "rope split", isa);
        assert_true(buffer_b[dims] == 7.0f);
    }
}

static void check_exp(const struct vec_kernels *k, int isa, int n, enum flavour flavour)
{
    fill(buffer_x, n, flavour);
    scalar()->exp(buffer_x, n, buffer_a);
    buffer_b[n] = 7.0f;
    k->exp(buffer_x, n, buffer_b);
    assert_same_floats(buffer_a, buffer_b, n, "exp", isa);
    assert_true(buffer_b[n] == 7.0f);
    for (int i = 0; i < n; i++) {
        float one = vec_expf(buffer_x[i]);
        assert_same_floats(&buffer_a[i], &one, 1, "vec_expf", KERN_ISA_SCALAR);
    }
}

static bool half_is_nan(uint16_t half)
{
    float x = quant_f16_to_f32(half);
    return x != x;
}

static void check_store_f16(const struct vec_kernels *k, int isa, int n, enum flavour flavour)
{
    static uint16_t a[SIZE_MAX_TESTED * 3 + GUARD], b[SIZE_MAX_TESTED * 3 + GUARD];
    fill(buffer_x, n, flavour);
    for (int stride = 1; stride <= 3; stride += 2) {
        memset(a, 0x5a, sizeof a);
        memset(b, 0x5a, sizeof b);
        scalar()->store_f16(buffer_x, a, n, stride);
        k->store_f16(buffer_x, b, n, stride);
        for (int i = 0; i < n * stride + GUARD; i++)
            if (a[i] != b[i] && !(half_is_nan(a[i]) && half_is_nan(b[i])))
                fail_msg("store_f16 on %s: element %d is %04x, not %04x",
                         kern_isa_name((enum kern_isa)isa), i, b[i], a[i]);
    }
}

/* Terms of the sum from their definition; values of all distances from the largest. */
static void check_exp_sum(const struct vec_kernels *k, int isa, int n, enum flavour flavour)
{
    if (flavour == WITH_NAN) return; /* the sampler refuses those before */
    fill(buffer_x, n, flavour);
    float max = -INFINITY;
    for (int i = 0; i < n; i++) {
        if (isinf(buffer_x[i])) buffer_x[i] = -16.0f;
        if (flavour == ORDINARY) buffer_x[i] *= (float)(1 + i % 30);
        max = buffer_x[i] > max ? buffer_x[i] : max;
    }
    double start = flavour == EDGES ? 0.0 : 0.7, expected = start;
    for (int i = 0; i < n; i++) {
        double difference = (double)buffer_x[i] - (double)max;
        expected += difference >= VEC_EXP_SUM_EXACT ? vec_exp64(difference)
                                                    : (double)vec_expf(buffer_x[i] - max);
    }
    double scalar_sum = scalar()->exp_sum(buffer_x, n, max, start);
    double sum = k->exp_sum(buffer_x, n, max, start);
    assert_memory_equal(&scalar_sum, &expected, sizeof expected);
    if (memcmp(&sum, &expected, sizeof expected) != 0)
        fail_msg("exp_sum of %d on %s gives %a, not %a", n, kern_isa_name((enum kern_isa)isa), sum,
                 expected);
}

static void check_block_maxima(const struct vec_kernels *k, int isa, int n, enum flavour flavour)
{
    int blocks = (n + VEC_BLOCK - 1) / VEC_BLOCK;
    bool finite = true;
    fill(buffer_x, n, flavour);
    for (int i = 0; i < n; i++) {
        if (flavour == EDGES && n % 2 == 0 && isinf(buffer_x[i])) buffer_x[i] = -0.0f;
        finite = finite && isfinite(buffer_x[i]);
    }
    buffer_b[blocks] = 7.0f;
    assert_int_equal(scalar()->block_maxima(buffer_x, n, buffer_a), finite);
    if (k->block_maxima(buffer_x, n, buffer_b) != finite)
        fail_msg("%s takes %d values for %sfinite", kern_isa_name((enum kern_isa)isa), n,
                 finite ? "not " : "");
    assert_true(buffer_b[blocks] == 7.0f);
    for (int b = 0; finite && b < blocks; b++) {
        int end = n < (b + 1) * VEC_BLOCK ? n : (b + 1) * VEC_BLOCK;
        float max = buffer_x[b * VEC_BLOCK];
        for (int i = b * VEC_BLOCK; i < end; i++) max = buffer_x[i] > max ? buffer_x[i] : max;
        assert_true(buffer_a[b] == max);
        if (buffer_b[b] != max)
            fail_msg("block %d of %d on %s has %a, not %a", b, n, kern_isa_name((enum kern_isa)isa),
                     (double)buffer_b[b], (double)max);
    }
}

static void check_gather(const struct vec_kernels *k, int isa, int n, enum flavour flavour)
{
    static int32_t ids[SIZE_MAX_TESTED + GUARD], a[SIZE_MAX_TESTED + GUARD],
        b[SIZE_MAX_TESTED + GUARD];
    if (flavour == WITH_NAN) return;
    fill(buffer_x, n, flavour);
    int begin = (int)(random_u32() % (uint32_t)n), end = n;
    if (n % 3 == 0) begin = 0;
    float low = buffer_x[random_u32() % (uint32_t)n], high = buffer_x[random_u32() % (uint32_t)n];
    if (n % 5 == 0) low = -INFINITY;
    if (n % 7 < 3) high = INFINITY;
    for (int i = 0; i < n; i++) ids[i] = 3 * i + 1;
    for (int with_ids = 0; with_ids < 2; with_ids++) {
        const int32_t *from = with_ids ? ids : NULL;
        int expected = 0, room = end - begin;
        for (int i = begin; i < end; i++) {
            if (!(buffer_x[i] >= low && buffer_x[i] < high)) continue;
            buffer_y[expected] = buffer_x[i];
            a[expected++] = with_ids ? ids[i] : i;
        }
        for (int scalar_too = 0; scalar_too < 2; scalar_too++) {
            const struct vec_kernels *kernels = scalar_too ? scalar() : k;
            buffer_b[room] = 7.0f;
            b[room] = 7;
            int got = kernels->gather(buffer_x, from, begin, end, low, high, buffer_b, b);
            if (got != expected)
                fail_msg("gather from %d on %s keeps %d, not %d", room,
                         kern_isa_name((enum kern_isa)isa), got, expected);
            assert_memory_equal(buffer_b, buffer_y, (size_t)got * sizeof buffer_b[0]);
            assert_memory_equal(b, a, (size_t)got * sizeof b[0]);
            assert_true(buffer_b[room] == 7.0f && b[room] == 7);
        }
    }
    /* Into its own input, and before it: what lies behind the end stays as it is. */
    memcpy(buffer_b, buffer_x, (size_t)n * sizeof buffer_b[0]);
    memcpy(b, ids, (size_t)n * sizeof b[0]);
    int middle = begin + (end - begin) / 2, to = middle > 0 ? (int)(random_u32() % 20) : 0;
    if (to > middle) to = middle;
    int got = k->gather(buffer_b, b, middle, end - 1, low, high, buffer_b + to, b + to);
    int expected = 0;
    for (int i = middle; i < end - 1; i++) {
        if (!(buffer_x[i] >= low && buffer_x[i] < high)) continue;
        assert_true(expected < got);
        assert_true(bits_of(buffer_b[to + expected]) == bits_of(buffer_x[i]));
        assert_int_equal(b[to + expected++], ids[i]);
    }
    assert_int_equal(got, expected);
    assert_true(bits_of(buffer_b[end - 1]) == bits_of(buffer_x[end - 1]) || end - 1 < middle);
    assert_int_equal(b[end - 1], ids[end - 1]);
}

static void check_weight_units(const struct vec_kernels *k, int isa, int n, enum flavour flavour)
{
    static const float temperatures[] = {1, 0.7f, 100, 1e-3f, 0x1p-149f, 3.3f};
    static const float leasts[] = {0x1p-40f, 0, 1, 0.05f, 1e-9f};
    if (flavour == WITH_NAN) return;
    fill(buffer_x, n, flavour);
    float max = -INFINITY;
    for (int i = 0; i < n; i++) {
        if (isinf(buffer_x[i])) buffer_x[i] = 0.0f;
        if (flavour == ORDINARY) buffer_x[i] *= (float)(1 + n % 4);
        max = buffer_x[i] > max ? buffer_x[i] : max;
    }
    struct vec_weights w = {.max = max,
                            .temperature = temperatures[random_u32() % 6],
                            .least = leasts[random_u32() % 5]};
    uint64_t expected = 0;
    for (int i = 0; i < n; i++) {
        float weight = vec_expf((buffer_x[i] - max) / w.temperature);
        if (weight >= w.least) expected += (uint64_t)((double)weight * 1099511627776.0);
    }
    assert_true(scalar()->weight_units(&w, buffer_x, n) == expected);
    uint64_t got = k->weight_units(&w, buffer_x, n);
    if (got != expected)
        fail_msg("%d weights on %s are %llu units, not %llu (temperature %a, least %a)", n,
                 kern_isa_name((enum kern_isa)isa), (unsigned long long)got,
                 (unsigned long long)expected, (double)w.temperature, (double)w.least);
}

/* As many as may be summed at once, all of the largest weight. */
static void test_the_heaviest_weights_do_not_overflow(void **state)
{
    (void)state;
    static float x[VEC_UNITS_MAX];
    struct vec_weights w = {.max = 0.0f, .temperature = 1.0f, .least = 1.0f};
    for (int isa = 0; isa < KERN_ISAS; isa++)
        if (kern_isa_available((enum kern_isa)isa))
            assert_true(vec_kernels_for((enum kern_isa)isa)->weight_units(&w, x, VEC_UNITS_MAX) ==
                        (uint64_t)VEC_UNITS_MAX << 40);
}

/* Every weight from 2^-40 to 1, to within the float32 argument: units are exact, one by one. */
static void test_units_are_exact_for_every_weight(void **state)
{
    (void)state;
    for (int isa = 0; isa < KERN_ISAS; isa++) {
        if (!kern_isa_available((enum kern_isa)isa)) continue;
        const struct vec_kernels *k = vec_kernels_for((enum kern_isa)isa);
        struct vec_weights w = {.max = 0.0f, .temperature = 1.0f, .least = 0.0f};
        for (float x = -88.0f; x < 0.0f; x += 0.0037f) {
            uint64_t expected = (uint64_t)((double)vec_expf(x) * 1099511627776.0);
            assert_true(k->weight_units(&w, &x, 1) == expected);
        }
    }
}

static void check_argmax(const struct vec_kernels *k, int isa, int n, enum flavour flavour)
{
    fill(buffer_x, n, flavour);
    int expected = scalar()->argmax(buffer_x, n);
    if (flavour == WITH_NAN) assert_int_equal(expected, -1);
    if (k->argmax(buffer_x, n) != expected)
        fail_msg("argmax on %s gives %d, not %d", kern_isa_name((enum kern_isa)isa),
                 k->argmax(buffer_x, n), expected);
}

static void test_rms_norm(void **state)
{
    (void)state;
    for_all(check_rms_norm);
}
static void test_silu_mul(void **state)
{
    (void)state;
    for_all(check_silu_mul);
}
static void test_add(void **state)
{
    (void)state;
    for_all(check_add);
}
static void test_rope(void **state)
{
    (void)state;
    for_all(check_rope);
}
static void test_exp(void **state)
{
    (void)state;
    for_all(check_exp);
}
static void test_exp_sum(void **state)
{
    (void)state;
    for_all(check_exp_sum);
}
static void test_block_maxima(void **state)
{
    (void)state;
    for_all(check_block_maxima);
}
static void test_gather(void **state)
{
    (void)state;
    for_all(check_gather);
}
static void test_weight_units(void **state)
{
    (void)state;
    for_all(check_weight_units);
}
static void test_store_f16(void **state)
{
    (void)state;
    for_all(check_store_f16);
}
static void test_argmax(void **state)
{
    (void)state;
    for_all(check_argmax);
}

static void test_argmax_is_the_lowest_index_of_the_largest(void **state)
{
    (void)state;
    for (int isa = 0; isa < KERN_ISAS; isa++) {
        if (!kern_isa_available((enum kern_isa)isa)) continue;
        const struct vec_kernels *k = vec_kernels_for((enum kern_isa)isa);
        float x[100];
        for (int i = 0; i < 100; i++) x[i] = -1.0f;
        assert_int_equal(k->argmax(x, 100), 0);
        x[37] = x[61] = x[99] = 2.0f;
        assert_int_equal(k->argmax(x, 100), 37);
        x[37] = -0.0f;
        x[61] = -5.0f;
        x[99] = 0.0f;
        assert_int_equal(k->argmax(x, 100), 37);
        for (int i = 0; i < 100; i++) x[i] = -INFINITY;
        assert_int_equal(k->argmax(x, 100), 0);
        x[98] = NAN;
        assert_int_equal(k->argmax(x, 100), -1);
        assert_int_equal(k->argmax(x, 98), 0);
        assert_int_equal(k->argmax(x, 0), -1);
    }
}

/* Pages of random contents for one KV head, and queries for it. */
struct attention_case {
    int head_dim, rows, heads, positions;
    enum kv_type type;
    unsigned char *pages[16];
    float *q, *expected, *got;
};

static void fill_halves(const struct attention_case *c, int first, int used, enum flavour flavour)
{
    int halves = KV_PAGE_POSITIONS * c->head_dim;
    uint16_t *k = (uint16_t *)c->pages[first / KV_PAGE_POSITIONS];
    uint16_t *v = k + vec_kv_k_bytes(c->type, c->head_dim) / sizeof *k;
    for (int i = 0; i < halves; i++) {
        float scale = flavour == ANY ? 1000.0f : 1.0f;
        k[i] = quant_f32_to_f16(random_uniform(-scale, scale));
        v[i] = quant_f32_to_f16(random_uniform(-scale, scale));
        if (first + i % KV_PAGE_POSITIONS >= used) k[i] = (uint16_t)random_u32();
        if (first + i / c->head_dim >= used) v[i] = (uint16_t)random_u32();
    }
}

static void fill_bytes(const struct attention_case *c, int first, int used, enum flavour flavour)
{
    int dim = c->head_dim;
    unsigned char *k = c->pages[first / KV_PAGE_POSITIONS];
    unsigned char *v = k + vec_kv_k_bytes(c->type, dim);
    uint16_t *k_scales = (uint16_t *)(k + vec_kv_k_scales(dim));
    uint16_t *v_scales = (uint16_t *)(v + vec_kv_v_scales(dim));
    for (int i = 0; i < (dim + 3) / 4 * 4 * KV_PAGE_POSITIONS; i++)
        k[i] = (unsigned char)(first + i / 4 % KV_PAGE_POSITIONS < used && i / 128 * 4 + i % 4 < dim
                                   ? 1 + random_u32() % 255
                                   : random_u32());
    for (int i = 0; i < dim * KV_PAGE_POSITIONS; i++) {
        int quant = (int)(random_u32() % 255) - 127;
        v[i] = (unsigned char)(first + i / dim < used ? quant : (int)random_u32());
    }
    for (int i = 0; i < vec_kv_blocks(dim) * KV_PAGE_POSITIONS; i++) {
        float scale = flavour == ANY ? 8.0f : 0.01f;
        k_scales[i] = quant_f32_to_f16(random_uniform(0.0f, scale));
        v_scales[i] = quant_f32_to_f16(random_uniform(0.0f, scale));
        if (first + i % KV_PAGE_POSITIONS >= used) k_scales[i] = (uint16_t)random_u32();
        if (first + i % KV_PAGE_POSITIONS >= used) v_scales[i] = (uint16_t)random_u32();
    }
}

/* What lies beyond the positions attended to must not matter, whatever it is. */
static void attention_case_make(struct attention_case *c, enum flavour flavour)
{
    int used = c->positions + c->rows - 1;
    for (int first = 0; first < used; first += KV_PAGE_POSITIONS) {
        unsigned char **page = &c->pages[first / KV_PAGE_POSITIONS];
        *page = sov_alloc_aligned(vec_kv_k_bytes(c->type, c->head_dim) +
                                  vec_kv_v_bytes(c->type, c->head_dim));
        assert_non_null(*page);
        if (c->type == KV_TYPE_F16)
            fill_halves(c, first, used, flavour);
        else
            fill_bytes(c, first, used, flavour);
    }
    size_t n = (size_t)c->rows * (size_t)c->heads * (size_t)c->head_dim;
    c->q = sov_alloc(n, sizeof(float));
    c->expected = sov_alloc(n, sizeof(float));
    c->got = sov_alloc(n, sizeof(float));
    assert_true(c->q != NULL && c->expected != NULL && c->got != NULL);
    for (size_t i = 0; i < n; i++) c->q[i] = random_uniform(-2.0f, 2.0f);
    if (flavour == WITH_NAN) c->q[random_u32() % n] = NAN;
}

static void attention_case_free(struct attention_case *c)
{
    int used = c->positions + c->rows - 1;
    for (int p = 0; p * KV_PAGE_POSITIONS < used; p++) sov_free_aligned(c->pages[p]);
    sov_free(c->q);
    sov_free(c->expected);
    sov_free(c->got);
}

static struct vec_attention attention_call(const struct attention_case *c, float *out)
{
    size_t head = (size_t)c->head_dim, row = head * (size_t)c->heads;
    return (struct vec_attention){
        .q = c->q,
        .q_row = row,
        .q_head = head,
        .rows = c->rows,
        .heads = c->heads,
        .head_dim = c->head_dim,
        .positions = c->positions,
        .scale = 0.125f,
        .kv_type = c->type,
        .pages = c->pages,
        .k_offset = 0,
        .v_offset = vec_kv_k_bytes(c->type, c->head_dim),
        .out = out,
        .out_row = row,
        .out_head = head,
    };
}

static const int attention_dims[] = {1, 2, 7, 16, 18, 32, 40, 64, 80, 100, 128, 256, 300, 512};
static const int attention_positions[] = {1, 2, 15, 16, 17, 31, 32, 33, 64, 65, 100, 200};

static void check_attention(struct attention_case *c, enum flavour flavour)
{
    attention_case_make(c, flavour);
    int n = c->rows * c->heads * c->head_dim;
    struct vec_attention call = attention_call(c, c->expected);
    scalar()->attention(&call);
    for (int isa = 1; isa < KERN_ISAS; isa++) {
        if (!kern_isa_available((enum kern_isa)isa)) continue;
        call = attention_call(c, c->got);
        vec_kernels_for((enum kern_isa)isa)->attention(&call);
        assert_same_floats(c->expected, c->got, n, vec_kv_type_name(c->type), isa);
    }
    attention_case_free(c);
}

static void test_attention(void **state)
{
    (void)state;
    random_state = 77;
    for (size_t di = 0; di < sizeof attention_dims / sizeof *attention_dims; di++)
        for (size_t pi = 0; pi < sizeof attention_positions / sizeof *attention_positions; pi++)
            for (int repeat = 0; repeat < 4 * KV_TYPES; repeat++) {
                struct attention_case c = {.head_dim = attention_dims[di],
                                           .positions = attention_positions[pi],
                                           .rows = 1 + (int)(random_u32() % 9),
                                           .heads = 1 + (int)(random_u32() % 9),
                                           .type = (enum kv_type)(repeat % KV_TYPES)};
                static const enum flavour flavours[] = {ORDINARY, ORDINARY, ANY, WITH_NAN};
                check_attention(&c, flavours[repeat / KV_TYPES]);
            }
}

/* Many rows at once, as in a prompt's chunk: whole blocks of tiles, and what is left of them. */
static void test_attention_of_long_chunks(void **state)
{
    (void)state;
    random_state = 79;
    static const int rows[] = {64, 100, 131}, heads[] = {1, 3, 8}, dims[] = {40, 64, 96};
    for (int i = 0; i < 3; i++)
        for (int j = 0; j < 3; j++)
            for (int type = 0; type < KV_TYPES; type++) {
                struct attention_case c = {.head_dim = dims[(i + j) % 3],
                                           .positions = 1 + i * 77,
                                           .rows = rows[i],
                                           .heads = heads[j],
                                           .type = (enum kv_type)type};
                check_attention(&c, ORDINARY);
            }
}

/* A row's result does not depend on which rows are computed with it. */
static void test_attention_rows_are_independent(void **state)
{
    (void)state;
    random_state = 78;
    for (int i = 0; i < KERN_ISAS * KV_TYPES; i++) {
        int isa = i / KV_TYPES;
        if (!kern_isa_available((enum kern_isa)isa)) continue;
        struct attention_case c = {.head_dim = 48,
                                   .positions = 27,
                                   .rows = 11,
                                   .heads = 3,
                                   .type = (enum kv_type)(i % KV_TYPES)};
        attention_case_make(&c, ORDINARY);
        struct vec_attention call = attention_call(&c, c.expected);
        vec_kernels_for((enum kern_isa)isa)->attention(&call);
        for (int row = 0; row < c.rows; row++)
            for (int head = 0; head < c.heads; head++) {
                size_t at = (size_t)(row * c.heads + head) * 48;
                call = attention_call(&c, c.got + at);
                call.q += at;
                call.rows = call.heads = 1;
                call.positions += row;
                vec_kernels_for((enum kern_isa)isa)->attention(&call);
            }
        assert_same_floats(c.expected, c.got, c.rows * c.heads * 48, "attention by rows", isa);
        attention_case_free(&c);
    }
}

/* Element d of the key (or value) in slot of a q8_0 page. */
static float stored_key(const unsigned char *k, int dim, int slot, int d)
{
    const uint16_t *scales = (const uint16_t *)(k + vec_kv_k_scales(dim));
    return quant_f16_to_f32(scales[d / KV_BLOCK * KV_PAGE_POSITIONS + slot]) *
           (float)(k[(d / 4 * KV_PAGE_POSITIONS + slot) * 4 + d % 4] - 128);
}
static float stored_value(const unsigned char *v, int dim, int slot, int d)
{
    const uint16_t *scales = (const uint16_t *)(v + vec_kv_v_scales(dim));
    return quant_f16_to_f32(scales[d / KV_BLOCK * KV_PAGE_POSITIONS + slot]) *
           (float)((const int8_t *)v)[slot * dim + d];
}

/*
 * What comes out of a q8_0 page is within half a step (and the rounding of the scale to a half) of
 * what went in, for every slot and head size; a block with an infinity or a NaN is NaN.
 */
static void test_kv_store_q8_0(void **state)
{
    (void)state;
    random_state = 80;
    for (size_t i = 0; i < sizeof attention_dims / sizeof *attention_dims; i++) {
        int dim = attention_dims[i];
        size_t k_bytes = vec_kv_k_bytes(KV_TYPE_Q8_0, dim),
               v_bytes = vec_kv_v_bytes(KV_TYPE_Q8_0, dim);
        unsigned char *k = sov_alloc_aligned(k_bytes), *v = sov_alloc_aligned(v_bytes);
        assert_true(k != NULL && v != NULL);
        for (int slot = 0; slot < KV_PAGE_POSITIONS; slot++) {
            fill(buffer_x, dim, ORDINARY);
            fill(buffer_y, dim, ORDINARY);
            if (slot % 8 == 1) memset(buffer_x, 0, (size_t)dim * sizeof *buffer_x);
            if (slot % 8 == 2) buffer_y[random_u32() % (uint32_t)dim] = INFINITY;
            if (slot % 8 == 3) buffer_x[random_u32() % (uint32_t)dim] = NAN;
            vec_kv_store(scalar(), KV_TYPE_Q8_0, buffer_x, buffer_y, dim, k, v, slot);
            for (int d = 0; d < dim; d++) {
                float x = stored_key(k, dim, slot, d), y = stored_value(v, dim, slot, d);
                float step = 4.0f * (1.0f / 254 + 0x1p-11f);
                if (slot % 8 == 3 && x != x) continue;
                if (slot % 8 == 2 && y != y) continue;
                assert_true(fabsf(x - buffer_x[d]) <= step && fabsf(y - buffer_y[d]) <= step);
            }
            for (int d = 0; d < dim; d++) {
                float x = stored_key(k, dim, slot, d), y = stored_value(v, dim, slot, d);
                assert_true(buffer_x[d] == buffer_x[d] || x != x);
                assert_true(buffer_y[d] < INFINITY || y != y);
            }
        }
        sov_free_aligned(k);
        sov_free_aligned(v);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rms_norm),
        cmocka_unit_test(test_silu_mul),
        cmocka_unit_test(test_add),
        cmocka_unit_test(test_rope),
        cmocka_unit_test(test_exp),
        cmocka_unit_test(test_store_f16),
        cmocka_unit_test(test_exp_sum),
        cmocka_unit_test(test_block_maxima),
        cmocka_unit_test(test_gather),
        cmocka_unit_test(test_weight_units),
        cmocka_unit_test(test_the_heaviest_weights_do_not_overflow),
        cmocka_unit_test(test_units_are_exact_for_every_weight),
        cmocka_unit_test(test_argmax),
        cmocka_unit_test(test_argmax_is_the_lowest_index_of_the_largest),
        cmocka_unit_test(test_attention),
        cmocka_unit_test(test_attention_of_long_chunks),
        cmocka_unit_test(test_attention_rows_are_independent),
        cmocka_unit_test(test_kv_store_q8_0),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
