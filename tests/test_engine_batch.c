/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Many requests at once: none may notice the others. Results are compared with the same request run
 * alone, by text and by the digest of all logits.
 */
#include <pthread.h>
#include <stdatomic.h>

#include "engine/kv.h"
#include "tests/engine_group.h"
#include "tests/random_fixture.h"

static uint64_t random_state = 88172645463325252u;

static int below(int n)
{
    return (int)test_below(&random_state, (uint32_t)n);
}

enum { JOBS = 32, PROMPT_MAX = 140 };

struct plan {
    int32_t prompt[PROMPT_MAX];
    struct engine_request request;
    struct fixture_result alone;
};
static struct plan plans[JOBS];

/* Prompts of all lengths, some of which begin alike; greedy and sampled. */
static void make_plans(void)
{
    for (int i = 0; i < JOBS; i++) {
        struct plan *p = &plans[i];
        int n = 1 + below(PROMPT_MAX);
        fixture_prompt(p->prompt, PROMPT_MAX, (uint32_t)(i % 3 == 0 ? 1 : i));
        p->request = fixture_request(p->prompt, n, 1 + below(40));
        p->request.sampling.temperature = i % 2 ? 0.8f : 0;
        p->request.sampling.seed = (uint64_t)i;
        p->request.sampling.frequency_penalty = i % 5 == 0 ? 0.5f : 0;
    }
}

static void run_alone(void)
{
    struct engine_options options = fixture_options(&model);
    options.parallel = 1;
    options.prefix_reuse = false;
    struct engine *engine = fixture_engine(&options);
    for (int i = 0; i < JOBS; i++) {
        fixture_run(engine, &plans[i].request, &plans[i].alone);
        assert_int_equal(plans[i].alone.finish, ENGINE_FINISH_LENGTH);
    }
    engine_free(engine);
}

static void expect_alone(const struct plan *p, const struct fixture_result *r)
{
    fixture_expect_same(&p->alone, r);
    assert_int_equal(r->text_length, p->alone.text_length);
    assert_memory_equal(r->text, p->alone.text, r->text_length);
}

static void expect_all_free(struct engine *engine)
{
    struct engine_stats stats = read_stats(engine);
    assert_int_equal(stats.running, 0);
    assert_int_equal(stats.waiting, 0);
    assert_int_equal(stats.kv_pages_used, 0);
    assert_true(stats.kv_pages_cached <= stats.kv_pages_total);
}

static void test_thirty_two_at_once_are_each_as_if_alone(void **state)
{
    (void)state;
    static const struct {
        int threads, parallel, chunk;
        bool reuse;
    } cases[] = {{2, 32, 64, true}, {3, 32, 5, false}, {1, 5, 1, true}, {1, 8, 512, true}};
    static struct fixture_result r;
    for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++) {
        struct engine_options options = fixture_options(&model);
        struct pool *pool;
        assert_int_equal(pool_create(cases[c].threads, &pool, NULL), SOV_OK);
        options.pool = pool;
        options.parallel = cases[c].parallel;
        options.prefill_chunk = cases[c].chunk;
        options.prefix_reuse = cases[c].reuse;
        struct engine *engine = fixture_engine(&options);
        struct engine_job *jobs[JOBS];
        for (int i = 0; i < JOBS; i++) jobs[i] = fixture_submit(engine, &plans[i].request);
        for (int i = 0; i < JOBS; i++) {
            fixture_finish(jobs[i], &r);
            expect_alone(&plans[i], &r);
        }
        expect_all_free(engine);
        engine_free(engine);
        pool_free(pool);
    }
}

/*
 * Jobs join whenever one ends, and every third is cancelled after a random number of its tokens, or
 * at once.
 */
static void test_random_joins_and_cancels_change_no_other(void **state)
{
    (void)state;
    enum { ROUNDS = 300, AT_ONCE = 12 };
    struct engine_options options = fixture_options(&model);
    options.parallel = 8;
    options.prefill_chunk = 48;
    options.kv_bytes_max = model_kv_page_bytes(model.model) * 40; /* some must wait for pages */
    struct engine *engine = fixture_engine(&options);
    struct engine_job *jobs[AT_ONCE] = {NULL};
    int planned[AT_ONCE], cancel_at[AT_ONCE], seen[AT_ONCE], cancelled = 0, finished = 0;
    static struct fixture_result results[AT_ONCE];
    for (int started = 0; started < ROUNDS || finished < ROUNDS;) {
        int slot = below(AT_ONCE);
        if (jobs[slot] == NULL) {
            if (started == ROUNDS) continue;
            started++;
            planned[slot] = below(JOBS);
            cancel_at[slot] = below(3) == 0 ? below(20) : -1;
            seen[slot] = 0;
            memset(&results[slot], 0, sizeof results[slot]);
            jobs[slot] = fixture_submit(engine, &plans[planned[slot]].request);
        }
        struct fixture_result *r = &results[slot];
        struct engine_event event;
        if (cancel_at[slot] == seen[slot]) engine_job_cancel(jobs[slot]);
        assert_true(engine_job_wait(jobs[slot], FIXTURE_WAIT_MS));
        assert_true(engine_job_next(jobs[slot], &event));
        fixture_take(r, &event);
        seen[slot]++;
        if (r->finish == ENGINE_FINISH_NONE) continue;
        const struct plan *p = &plans[planned[slot]];
        if (r->error == SOV_ERR_CANCELLED) {
            assert_true(cancel_at[slot] >= 0);
            assert_memory_equal(r->tokens, p->alone.tokens, (size_t)r->count * sizeof r->tokens[0]);
            cancelled++;
        } else {
            expect_alone(p, r);
        }
        engine_job_release(jobs[slot]);
        jobs[slot] = NULL;
        finished++;
    }
    assert_in_range(cancelled, 10, ROUNDS / 2);
    struct engine_stats stats = read_stats(engine);
    assert_int_equal(stats.requests_total, ROUNDS);
    assert_int_equal(stats.requests_cancelled_total, cancelled);
    assert_int_equal(stats.requests_failed_total, 0);
    expect_all_free(engine);
    engine_free(engine);
}

enum { CLIENTS = 4, CLIENT_REQUESTS = 40 };
struct client {
    struct engine *engine;
    pthread_t thread;
    uint32_t random;
    atomic_int notified;
    int finished, left, refused;
    bool right;
};

static void client_notify(void *user)
{
    atomic_fetch_add((atomic_int *)user, 1);
}

static int client_below(struct client *c, int n)
{
    c->random = c->random * 1664525u + 1013904223u;
    return (int)((c->random >> 8) % (uint32_t)n);
}

/* Assertions belong to the main thread: what is wrong here is noted in c->right. */
static void client_request(struct client *c)
{
    const struct plan *p = &plans[client_below(c, JOBS)];
    int leave_after = client_below(c, 3) == 0 ? client_below(c, 10) : -1, count = 0;
    struct engine_job *job;
    enum sov_error rc =
        engine_submit(c->engine, &p->request, client_notify, &c->notified, &job, NULL);
    if (rc != SOV_OK) {
        c->refused++;
        c->right = c->right && rc == SOV_ERR_BUSY;
        return;
    }
    struct engine_event event;
    enum engine_finish finish = ENGINE_FINISH_NONE;
    while (finish == ENGINE_FINISH_NONE && count != leave_after) {
        if (!engine_job_wait(job, FIXTURE_WAIT_MS) || !engine_job_next(job, &event)) {
            c->right = false;
            break;
        }
        if (event.token >= 0)
            c->right = c->right && count < p->alone.count && event.token == p->alone.tokens[count];
        count += event.token >= 0;
        finish = event.finish;
        if (finish != ENGINE_FINISH_NONE)
            c->right = c->right && finish == ENGINE_FINISH_LENGTH && count == p->alone.count &&
                       memcmp(event.digest, p->alone.digest, sizeof event.digest) == 0;
        engine_event_free(&event);
    }
    c->finished += finish != ENGINE_FINISH_NONE;
    c->left += finish == ENGINE_FINISH_NONE;
    engine_job_release(job);
}

static void *client_main(void *arg)
{
    struct client *c = arg;
    for (int i = 0; i < CLIENT_REQUESTS; i++) client_request(c);
    return NULL;
}

/*
 * Clients on threads of their own, a third of whose requests are let go in the middle; the queue is
 * short.
 */
static void test_clients_on_many_threads_get_what_is_theirs(void **state)
{
    (void)state;
    struct engine_options options = fixture_options(&model);
    options.parallel = 2;
    options.queue_max = 1;
    struct engine *engine = fixture_engine(&options);
    static struct client clients[CLIENTS];
    for (uint32_t i = 0; i < CLIENTS; i++) {
        clients[i] = (struct client){.engine = engine, .random = i, .right = true};
        assert_int_equal(pthread_create(&clients[i].thread, NULL, client_main, &clients[i]), 0);
    }
    struct engine_stats stats;
    int finished = 0, left = 0, refused = 0;
    for (int i = 0; i < CLIENTS; i++) {
        stats = read_stats(engine);
        assert_true(stats.running <= 2 && stats.kv_pages_used <= stats.kv_pages_total);
        pthread_join(clients[i].thread, NULL);
        assert_true(clients[i].right);
        finished += clients[i].finished;
        left += clients[i].left;
        refused += clients[i].refused;
    }
    engine_shutdown(engine, -1);
    stats = read_stats(engine);
    assert_int_equal(finished + left + refused, CLIENTS * CLIENT_REQUESTS);
    assert_int_equal(stats.requests_total, finished + left);
    assert_int_equal(stats.requests_rejected_total, refused);
    assert_true(finished > 0 && left > 0);
    expect_all_free(engine);
    engine_free(engine);
}

static void test_few_pages_make_requests_wait_and_not_fail(void **state)
{
    (void)state;
    struct engine_options options = fixture_options(&model);
    options.parallel = 16;
    options.context = 192;
    options.kv_bytes_max = model_kv_page_bytes(model.model) * 6; /* one context */
    struct engine *engine = fixture_engine(&options);
    struct engine_job *jobs[JOBS];
    static struct fixture_result r;
    for (int i = 0; i < JOBS; i++) jobs[i] = fixture_submit(engine, &plans[i].request);
    for (int i = 0; i < JOBS; i++) {
        fixture_finish(jobs[i], &r);
        expect_alone(&plans[i], &r);
    }
    struct engine_stats stats = read_stats(engine);
    assert_int_equal(stats.kv_pages_total, 6);
    assert_int_equal(stats.requests_total, JOBS);
    expect_all_free(engine);
    engine_free(engine);
}

static void test_the_prefix_cache_spares_work_and_changes_nothing(void **state)
{
    (void)state;
    struct engine_options options = fixture_options(&model);
    struct engine *engine = fixture_engine(&options);
    int32_t prompt[300];
    static struct fixture_result first, again, other, longer, hand;
    fixture_prompt(prompt, 300, 40);
    struct engine_request request = fixture_request(prompt, 129, 40);
    fixture_run(engine, &request, &first);
    assert_int_equal(first.usage.cached_tokens, 0);
    fixture_run(engine, &request, &again);
    assert_int_equal(again.usage.cached_tokens, 128);
    fixture_expect_same(&first, &again);
    request.prompt_count = 128; /* the last token is always computed */
    fixture_run(engine, &request, &other);
    assert_int_equal(other.usage.cached_tokens, 127);
    fixture_by_hand(&model, &request, &hand, NULL);
    fixture_expect_same(&other, &hand);
    /* The next turn of a conversation: prompt, answer, more. 129 + 39 answer tokens were run. */
    memcpy(prompt + 129, first.tokens, 40 * sizeof prompt[0]);
    request.prompt_count = 200;
    fixture_run(engine, &request, &longer);
    assert_int_equal(longer.usage.cached_tokens, 168);
    fixture_by_hand(&model, &request, &hand, NULL);
    fixture_expect_same(&longer, &hand);
    request.no_prefix_reuse = true;
    fixture_run(engine, &request, &again);
    assert_int_equal(again.usage.cached_tokens, 0);
    fixture_expect_same(&again, &hand);
    struct engine_stats stats = read_stats(engine);
    assert_int_equal(stats.cached_tokens_total, 128 + 127 + 168);
    assert_int_equal(stats.prefix_lookups_total, 4);
    assert_int_equal(stats.prefix_hits_total, 3);
    assert_int_equal(stats.prompt_tokens_total, 129 + 129 + 128 + 200 + 200);
    engine_free(engine);
}

static void test_a_request_that_opts_out_leaves_no_pages(void **state)
{
    (void)state;
    struct engine_options options = fixture_options(&model);
    struct engine *engine = fixture_engine(&options);
    static struct fixture_result r;
    int32_t prompt[100];
    fixture_prompt(prompt, 100, 41);
    struct engine_request request = fixture_request(prompt, 100, 5);
    request.no_prefix_reuse = true;
    fixture_run(engine, &request, &r);
    struct engine_stats stats = read_stats(engine);
    assert_int_equal(stats.kv_pages_cached, 0);
    request.no_prefix_reuse = false;
    fixture_run(engine, &request, &r);
    assert_int_equal(r.usage.cached_tokens, 0);
    engine_free(engine);
}

/* As for n choices of one prompt: it is read once, whoever comes first. */
static void test_equal_prompts_at_once_are_computed_once(void **state)
{
    (void)state;
    enum { COPIES = 8, PROMPT = 161 };
    struct engine_options options = fixture_options(&model);
    options.parallel = COPIES;
    options.prefill_chunk = 40;
    struct engine *engine = fixture_engine(&options);
    int32_t prompt[PROMPT];
    struct engine_job *jobs[COPIES];
    static struct fixture_result results[COPIES], hand;
    fixture_prompt(prompt, PROMPT, 42);
    struct engine_request request = fixture_request(prompt, PROMPT, 8);
    request.sampling.temperature = 1;
    struct fixture_gate gate;
    fixture_gate_close(&gate, engine);
    for (int i = 0; i < COPIES; i++) {
        request.sampling.seed = (uint64_t)i;
        jobs[i] = fixture_submit(engine, &request);
    }
    fixture_gate_open(&gate);
    for (int i = 0; i < COPIES; i++) {
        fixture_finish(jobs[i], &results[i]);
        request.sampling.seed = (uint64_t)i;
        fixture_by_hand(&model, &request, &hand, NULL);
        fixture_expect_same(&results[i], &hand);
        assert_int_equal(results[i].usage.cached_tokens, i == 0 ? 0 : PROMPT - 1);
    }
    engine_free(engine);
}

/* Prompts that part in the middle of a page: what is equal before is computed once all the same. */
static void test_prompts_share_their_beginning_to_the_token(void **state)
{
    (void)state;
    enum { COPIES = 6, PROMPT = 90 };
    static const int equal[] = {77, 64, 40, 31, 9};
    for (size_t c = 0; c < sizeof equal / sizeof equal[0]; c++) {
        struct engine_options options = fixture_options(&model);
        options.parallel = COPIES;
        options.prefill_chunk = c % 2 ? 13 : 200;
        struct engine *engine = fixture_engine(&options);
        int32_t prompts[COPIES][PROMPT];
        struct engine_job *jobs[COPIES];
        static struct fixture_result r, hand;
        struct fixture_gate gate;
        fixture_gate_close(&gate, engine);
        for (int i = 0; i < COPIES; i++) {
            fixture_prompt(prompts[i], PROMPT, 43);
            for (int k = equal[c]; k < PROMPT; k++) prompts[i][k] = 5 + (k + 7 * i) % 200;
            struct engine_request request = fixture_request(prompts[i], PROMPT, 8);
            jobs[i] = fixture_submit(engine, &request);
        }
        fixture_gate_open(&gate);
        for (int i = 0; i < COPIES; i++) {
            struct engine_request request = fixture_request(prompts[i], PROMPT, 8);
            fixture_finish(jobs[i], &r);
            fixture_by_hand(&model, &request, &hand, NULL);
            fixture_expect_same(&r, &hand);
            assert_int_equal(r.usage.cached_tokens, i == 0 ? 0 : equal[c]);
        }
        engine_free(engine);
    }
}

/* Turns of a conversation whose lengths are not those of pages; each is read where the last ended. */
static void test_the_next_turn_reads_only_what_is_new(void **state)
{
    (void)state;
    struct engine_options options = fixture_options(&model);
    struct engine *engine = fixture_engine(&options);
    static struct fixture_result r, hand;
    int32_t tokens[512];
    int count = 11, known = 0;
    fixture_prompt(tokens, 512, 44);
    for (int turn = 0; turn < 6; turn++) {
        struct engine_request request = fixture_request(tokens, count, 17 + turn);
        fixture_run(engine, &request, &r);
        fixture_by_hand(&model, &request, &hand, NULL);
        fixture_expect_same(&r, &hand);
        assert_int_equal(r.usage.cached_tokens, known);
        memcpy(tokens + count, r.tokens, (size_t)r.count * sizeof tokens[0]);
        known = count + r.count - 1; /* the last token of an answer was not run */
        count += r.count + 13;
    }
    struct engine_stats stats = read_stats(engine);
    assert_int_equal(stats.prefix_lookups_total, 6);
    assert_int_equal(stats.prefix_hits_total, 5);
    assert_int_equal(stats.prefix_evictions_total, 0);
    /* A page that was part full is not kept beside the page that says more. */
    assert_int_equal(stats.kv_pages_cached, kv_pages_for(known));
    engine_free(engine);
}

static void test_old_prefixes_make_room_for_new_ones(void **state)
{
    (void)state;
    enum { PROMPTS = 20, PROMPT = 97 };
    struct engine_options options = fixture_options(&model);
    options.context = 128;
    options.kv_bytes_max = model_kv_page_bytes(model.model) * 10;
    struct engine *engine = fixture_engine(&options);
    static struct fixture_result r, hand;
    int32_t prompt[PROMPT];
    for (int round = 0; round < 2; round++) {
        for (uint32_t i = 0; i < PROMPTS; i++) {
            fixture_prompt(prompt, PROMPT, 50 + i);
            struct engine_request request = fixture_request(prompt, PROMPT, 3);
            fixture_run(engine, &request, &r);
            fixture_by_hand(&model, &request, &hand, NULL);
            fixture_expect_same(&r, &hand);
            assert_int_equal(r.usage.cached_tokens, 0); /* long evicted when it comes round again */
            fixture_run(engine, &request, &r);
            assert_int_equal(r.usage.cached_tokens, 96);
            fixture_expect_same(&r, &hand);
        }
    }
    struct engine_stats stats = read_stats(engine);
    assert_int_equal(stats.kv_pages_total, 10);
    assert_in_range(stats.kv_pages_cached, 6, 10);
    assert_true(stats.prefix_evictions_total > 30);
    engine_free(engine);
}

/* A counter that several jobs' notifications share, to see in which order things happen. */
static atomic_int order_clock;
struct order {
    int first_event;
};
static void note_first_event(void *user)
{
    struct order *o = user;
    int now = atomic_fetch_add(&order_clock, 1) + 1;
    if (o->first_event == 0) o->first_event = now;
}

static struct engine_job *submit_noted(struct engine *engine, const struct engine_request *request,
                                       struct order *o)
{
    struct engine_job *job;
    struct sov_errbuf err;
    if (engine_submit(engine, request, note_first_event, o, &job, &err) != SOV_OK)
        fail_msg("%s", err.message);
    return job;
}

/*
 * With one prompt token per step, a short prompt still gets through beside a long one, and the long
 * one gets on too.
 */
static void test_a_short_prompt_does_not_wait_behind_a_long_one(void **state)
{
    (void)state;
    static const int chunks[] = {1, 2, 16};
    int32_t prompt[400];
    static struct fixture_result r;
    for (size_t c = 0; c < sizeof chunks / sizeof chunks[0]; c++) {
        struct engine_options options = fixture_options(&model);
        options.prefill_chunk = chunks[c];
        struct engine *engine = fixture_engine(&options);
        struct order orders[4] = {{0}};
        struct engine_job *jobs[4];
        static const int lengths[4] = {400, 10, 380, 12};
        struct fixture_gate gate;
        fixture_gate_close(&gate, engine);
        atomic_store(&order_clock, 0);
        for (int i = 0; i < 4; i++) {
            fixture_prompt(prompt, lengths[i], 60 + (uint32_t)i);
            /* Two tokens: the first one's notification comes before the last event. */
            struct engine_request request = fixture_request(prompt, lengths[i], 2);
            jobs[i] = submit_noted(engine, &request, &orders[i]);
        }
        fixture_gate_open(&gate);
        for (int i = 0; i < 4; i++) fixture_finish(jobs[i], &r);
        assert_true(orders[1].first_event < orders[0].first_event);
        assert_true(orders[3].first_event < orders[0].first_event);
        assert_true(orders[0].first_event <
                    orders[2].first_event); /* the older of the long ones first */
        engine_free(engine);
    }
}

static void test_requests_start_in_the_order_they_came(void **state)
{
    (void)state;
    enum { MANY = 10 };
    struct engine_options options = fixture_options(&model);
    options.parallel = 1;
    struct engine *engine = fixture_engine(&options);
    struct order orders[MANY] = {{0}};
    struct engine_job *jobs[MANY];
    static struct fixture_result r;
    int32_t prompt[100];
    atomic_store(&order_clock, 0);
    for (int i = 0; i < MANY; i++) {
        int n = i % 2 ? 3 : 100;
        fixture_prompt(prompt, n, 70 + (uint32_t)i);
        struct engine_request request = fixture_request(prompt, n, 3);
        jobs[i] = submit_noted(engine, &request, &orders[i]);
    }
    for (int i = 0; i < MANY; i++) fixture_finish(jobs[i], &r);
    for (int i = 1; i < MANY; i++) assert_true(orders[i - 1].first_event < orders[i].first_event);
    engine_free(engine);
}

/*
 * When memory is out at any one allocation of a request, that request fails cleanly or is right,
 * and the next is right.
 */
static void test_memory_failures_hit_one_request_and_not_the_engine(void **state)
{
    (void)state;
    struct engine_options options = fixture_options(&model);
    options.context = 256;
    struct engine *engine = fixture_engine(&options);
    const struct plan *p = &plans[1];
    const char *stop = "never in a text of these bytes";
    size_t stop_length = strlen(stop);
    struct engine_request request = p->request;
    struct sampling_bias bias = {.token = 3, .bias = 0};
    request.stops = &stop;
    request.stop_lengths = &stop_length;
    request.stop_count = 1;
    request.sampling.bias = &bias;
    request.sampling.bias_count = 1;
    request.top_logprobs = 2;
    static struct fixture_result r;
    int refused = 0, failed = 0, fine = 0;
    for (long n = 0; n < 60 || fine == 0; n++) {
        struct engine_job *job;
        struct sov_errbuf err;
        sov_mem_fail_after(n, false);
        enum sov_error rc = engine_submit(engine, &request, NULL, NULL, &job, &err);
        if (rc != SOV_OK) {
            sov_mem_fail_after(-1, false);
            assert_int_equal(rc, SOV_ERR_NOMEM);
            assert_non_null(strstr(err.message, "out of memory"));
            refused++;
        } else {
            fixture_finish(job, &r);
            sov_mem_fail_after(-1, false);
            if (r.finish == ENGINE_FINISH_ERROR) {
                assert_int_equal(r.error, SOV_ERR_NOMEM);
                assert_non_null(strstr(r.message, "out of memory"));
                failed++;
            } else {
                expect_alone(p, &r);
                fine++;
            }
        }
        if (n % 6 != 0) continue;
        fixture_run(engine, &p->request, &r);
        expect_alone(p, &r);
    }
    assert_true(refused >= 5);
    assert_true(failed >= 5);
    expect_all_free(engine);
    engine_free(engine);
}

static void test_no_memory_for_kv_pages_says_what_to_lower(void **state)
{
    (void)state;
    struct engine_options options = fixture_options(&model);
    struct engine *engine = fixture_engine(&options);
    static struct fixture_result r;
    bool seen = false;
    for (long n = 0; n < 40 && !seen; n++) {
        struct engine_job *job;
        sov_mem_fail_after(n, true);
        if (engine_submit(engine, &plans[0].request, NULL, NULL, &job, NULL) == SOV_OK)
            fixture_finish(job, &r);
        else
            r.message[0] = '\0';
        sov_mem_fail_after(-1, false);
        seen = strstr(r.message, "KV cache") != NULL;
        if (seen) {
            assert_int_equal(r.error, SOV_ERR_NOMEM);
            assert_non_null(strstr(r.message, "--ctx"));
            assert_non_null(strstr(r.message, "--parallel"));
            assert_non_null(strstr(r.message, "MiB"));
        }
    }
    assert_true(seen);
    fixture_run(engine, &plans[0].request, &r);
    expect_alone(&plans[0], &r);
    engine_free(engine);
}

static int setup_plans(void **state)
{
    setup_model(state);
    make_plans();
    run_alone();
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_thirty_two_at_once_are_each_as_if_alone),
        cmocka_unit_test(test_random_joins_and_cancels_change_no_other),
        cmocka_unit_test(test_clients_on_many_threads_get_what_is_theirs),
        cmocka_unit_test(test_few_pages_make_requests_wait_and_not_fail),
        cmocka_unit_test(test_the_prefix_cache_spares_work_and_changes_nothing),
        cmocka_unit_test(test_a_request_that_opts_out_leaves_no_pages),
        cmocka_unit_test(test_equal_prompts_at_once_are_computed_once),
        cmocka_unit_test(test_prompts_share_their_beginning_to_the_token),
        cmocka_unit_test(test_the_next_turn_reads_only_what_is_new),
        cmocka_unit_test(test_old_prefixes_make_room_for_new_ones),
        cmocka_unit_test(test_a_short_prompt_does_not_wait_behind_a_long_one),
        cmocka_unit_test(test_requests_start_in_the_order_they_came),
        cmocka_unit_test(test_memory_failures_hit_one_request_and_not_the_engine),
        cmocka_unit_test(test_no_memory_for_kv_pages_says_what_to_lower),
    };
    return cmocka_run_group_tests(tests, setup_plans, teardown_model);
}
