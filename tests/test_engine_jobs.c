/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The handle of a request: its events, notification, cancelling, releasing; the queue's bound;
 * stopping the engine.
 */
#include <poll.h>
#include <stdatomic.h>
#include <time.h>

#include "base/clock.h"
#include "base/mem.h"
#include "tests/engine_group.h"

static struct engine *start_engine(int parallel, int queue_max)
{
    struct engine_options options = fixture_options(&model);
    options.parallel = parallel;
    options.queue_max = queue_max;
    return fixture_engine(&options);
}

/* A reader that sleeps on its own condition and looks for events only after a notification. */
struct reader {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool notified;
    atomic_int notifications;
    atomic_bool over; /* the job was released: a notification now is a mistake */
    atomic_int late;
};

static void reader_notify(void *user)
{
    struct reader *r = user;
    atomic_fetch_add(&r->notifications, 1);
    if (atomic_load(&r->over)) atomic_fetch_add(&r->late, 1);
    pthread_mutex_lock(&r->lock);
    r->notified = true;
    pthread_cond_signal(&r->changed);
    pthread_mutex_unlock(&r->lock);
}

static void reader_init(struct reader *r)
{
    memset(r, 0, sizeof *r);
    pthread_mutex_init(&r->lock, NULL);
    pthread_cond_init(&r->changed, NULL);
}

static void reader_free(struct reader *r)
{
    pthread_cond_destroy(&r->changed);
    pthread_mutex_destroy(&r->lock);
}

/* False when a minute and more goes by without a notification. */
static bool reader_sleep(struct reader *r)
{
    struct timespec deadline;
    clock_gettime(CLOCK_REALTIME, &deadline);
    deadline.tv_sec += FIXTURE_WAIT_MS / 1000;
    int rc = 0;
    pthread_mutex_lock(&r->lock);
    while (!r->notified && rc == 0) rc = pthread_cond_timedwait(&r->changed, &r->lock, &deadline);
    bool notified = r->notified;
    r->notified = false;
    pthread_mutex_unlock(&r->lock);
    return notified;
}

static void test_a_reader_woken_by_notifications_misses_nothing(void **state)
{
    (void)state;
    struct engine *engine = start_engine(4, 8);
    int32_t prompt[40];
    static struct fixture_result result;
    for (uint32_t round = 0; round < 30; round++) {
        struct reader reader;
        struct engine_job *job;
        struct engine_event event;
        reader_init(&reader);
        fixture_prompt(prompt, 40, round);
        struct engine_request request = fixture_request(prompt, 1 + (int)round, 20);
        assert_int_equal(engine_submit(engine, &request, reader_notify, &reader, &job, NULL),
                         SOV_OK);
        memset(&result, 0, sizeof result);
        while (result.finish == ENGINE_FINISH_NONE) {
            if (!reader_sleep(&reader))
                fail_msg("a notification was lost after %d tokens", result.count);
            while (engine_job_next(job, &event)) fixture_take(&result, &event);
        }
        assert_int_equal(result.count, 20);
        engine_job_release(job);
        assert_true(atomic_load(&reader.notifications) >= 1);
        reader_free(&reader);
    }
    engine_free(engine);
}

/* Text is made where it is read (without stop strings): that is where memory for it can be out. */
static void test_a_reader_without_memory_gets_an_error_as_the_last_event(void **state)
{
    (void)state;
    struct engine *engine = start_engine(4, 8);
    int32_t prompt[8];
    struct reader reader;
    struct engine_job *job;
    struct engine_event event;
    reader_init(&reader);
    fixture_prompt(prompt, 8, 3);
    struct engine_request request = fixture_request(prompt, 8, 20);
    request.notify_at_end = true;
    assert_int_equal(engine_submit(engine, &request, reader_notify, &reader, &job, NULL), SOV_OK);
    assert_true(reader_sleep(&reader));
    sov_mem_fail_after(0, true);
    bool ended = false;
    for (int i = 0; i < 20 && !ended; i++) { /* tokens without text need no memory */
        assert_true(engine_job_next(job, &event));
        ended = event.finish != ENGINE_FINISH_NONE;
        if (ended) {
            assert_int_equal(event.finish, ENGINE_FINISH_ERROR);
            assert_int_equal(event.error, SOV_ERR_NOMEM);
            assert_string_equal(event.message, "out of memory for the text of a token");
        }
        engine_event_free(&event);
    }
    sov_mem_fail_after(-1, false);
    assert_true(ended);
    assert_false(engine_job_next(job, &event));
    assert_false(engine_job_wait(job, 0));
    engine_job_release(job);
    reader_free(&reader);
    engine_free(engine);
}

static void test_a_reader_of_whole_answers_is_notified_once(void **state)
{
    (void)state;
    struct engine *engine = start_engine(4, 8);
    int32_t prompt[40];
    static struct fixture_result result;
    struct reader reader;
    struct engine_job *job;
    struct engine_event event;
    reader_init(&reader);
    fixture_prompt(prompt, 40, 5);
    struct engine_request request = fixture_request(prompt, 40, 20);
    request.notify_at_end = true;
    int64_t begin = clock_monotonic_ns(), last = begin;
    assert_int_equal(engine_submit(engine, &request, reader_notify, &reader, &job, NULL), SOV_OK);
    assert_true(reader_sleep(&reader));
    memset(&result, 0, sizeof result);
    while (engine_job_next(job, &event)) {
        if (event.token >= 0) { /* each says when it was picked */
            assert_true(event.picked_ns >= last && event.picked_ns <= clock_monotonic_ns());
            last = event.picked_ns;
        }
        fixture_take(&result, &event);
    }
    assert_int_equal(result.count, 20);
    assert_int_equal(result.finish, ENGINE_FINISH_LENGTH);
    engine_job_release(job);
    assert_int_equal(atomic_load(&reader.notifications), 1);
    reader_free(&reader);
    engine_free(engine);
}

static void test_a_slow_reader_finds_everything_in_order(void **state)
{
    (void)state;
    struct engine *engine = start_engine(2, 8);
    int32_t prompt[10];
    static struct fixture_result slow, hand;
    fixture_prompt(prompt, 10, 1);
    struct engine_request request = fixture_request(prompt, 10, 300);
    struct engine_job *job = fixture_submit(engine, &request);
    engine_shutdown(engine, -1); /* returns when the job has run to its end, unread */
    fixture_finish(job, &slow);
    fixture_by_hand(&model, &request, &hand, NULL);
    fixture_expect_same(&slow, &hand);
    assert_int_equal(slow.finish, ENGINE_FINISH_LENGTH);
    engine_free(engine);
}

struct canceller {
    struct engine_job *_Atomic job;
    int calls;
    int cancel_at;
};

static void cancel_on_call(void *user)
{
    struct canceller *c = user;
    if (++c->calls == c->cancel_at) engine_job_cancel(atomic_load(&c->job));
}

/* Cancelled from its own notification, that is, between two steps: not one more token is made. */
static void test_a_cancelled_job_ends_within_a_step(void **state)
{
    (void)state;
    struct engine *engine = start_engine(2, 8);
    int32_t prompt[10];
    static struct fixture_result r;
    fixture_prompt(prompt, 10, 2);
    for (int at = 1; at < 6; at++) {
        struct canceller c = {.cancel_at = at};
        struct fixture_gate gate;
        struct engine_job *job;
        struct engine_request request = fixture_request(prompt, 10, 400);
        fixture_gate_close(&gate, engine);
        assert_int_equal(engine_submit(engine, &request, cancel_on_call, &c, &job, NULL), SOV_OK);
        atomic_store(&c.job, job);
        fixture_gate_open(&gate);
        fixture_finish(job, &r);
        assert_int_equal(r.finish, ENGINE_FINISH_ERROR);
        assert_int_equal(r.error, SOV_ERR_CANCELLED);
        assert_int_equal(r.count, at);
        assert_int_equal(r.usage.completion_tokens, at);
        struct engine_stats stats = read_stats(engine);
        assert_int_equal(stats.running, 0);
        assert_int_equal(stats.kv_pages_used, 0);
        assert_int_equal(stats.requests_cancelled_total, at);
    }
    engine_free(engine);
}

static void test_a_waiting_job_can_be_cancelled(void **state)
{
    (void)state;
    struct engine *engine = start_engine(1, 8);
    int32_t prompt[10];
    static struct fixture_result r;
    fixture_prompt(prompt, 10, 3);
    struct engine_request request = fixture_request(prompt, 10, 5);
    struct fixture_gate gate;
    fixture_gate_close(&gate, engine);
    struct engine_job *first = fixture_submit(engine, &request),
                      *second = fixture_submit(engine, &request);
    struct engine_job *third = fixture_submit(engine, &request);
    assert_int_equal(read_stats(engine).waiting, 3);
    engine_job_cancel(second);
    fixture_gate_open(&gate);
    fixture_finish(second, &r);
    assert_int_equal(r.error, SOV_ERR_CANCELLED);
    assert_int_equal(r.count, 0);
    fixture_finish(third, &r);
    assert_int_equal(r.finish, ENGINE_FINISH_LENGTH);
    fixture_finish(first, &r);
    assert_int_equal(r.finish, ENGINE_FINISH_LENGTH);
    assert_int_equal(read_stats(engine).waiting, 0);
    engine_free(engine);
}

static void test_a_late_job_ends_within_a_step_and_others_do_not(void **state)
{
    (void)state;
    struct engine *engine = start_engine(2, 8);
    static struct fixture_result r;
    struct fixture_gate gate;
    struct engine_job *late, *waiting, *in_time, *endless;
    int32_t prompt[40];
    fixture_prompt(prompt, 40, 5);
    struct engine_request request = fixture_request(prompt, 40, 400);
    fixture_gate_close(&gate, engine);
    int64_t soon = clock_monotonic_ns() + 1000000;
    request.deadline_ns = soon;
    late = fixture_submit(engine, &request);
    waiting = fixture_submit(engine, &request);
    request.max_tokens = 3;
    request.deadline_ns = INT64_MAX - 1;
    in_time = fixture_submit(engine, &request);
    request.deadline_ns = 0;
    endless = fixture_submit(engine, &request);
    while (clock_monotonic_ns() <= soon) continue;
    fixture_gate_open(&gate);
    struct engine_job *const ends[2] = {late, waiting};
    for (int i = 0; i < 2; i++) {
        fixture_finish(ends[i], &r);
        assert_int_equal(r.finish, ENGINE_FINISH_ERROR);
        assert_int_equal(r.error, SOV_ERR_TIMEOUT);
        assert_string_equal(r.message, "the deadline passed");
        assert_int_equal(r.usage.completion_tokens, 0);
    }
    struct engine_job *const whole[2] = {in_time, endless};
    for (int i = 0; i < 2; i++) {
        fixture_finish(whole[i], &r);
        assert_int_equal(r.finish, ENGINE_FINISH_LENGTH);
        assert_int_equal(r.count, 3);
    }
    /* One that runs: it has what it has, and a digest of that. */
    struct engine_event event;
    request.max_tokens = 450;
    request.deadline_ns = clock_monotonic_ns() + 1000000;
    struct engine_job *job = fixture_submit(engine, &request);
    int tokens = 0;
    do {
        assert_true(engine_job_wait(job, FIXTURE_WAIT_MS));
        assert_true(engine_job_next(job, &event));
        tokens += event.token >= 0;
        if (event.finish == ENGINE_FINISH_NONE) engine_event_free(&event);
    } while (event.finish == ENGINE_FINISH_NONE);
    if (event.finish == ENGINE_FINISH_ERROR) assert_int_equal(event.error, SOV_ERR_TIMEOUT);
    assert_int_equal(event.usage.completion_tokens, tokens);
    engine_event_free(&event);
    engine_job_release(job);
    struct engine_stats stats = read_stats(engine);
    assert_int_equal(stats.running + stats.waiting, 0);
    assert_int_equal(stats.requests_failed_total, 0);
    engine_free(engine);
}

static void test_a_released_job_is_cancelled_and_not_notified_again(void **state)
{
    (void)state;
    struct engine *engine = start_engine(4, 8);
    int32_t prompt[10];
    static struct fixture_result r;
    fixture_prompt(prompt, 10, 4);
    struct engine_request request = fixture_request(prompt, 10, 400);
    struct reader reader;
    reader_init(&reader);
    for (int round = 0; round < 40; round++) {
        struct engine_job *job;
        atomic_store(&reader.over, false);
        assert_int_equal(engine_submit(engine, &request, reader_notify, &reader, &job, NULL),
                         SOV_OK);
        if (round % 2 == 0) assert_true(reader_sleep(&reader));
        engine_job_release(job);
        atomic_store(&reader.over, true);
        request.max_tokens = 2;
        fixture_run(engine, &request, &r); /* steps go on after the release */
        request.max_tokens = 400;
        assert_int_equal(atomic_load(&reader.late), 0);
        pthread_mutex_lock(&reader.lock);
        reader.notified = false;
        pthread_mutex_unlock(&reader.lock);
    }
    engine_shutdown(engine, -1);
    struct engine_stats stats = read_stats(engine);
    assert_int_equal(stats.running + stats.waiting, 0);
    assert_int_equal(stats.requests_cancelled_total, 40);
    engine_free(engine);
    reader_free(&reader);
}

struct line_taker {
    atomic_int lines;
    atomic_bool over;
    atomic_int late;
};

static void take_line(void *user, int position, const float *logits, int vocab)
{
    (void)position;
    (void)logits;
    (void)vocab;
    struct line_taker *t = user;
    atomic_fetch_add(&t->lines, 1);
    if (atomic_load(&t->over)) atomic_fetch_add(&t->late, 1);
    poll(NULL, 0, 1); /* the step is in the middle of its lines when the job is released */
}

static void test_a_released_job_gets_no_more_prompt_logits(void **state)
{
    (void)state;
    struct engine *engine = start_engine(1, 8);
    int32_t prompt[30];
    static struct fixture_result r;
    fixture_prompt(prompt, 30, 10);
    struct line_taker taker = {0};
    struct engine_request request = fixture_request(prompt, 30, 5);
    request.prompt_logits = take_line;
    request.prompt_logits_user = &taker;
    struct engine_job *job = fixture_submit(engine, &request);
    while (atomic_load(&taker.lines) < 3) poll(NULL, 0, 1);
    engine_job_release(job);
    atomic_store(&taker.over, true);
    request.prompt_logits = NULL;
    fixture_run(engine, &request, &r); /* the released one's step is over */
    assert_int_equal(r.finish, ENGINE_FINISH_LENGTH);
    assert_int_equal(atomic_load(&taker.late), 0);
    assert_in_range(atomic_load(&taker.lines), 3, 29);
    engine_free(engine);
}

static void test_a_full_queue_refuses_and_recovers(void **state)
{
    (void)state;
    enum { QUEUE = 3, PARALLEL = 2, CONTINUING = 2 };
    struct engine *engine = start_engine(PARALLEL, QUEUE);
    int32_t prompt[10];
    static struct fixture_result r;
    struct sov_errbuf err;
    struct engine_job *jobs[QUEUE + PARALLEL + CONTINUING], *refused;
    fixture_prompt(prompt, 10, 5);
    struct engine_request request = fixture_request(prompt, 10, 5);
    struct fixture_gate gate;
    fixture_gate_close(&gate, engine); /* one of the two slots */
    for (int i = 0; i < QUEUE + PARALLEL - 1; i++) jobs[i] = fixture_submit(engine, &request);
    for (int i = 0; i < 4; i++) {
        assert_int_equal(engine_submit(engine, &request, NULL, NULL, &refused, &err), SOV_ERR_BUSY);
        assert_null(refused);
        assert_non_null(strstr(err.message, "try again later"));
    }
    assert_int_equal(read_stats(engine).requests_rejected_total, 4);
    request.continues = true; /* part of what was let in before */
    for (int i = 0; i < CONTINUING; i++)
        jobs[QUEUE + PARALLEL - 1 + i] = fixture_submit(engine, &request);
    fixture_gate_open(&gate);
    for (int i = 0; i < QUEUE + PARALLEL - 1 + CONTINUING; i++) {
        fixture_finish(jobs[i], &r);
        assert_int_equal(r.finish, ENGINE_FINISH_LENGTH);
    }
    request.continues = false;
    fixture_run(engine, &request, &r);
    assert_int_equal(r.finish, ENGINE_FINISH_LENGTH);
    struct engine_stats stats = read_stats(engine);
    assert_int_equal(stats.requests_total, 1 + QUEUE + PARALLEL - 1 + CONTINUING + 1);
    assert_int_equal(stats.requests_rejected_total, 4);
    engine_free(engine);
}

static void test_waiting_has_a_limit_and_an_ended_job_does_not_wait(void **state)
{
    (void)state;
    struct engine *engine = start_engine(1, 8);
    int32_t prompt[4] = {7, 8, 9, 10};
    static struct fixture_result r;
    struct engine_request request = fixture_request(prompt, 4, 3);
    struct fixture_gate gate;
    fixture_gate_close(&gate, engine);
    struct engine_job *job = fixture_submit(engine, &request);
    int64_t begin = clock_monotonic_ns();
    assert_false(engine_job_wait(job, 20));
    assert_true(clock_monotonic_ns() - begin >= 20 * 1000000ll);
    assert_false(engine_job_wait(job, 0));
    fixture_gate_open(&gate);
    assert_true(engine_job_wait(job, -1));
    fixture_finish(job, &r); /* checks that waiting for an ended job returns */
    engine_free(engine);
}

/*
 * Stretches every step, so that a job of hundreds of tokens cannot end before a test stops the
 * engine.
 */
static void notify_slowly(void *user)
{
    (void)user;
    poll(NULL, 0, 5);
}

static void test_stopping_at_once_fails_what_runs_and_what_waits(void **state)
{
    (void)state;
    struct engine *engine = start_engine(2, 8);
    int32_t prompt[10];
    static struct fixture_result r;
    fixture_prompt(prompt, 10, 6);
    struct engine_request request = fixture_request(prompt, 10, 500);
    struct engine_job *jobs[5], *none;
    struct sov_errbuf err;
    for (int i = 0; i < 5; i++)
        assert_int_equal(engine_submit(engine, &request, notify_slowly, NULL, &jobs[i], &err),
                         SOV_OK);
    assert_true(engine_job_wait(jobs[1], FIXTURE_WAIT_MS)); /* both slots are running */
    engine_shutdown(engine, 0);
    for (int i = 0; i < 5; i++) {
        fixture_finish(jobs[i], &r);
        assert_int_equal(r.finish, ENGINE_FINISH_ERROR);
        assert_int_equal(r.error, SOV_ERR_SHUTDOWN);
        assert_int_equal(r.count > 0, i < 2);
    }
    assert_int_equal(engine_submit(engine, &request, NULL, NULL, &none, &err), SOV_ERR_SHUTDOWN);
    engine_shutdown(engine, 100); /* again, harmless */
    struct engine_stats stats = read_stats(engine);
    assert_int_equal(stats.running + stats.waiting, 0);
    assert_int_equal(stats.kv_pages_used, 0);
    assert_int_equal(stats.requests_failed_total, 5);
    engine_free(engine);
}

static void test_stopping_with_grace_lets_running_jobs_finish(void **state)
{
    (void)state;
    struct engine *engine = start_engine(2, 8);
    int32_t prompt[10];
    static struct fixture_result r, hand;
    fixture_prompt(prompt, 10, 7);
    struct engine_request request = fixture_request(prompt, 10, 100);
    struct engine_job *jobs[4];
    struct fixture_gate gate;
    fixture_gate_close(&gate, engine);
    for (int i = 0; i < 4; i++) jobs[i] = fixture_submit(engine, &request);
    fixture_gate_open(&gate);
    assert_true(engine_job_wait(jobs[0], FIXTURE_WAIT_MS));
    assert_true(engine_job_wait(jobs[1], FIXTURE_WAIT_MS));
    engine_shutdown(engine, FIXTURE_WAIT_MS);
    fixture_by_hand(&model, &request, &hand, NULL);
    int whole = 0;
    for (int i = 0; i < 4; i++) {
        fixture_finish(jobs[i], &r);
        if (r.finish == ENGINE_FINISH_LENGTH) {
            fixture_expect_same(&r, &hand);
            whole++;
        } else {
            assert_int_equal(r.error, SOV_ERR_SHUTDOWN);
            assert_int_equal(r.count, 0);
        }
    }
    assert_true(whole >= 2);
    engine_free(engine);
}

static void test_grace_that_runs_out_fails_the_rest(void **state)
{
    (void)state;
    struct engine *engine = start_engine(1, 8);
    int32_t prompt[10];
    static struct fixture_result r;
    struct engine_job *job;
    fixture_prompt(prompt, 10, 8);
    struct engine_request request = fixture_request(prompt, 10, 500);
    assert_int_equal(engine_submit(engine, &request, notify_slowly, NULL, &job, NULL), SOV_OK);
    assert_true(engine_job_wait(job, FIXTURE_WAIT_MS));
    int64_t begin = clock_monotonic_ns();
    engine_shutdown(engine, 50);
    assert_true(clock_monotonic_ns() - begin >= 50 * 1000000ll);
    fixture_finish(job, &r);
    assert_int_equal(r.error, SOV_ERR_SHUTDOWN);
    assert_in_range(r.count, 1, 499);
    engine_free(engine);
}

static void test_an_idle_engine_uses_no_cpu(void **state)
{
    (void)state;
    struct engine *engine = start_engine(4, 8);
    int32_t prompt[4] = {7, 8, 9, 10};
    static struct fixture_result r;
    struct engine_request request = fixture_request(prompt, 4, 3);
    fixture_run(engine, &request, &r);
    struct timespec before, after;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &before);
    poll(NULL, 0, 300); /* the time over which use is measured */
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &after);
    double used_ms = (double)(after.tv_sec - before.tv_sec) * 1e3 +
                     (double)(after.tv_nsec - before.tv_nsec) * 1e-6;
    if (used_ms > 30) fail_msg("%.1f ms of CPU in 300 ms of idleness", used_ms);
    uint64_t steps = read_stats(engine).steps_total;
    assert_int_equal(steps, 3);
    engine_free(engine);
}

static void test_figures_add_up(void **state)
{
    (void)state;
    struct engine *engine = start_engine(4, 8);
    int32_t prompt[70];
    static struct fixture_result r;
    fixture_prompt(prompt, 70, 9);
    struct engine_request request = fixture_request(prompt, 70, 11);
    fixture_run(engine, &request, &r);
    engine_shutdown(engine, -1); /* so that the last step is counted */
    struct engine_stats stats = read_stats(engine);
    assert_int_equal(stats.parallel, 4);
    assert_int_equal(stats.requests_total, 1);
    assert_int_equal(stats.prompt_tokens_total, 70);
    assert_int_equal(stats.generated_tokens_total, 11);
    assert_int_equal(stats.steps_total, 2 + 10); /* 64 and 6 prompt tokens, then one token each */
    assert_int_equal(stats.step_rows_total, 70 + 10);
    assert_true(stats.model_ns_total > 0 && stats.step_ns_total >= stats.model_ns_total);
    assert_int_equal(stats.kv_page_bytes, model_kv_page_bytes(model.model));
    assert_int_equal(stats.kv_pages_total, 4 * 512 / KV_PAGE_POSITIONS);
    assert_int_equal(stats.kv_pages_cached, 80 / KV_PAGE_POSITIONS + 1); /* the last is part full */
    engine_free(engine);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_reader_woken_by_notifications_misses_nothing),
        cmocka_unit_test(test_a_reader_without_memory_gets_an_error_as_the_last_event),
        cmocka_unit_test(test_a_reader_of_whole_answers_is_notified_once),
        cmocka_unit_test(test_a_slow_reader_finds_everything_in_order),
        cmocka_unit_test(test_a_cancelled_job_ends_within_a_step),
        cmocka_unit_test(test_a_waiting_job_can_be_cancelled),
        cmocka_unit_test(test_a_late_job_ends_within_a_step_and_others_do_not),
        cmocka_unit_test(test_a_released_job_is_cancelled_and_not_notified_again),
        cmocka_unit_test(test_a_released_job_gets_no_more_prompt_logits),
        cmocka_unit_test(test_a_full_queue_refuses_and_recovers),
        cmocka_unit_test(test_waiting_has_a_limit_and_an_ended_job_does_not_wait),
        cmocka_unit_test(test_stopping_at_once_fails_what_runs_and_what_waits),
        cmocka_unit_test(test_stopping_with_grace_lets_running_jobs_finish),
        cmocka_unit_test(test_grace_that_runs_out_fails_the_rest),
        cmocka_unit_test(test_an_idle_engine_uses_no_cpu),
        cmocka_unit_test(test_figures_add_up),
    };
    return cmocka_run_group_tests(tests, setup_model, teardown_model);
}
