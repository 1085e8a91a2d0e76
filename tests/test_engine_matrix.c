/* SPDX-License-Identifier: Apache-2.0 */
/* run-tests: seconds=900 */
/*
 * The bit-exactness matrix: one request must give the same digest of all its logits, and the same
 * tokens, on every ISA x {1, 2, 4} threads x batch {1, 3, 8} with different neighbours x prefill
 * chunk {1, 7, 64, 512} x prefix computed or reused, for every weight type and both types of KV. What it must give is
 * computed by hand, one position per call, on the scalar kernels.
 *
 * By default each type runs a subset of the 216 combinations in which every combination of any
 * three settings occurs (chosen differently for each type); SOVEREIGN_MATRIX=full in the
 * environment runs all of them. In a sanitized run (SAN in the environment) each type runs the
 * first few of its subset.
 */
#include "tests/engine_fixture.h"

enum { PROMPT = 100, ANSWER = 6, PARALLEL = 9, SHARED = 70 };

enum { F_ISA, F_THREADS, F_BATCH, F_CHUNK, F_REUSE, FACTORS };
static const int factor_levels[FACTORS] = {KERN_ISAS, 3, 3, 4, 2};
enum { COMBINATIONS = KERN_ISAS * 3 * 3 * 4 * 2, SANITIZED_COMBINATIONS = 3 };
enum { LEVELS_MAX = KERN_ISAS > 4 ? KERN_ISAS : 4 };
/* The step from one combination to the next that is tried: with no factor in common, all are. */
enum { COMBINATION_STEP = 7 };
_Static_assert(COMBINATIONS % COMBINATION_STEP != 0, "some combinations would never be tried");
static const int thread_counts[] = {1, 2, 4}, batches[] = {1, 3, 8}, chunks[] = {1, 7, 64, 512};

/* Weight types; and at the end int8 keys and values, once for any of them. */
static const struct {
    const char *weights;
    enum kv_type kv;
} types[] = {
    {"f32", KV_TYPE_F16},  {"f16", KV_TYPE_F16},   {"bf16", KV_TYPE_F16}, {"q8_0", KV_TYPE_F16},
    {"q4_0", KV_TYPE_F16}, {"q4_1", KV_TYPE_F16},  {"q5_0", KV_TYPE_F16}, {"q5_1", KV_TYPE_F16},
    {"q2_k", KV_TYPE_F16}, {"q3_k", KV_TYPE_F16},  {"q4_k", KV_TYPE_F16}, {"q5_k", KV_TYPE_F16},
    {"q6_k", KV_TYPE_F16}, {"q8_0", KV_TYPE_Q8_0},
};
enum { TYPES = sizeof types / sizeof types[0] };

static struct pool *pools[3];

static void decode_combination(int index, int level[FACTORS])
{
    for (int f = 0; f < FACTORS; f++) {
        level[f] = index % factor_levels[f];
        index /= factor_levels[f];
    }
}

/* Which of the ten triples of settings, at which levels: a number below TRIPLES * 64. */
enum {
    TRIPLES = FACTORS * (FACTORS - 1) * (FACTORS - 2) / 6,
    TRIPLE_LEVELS = LEVELS_MAX * LEVELS_MAX * LEVELS_MAX
};
static void list_triples(const int level[FACTORS], int triples[TRIPLES])
{
    int n = 0;
    for (int a = 0; a < FACTORS; a++)
        for (int b = a + 1; b < FACTORS; b++)
            for (int c = b + 1; c < FACTORS; c++, n++)
                triples[n] =
                    n * TRIPLE_LEVELS + (level[a] * LEVELS_MAX + level[b]) * LEVELS_MAX + level[c];
}

/*
 * Marks the combinations to run: all, or greedily those that have the most triples that none before
 * has. Combinations are tried in an order that depends on the type. ISAs this CPU lacks are left
 * out.
 */
static int choose(bool run[COMBINATIONS], int type)
{
    const char *mode = getenv("SOVEREIGN_MATRIX"), *sanitizers = getenv("SAN");
    int limit = sanitizers != NULL && sanitizers[0] != '\0' ? SANITIZED_COMBINATIONS : COMBINATIONS;
    bool full = mode != NULL && strcmp(mode, "full") == 0,
         covered[TRIPLES * TRIPLE_LEVELS] = {false};
    int chosen = 0, level[FACTORS], triples[TRIPLES];
    memset(run, 0, COMBINATIONS * sizeof *run);
    for (;;) {
        int best = -1, best_new = 0;
        for (int i = 0; i < COMBINATIONS; i++) {
            int index = (i * COMBINATION_STEP + type * 17) % COMBINATIONS, fresh = 0;
            decode_combination(index, level);
            if (run[index] || !kern_isa_available((enum kern_isa)level[F_ISA])) continue;
            list_triples(level, triples);
            for (int t = 0; t < TRIPLES; t++) fresh += !covered[triples[t]];
            if (full) fresh = 1;
            if (fresh > best_new) {
                best = index;
                best_new = fresh;
            }
        }
        if (best < 0 || chosen == limit) return chosen;
        run[best] = true;
        chosen++;
        decode_combination(best, level);
        list_triples(level, triples);
        for (int t = 0; t < TRIPLES; t++) covered[triples[t]] = true;
    }
}

static void target_request(const int32_t *prompt, struct engine_request *request)
{
    *request = fixture_request(prompt, PROMPT, ANSWER);
    request->sampling.temperature = 0.8f;
    request->sampling.seed = 1234;
}

/*
 * Neighbours of all lengths, others for every seed; one begins like the target, so that running
 * pages are shared too.
 */
static void submit_neighbours(struct engine *engine, const int32_t *target, int count,
                              uint32_t seed, struct engine_job **jobs)
{
    static int32_t prompt[PROMPT + 20];
    for (int i = 0; i < count; i++) {
        int length = 1 + (int)((seed * 7 + (uint32_t)i * 13) % 45);
        fixture_prompt(prompt, PROMPT + 20, seed * 100 + (uint32_t)i);
        if (i == 0) {
            memcpy(prompt, target, SHARED * sizeof prompt[0]);
            length = SHARED + 1 + (int)(seed % 10);
        }
        struct engine_request request =
            fixture_request(prompt, length, 1 + (int)((seed + (uint32_t)i * 5) % 9));
        request.digest_logits = false;
        jobs[i] = fixture_submit(engine, &request);
    }
}

static void run_combination(const struct fixture_model *m, const int level[FACTORS], uint32_t seed,
                            struct fixture_result *r)
{
    int32_t prompt[PROMPT];
    struct engine_job *neighbours[8] = {NULL}, *job;
    struct engine_request request;
    struct fixture_gate gate;
    static struct fixture_result other;
    struct engine_options options = fixture_options(m);
    options.pool = pools[level[F_THREADS]];
    options.parallel = PARALLEL;
    options.prefill_chunk = chunks[level[F_CHUNK]];
    struct engine *engine = fixture_engine(&options);
    fixture_prompt(prompt, PROMPT, 1);
    target_request(prompt, &request);
    if (level[F_REUSE] != 0) { /* leave the prompt's pages behind */
        request.max_tokens = 0;
        fixture_run(engine, &request, &other);
        request.max_tokens = ANSWER;
    } else {
        request.no_prefix_reuse = true;
    }
    fixture_gate_close(&gate, engine); /* so that all of the batch starts in one step */
    int count = batches[level[F_BATCH]] - 1;
    int before = (int)(seed % (uint32_t)(count + 1));
    submit_neighbours(engine, prompt, before, seed, neighbours);
    job = fixture_submit(engine, &request);
    submit_neighbours(engine, prompt, count - before, seed + 50000, neighbours + before);
    fixture_gate_open(&gate);
    fixture_finish(job, r);
    for (int i = 0; i < count; i++) fixture_finish(neighbours[i], &other);
    assert_int_equal(r->usage.cached_tokens, level[F_REUSE] != 0 ? PROMPT - 1 : 0);
    engine_free(engine);
}

static void test_one_type(void **state)
{
    int type = *(int *)*state;
    struct fixture_model models[KERN_ISAS];
    static struct fixture_result expected, got;
    int32_t prompt[PROMPT];
    struct engine_request request;
    char path[256];
    for (int isa = 0; isa < KERN_ISAS; isa++) {
        if (!kern_isa_available((enum kern_isa)isa)) continue;
        fixture_make_file(path, types[type].weights, "256", "512");
        fixture_open_kv(&models[isa], path, (enum kern_isa)isa, types[type].kv, 1);
    }
    fixture_prompt(prompt, PROMPT, 1);
    target_request(prompt, &request);
    fixture_by_hand(&models[KERN_ISA_SCALAR], &request, &expected, NULL);
    bool run[COMBINATIONS];
    int count = choose(run, type);
    for (int i = 0; i < COMBINATIONS; i++) {
        int level[FACTORS];
        decode_combination(i, level);
        if (!run[i]) continue;
        run_combination(&models[level[F_ISA]], level, (uint32_t)(type * COMBINATIONS + i), &got);
        if (got.count != expected.count ||
            memcmp(got.digest, expected.digest, sizeof got.digest) != 0 ||
            memcmp(got.tokens, expected.tokens, ANSWER * sizeof got.tokens[0]) != 0)
            fail_msg(
                "%s, %s KV: other logits with isa %s, %d threads, batch %d, chunk %d, prefix %s",
                types[type].weights, vec_kv_type_name(types[type].kv),
                kern_isa_name((enum kern_isa)level[F_ISA]), thread_counts[level[F_THREADS]],
                batches[level[F_BATCH]], chunks[level[F_CHUNK]],
                level[F_REUSE] ? "reused" : "computed");
    }
    print_message("# %s, %s KV: %d combinations\n", types[type].weights,
                  vec_kv_type_name(types[type].kv), count);
    for (int isa = 0; isa < KERN_ISAS; isa++)
        if (kern_isa_available((enum kern_isa)isa)) fixture_model_free(&models[isa]);
}

static int setup_pools(void **state)
{
    (void)state;
    for (int i = 0; i < 3; i++)
        assert_int_equal(pool_create(thread_counts[i], &pools[i], NULL), SOV_OK);
    return 0;
}

static int teardown_pools(void **state)
{
    (void)state;
    for (int i = 0; i < 3; i++) pool_free(pools[i]);
    return 0;
}

int main(void)
{
    static int numbers[TYPES];
    struct CMUnitTest tests[TYPES];
    for (int i = 0; i < TYPES; i++) {
        numbers[i] = i;
        tests[i] = (struct CMUnitTest){.name = types[i].kv == KV_TYPE_F16 ? types[i].weights
                                                                          : "q8_0 keys and values",
                                       .test_func = test_one_type,
                                       .initial_state = &numbers[i]};
    }
    return cmocka_run_group_tests_name("bit-exactness matrix", tests, setup_pools, teardown_pools);
}
