/* SPDX-License-Identifier: Apache-2.0 */
/* Who is next: the order of the queue by itself, and of requests in an engine with one slot. */

#include <errno.h>
#include <semaphore.h>

#include "engine/queue.h"
#include "tests/engine_group.h"

enum { JOBS = 300 };

static struct engine_job jobs[JOBS];

/* Jobs [begin, end) wait. */
static void push(struct queue *q, int begin, int end, bool continues)
{
    for (int i = begin; i < end; i++) {
        jobs[i] = (struct engine_job){.continues = continues, .deadline_ns = INT64_MAX};
        queue_push(q, &jobs[i]);
    }
}

static int take(struct queue *q)
{
    struct engine_job *job = queue_next(q);
    if (job == NULL) return -1;
    queue_take(q, job);
    return (int)(job - jobs);
}

static void expect_order(struct queue *q, const int *order, int count)
{
    for (int i = 0; i < count; i++) assert_int_equal(take(q), order[i]);
    assert_true(queue_is_empty(q));
    assert_int_equal(take(q), -1);
}

static void those_that_continue_go_first(void **state)
{
    (void)state;
    struct queue q = {0};
    assert_true(queue_is_empty(&q));
    push(&q, 0, 3, false);
    push(&q, 3, 5, true);
    push(&q, 5, 6, false);
    push(&q, 6, 7, true);
    expect_order(&q, (int[]){3, 4, 6, 0, 1, 2, 5}, 7);
    /* One that comes after another was chosen does not push that one out. */
    push(&q, 0, 2, false);
    struct engine_job *next = queue_next(&q);
    push(&q, 2, 3, true);
    queue_take(&q, next);
    expect_order(&q, (int[]){2, 1}, 2);
}

static void who_was_preempted_goes_before_all(void **state)
{
    (void)state;
    struct queue q = {0};
    push(&q, 0, 4, false);
    push(&q, 4, 6, true);
    for (int i = 0; i < 2; i++) assert_int_equal(take(&q), 4 + i);
    for (int i = 0; i < 2; i++) assert_int_equal(take(&q), i);
    push(&q, 6, 8, true);
    static const int YOUNGEST_FIRST[] = {1, 0, 5};
    for (int i = 0; i < 3; i++) {
        jobs[YOUNGEST_FIRST[i]].sequence.preemptions = 1;
        queue_push_preempted(&q, &jobs[YOUNGEST_FIRST[i]]);
    }
    expect_order(&q, (int[]){5, 0, 1, 6, 7, 2, 3}, 7);
    jobs[0].sequence.preemptions = 2; /* alone */
    queue_push_preempted(&q, &jobs[0]);
    push(&q, 1, 2, true);
    expect_order(&q, (int[]){0, 1}, 2);
}

/* However many continue, each that waits is passed by so many of them at most. */
static void nobody_is_passed_for_ever(void **state)
{
    (void)state;
    struct queue q = {0};
    push(&q, 0, 2, false);
    push(&q, 2, JOBS, true);
    int next = 2;
    for (int fresh = 0; fresh < 2; fresh++) {
        for (int i = 0; i < QUEUE_PASSES_MAX; i++) assert_int_equal(take(&q), next++);
        if (fresh == 0) { /* who is preempted is not kept back by it */
            struct engine_job *job = &jobs[next - 1];
            job->sequence.preemptions = 1;
            queue_push_preempted(&q, job);
            assert_int_equal(take(&q), next - 1);
        }
        assert_int_equal(take(&q), fresh);
    }
    for (int i = next; i < JOBS; i++) assert_int_equal(take(&q), i);
    assert_true(queue_is_empty(&q));
}

static bool is_late(const void *user, const struct engine_job *job)
{
    const int64_t *now = user;
    return job->deadline_ns <= *now;
}

static void some_are_taken_out_of_the_middle(void **state)
{
    (void)state;
    struct queue q = {0};
    int64_t now = 50;
    push(&q, 0, 3, false);
    push(&q, 3, 6, true);
    assert_true(queue_earliest_deadline(&q) == INT64_MAX);
    jobs[0].deadline_ns = 40;
    jobs[4].deadline_ns = 50;
    jobs[5].deadline_ns = 60;
    assert_int_equal(queue_earliest_deadline(&q), 40);
    struct engine_job *dropped = queue_drop(&q, is_late, &now);
    assert_ptr_equal(dropped, &jobs[4]);
    assert_ptr_equal(dropped->next, &jobs[0]);
    assert_null(dropped->next->next);
    assert_int_equal(queue_earliest_deadline(&q), 60);
    assert_null(queue_drop(&q, is_late, &now));
    expect_order(&q, (int[]){3, 5, 1, 2}, 4);
    push(&q, 0, 2, true);
    now = INT64_MAX;
    assert_ptr_equal(queue_drop(&q, is_late, &now), &jobs[0]);
    assert_true(queue_is_empty(&q));
    push(&q, 0, 1, false);
    expect_order(&q, (int[]){0}, 1);
}

/* ---- in the engine ---- */

static sem_t notes;
static int ended; /* the engine's thread writes it, and who waited for as many notes reads */

static void note_end(void *user)
{
    *(int *)user = ++ended;
    sem_post(&notes);
}

/* Before any of these jobs is read: who is read and released sooner than he is told of is not told any more. */
static void await_notes(int count)
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += FIXTURE_WAIT_MS / 1000;
    for (int i = 0; i < count; i++)
        while (sem_timedwait(&notes, &until) != 0) assert_int_equal(errno, EINTR);
}

/* Beside one slot, which is taken: those that continue end before those that came before them. */
static void parts_of_what_has_begun_end_before_others_begin(void **state)
{
    (void)state;
    enum { MANY = 8 };
    struct engine_options options = fixture_options(&model);
    options.parallel = 1;
    struct engine *engine = fixture_engine(&options);
    struct engine_job *handles[MANY];
    int places[MANY] = {0};
    static struct fixture_result r, alone;
    int32_t prompt[40];
    struct fixture_gate gate;
    fixture_prompt(prompt, 40, 3);
    struct engine_request request = fixture_request(prompt, 40, 5);
    request.notify_at_end = true;
    fixture_run(engine, &request, &alone);
    fixture_gate_close(&gate, engine);
    ended = 0;
    for (int i = 0; i < MANY; i++) {
        request.continues = i >= MANY / 2;
        assert_int_equal(engine_submit(engine, &request, note_end, &places[i], &handles[i], NULL),
                         SOV_OK);
    }
    fixture_gate_open(&gate);
    await_notes(MANY);
    for (int i = 0; i < MANY; i++) {
        fixture_finish(handles[i], &r);
        fixture_expect_same(&r, &alone);
    }
    for (int i = 0; i < MANY; i++) assert_int_equal(places[i], 1 + (i + MANY / 2) % MANY);
    engine_free(engine);
}

/* Work that always continues does not keep another request out. */
static void a_request_gets_its_turn_beside_work_without_end(void **state)
{
    (void)state;
    struct engine_options options = fixture_options(&model);
    options.parallel = 1;
    struct engine *engine = fixture_engine(&options);
    enum { WORK = 2 * QUEUE_PASSES_MAX };
    struct engine_job *work[WORK], *waits;
    int place = 0;
    static struct fixture_result r;
    int32_t prompt[4];
    struct fixture_gate gate;
    fixture_prompt(prompt, 4, 3);
    struct engine_request request = fixture_request(prompt, 4, 1);
    fixture_gate_close(&gate, engine);
    request.notify_at_end = true;
    ended = 0;
    assert_int_equal(engine_submit(engine, &request, note_end, &place, &waits, NULL), SOV_OK);
    request.continues = true;
    int others[WORK];
    for (int i = 0; i < WORK; i++)
        assert_int_equal(engine_submit(engine, &request, note_end, &others[i], &work[i], NULL),
                         SOV_OK);
    fixture_gate_open(&gate);
    await_notes(WORK + 1);
    fixture_finish(waits, &r);
    assert_int_equal(r.finish, ENGINE_FINISH_LENGTH);
    for (int i = 0; i < WORK; i++) fixture_finish(work[i], &r);
    assert_int_equal(place, QUEUE_PASSES_MAX + 1);
    engine_free(engine);
}

int main(void)
{
    sem_init(&notes, 0, 0);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(those_that_continue_go_first),
        cmocka_unit_test(who_was_preempted_goes_before_all),
        cmocka_unit_test(nobody_is_passed_for_ever),
        cmocka_unit_test(some_are_taken_out_of_the_middle),
        cmocka_unit_test(parts_of_what_has_begun_end_before_others_begin),
        cmocka_unit_test(a_request_gets_its_turn_beside_work_without_end),
    };
    return cmocka_run_group_tests(tests, setup_model, teardown_model);
}
