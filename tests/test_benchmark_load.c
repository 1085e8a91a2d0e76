/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The load of the query benchmarks against a server of this test that answers as it is told, and the
 * limits of the machine, which are positive and add up.
 */
#include <math.h>
#include <netinet/in.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "benchmark/accesses.h"
#include "benchmark/http_client.h"
#include "benchmark/limits.h"
#include "benchmark/section.h"

/* One connection after the other, one request after the other. */
struct fake {
    int listener, port;
    const char *answer; /* to each request */
    int answers;        /* before it closes; -1: as many as there are requests */
    atomic_int requests;
    pthread_t thread;
};

static void *fake_serve(void *arg)
{
    struct fake *f = arg;
    int fd;
    while ((fd = accept(f->listener, NULL, NULL)) >= 0) {
        char bytes[4096];
        /* A request of these tests comes in one piece: it is one small write. */
        while (f->answers != atomic_load(&f->requests) && recv(fd, bytes, sizeof bytes, 0) > 0) {
            atomic_fetch_add(&f->requests, 1);
            if (send(fd, f->answer, strlen(f->answer), MSG_NOSIGNAL) < 0) break;
        }
        close(fd);
    }
    return NULL;
}

static void fake_start(struct fake *f, const char *answer, int answers)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t length = sizeof address;
    memset(f, 0, sizeof *f);
    f->answer = answer;
    f->answers = answers;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    f->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(f->listener, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(listen(f->listener, 16), 0);
    assert_int_equal(getsockname(f->listener, (struct sockaddr *)&address, &length), 0);
    f->port = ntohs(address.sin_port);
    assert_int_equal(pthread_create(&f->thread, NULL, fake_serve, f), 0);
}

static void fake_stop(struct fake *f)
{
    shutdown(f->listener, SHUT_RDWR);
    pthread_join(f->thread, NULL);
    close(f->listener);
}

static void request(void *user, int index, struct strbuf *out)
{
    (void)user;
    strbuf_printf(out, "POST /%d HTTP/1.1\r\nContent-Length: 0\r\n\r\n", index);
}

static const char HIT[] = "HTTP/1.1 200 OK\r\nX-Sovereign-Cache: hit\r\nContent-Length: 35\r\n\r\n"
                          "{\"prompt_tokens\":9,\"cached_tokens\":4";

static void test_answers_are_read(void **state)
{
    struct fake f;
    struct bench_answer answers[20] = {{0}};
    struct sov_errbuf err = {""};
    (void)state;
    fake_start(&f, HIT, -1);
    struct bench_load load = {
        .port = f.port, .clients = 1, .count = 20, .request = request, .answers = answers};
    if (bench_load_run(&load, &err) != SOV_OK) fail_msg("%s", err.message);
    assert_int_equal(atomic_load(&f.requests), 20);
    assert_true(load.seconds > 0);
    for (int i = 0; i < 20; i++) {
        assert_true(answers[i].hit && answers[i].latency_ns > 0);
        assert_int_equal(answers[i].prompt_tokens, 9);
        assert_int_equal(answers[i].cached_tokens, 4);
    }
    fake_stop(&f);
}

/* Three are meant to be sent at once, and there is one connection: the later ones have waited. */
static void test_waiting_for_a_connection_counts(void **state)
{
    enum { COUNT = 200 };
    static struct bench_answer answers[COUNT];
    static const int64_t at_ns[COUNT];
    struct fake f;
    struct sov_errbuf err = {""};
    (void)state;
    fake_start(&f, HIT, -1);
    struct bench_load load = {.port = f.port,
                              .clients = 1,
                              .count = COUNT,
                              .at_ns = at_ns,
                              .request = request,
                              .answers = answers};
    if (bench_load_run(&load, &err) != SOV_OK) fail_msg("%s", err.message);
    for (int i = 1; i < COUNT; i++) assert_true(answers[i].latency_ns > answers[i - 1].latency_ns);
    /* The last one waited for all others. */
    double last_s = answers[COUNT - 1].latency_ns * 1e-9;
    assert_true(last_s <= load.seconds && last_s > 0.5 * load.seconds);
    fake_stop(&f);
}

static void expect_failure(const char *answer, int answers_max, enum sov_error code,
                           const char *part)
{
    struct fake f;
    struct bench_answer answers[10] = {{0}};
    struct sov_errbuf err = {""};
    fake_start(&f, answer, answers_max);
    struct bench_load load = {
        .port = f.port, .clients = 1, .count = 10, .request = request, .answers = answers};
    assert_int_equal(bench_load_run(&load, &err), code);
    if (strstr(err.message, part) == NULL) fail_msg("'%s' is not in '%s'", part, err.message);
    fake_stop(&f);
}

static void test_what_is_no_answer_ends_the_load(void **state)
{
    (void)state;
    expect_failure("HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\nbusy", -1, SOV_ERR_FORMAT,
                   "503: busy");
    expect_failure("HTTP/1.1 200 OK\r\n\r\n", -1, SOV_ERR_FORMAT, "unknown length");
    expect_failure("SSH-2.0-OpenSSH\r\nContent-Length: 4\r\n\r\n", -1, SOV_ERR_FORMAT,
                   "unknown length");
    expect_failure(HIT, 3, SOV_ERR_IO, "");
    struct bench_answer answer = {0};
    struct sov_errbuf err = {""};
    struct fake f;
    fake_start(&f, HIT, -1);
    fake_stop(&f);
    struct bench_load load = {
        .port = f.port, .clients = 2, .count = 1, .request = request, .answers = &answer};
    assert_int_equal(bench_load_run(&load, &err), SOV_ERR_IO);
    assert_non_null(strstr(err.message, "cannot connect"));
}

static void test_limits_are_positive(void **state)
{
    struct pool *pool;
    double bytes_s = 0, ns = 0;
    (void)state;
    assert_int_equal(pool_create(2, &pool, NULL), SOV_OK);
    assert_int_equal(bench_limit_read(pool, 1 << 20, 3, &bytes_s, NULL), SOV_OK);
    assert_true(bytes_s > 1e6);
    for (int isa = 0; isa < KERN_ISAS; isa++) {
        struct bench_loop loop;
        if (!bench_loop_find(BENCH_LOOP_INT8_DOT, (enum kern_isa)isa, &loop)) continue;
        assert_true(bench_limit_loop(pool, &loop, 1) > 1e6);
    }
    pool_free(pool);
    assert_int_equal(bench_limit_loopback(20, 100, 3000, 0, false, &ns, NULL), SOV_OK);
    assert_int_equal(bench_limit_loopback(20, 100, 3000, 1000, true, &ns, NULL), SOV_OK);
    assert_true(ns > 100);
    uint64_t ticks[100];
    struct bench_access_memory memory;
    assert_int_equal(bench_access_make(&memory, 1000, NULL), SOV_OK);
    for (int access = BENCH_ACCESS_SLOT; access < BENCH_ACCESSES; access++)
        assert_int_equal(bench_access_sample(&memory, (enum bench_access)access, ticks, 100, NULL),
                         SOV_OK);
    bench_access_free(&memory);
}

static void test_a_step_takes_the_longer_of_both(void **state)
{
    const struct bench_limits limits = {.weights_bytes_s = 1e9, .dot_ops_s = 1e12};
    const struct bench_cost cost = {
        .weight_bytes = 1000000, .macs = 2000000, .output_macs = 500000};
    (void)state;
    /* 1 ms of reading; 4 us of arithmetic for each row. */
    assert_true(fabs(bench_limit_step_ns(&limits, &cost, 1, 1) - 1e6) < 1);
    assert_true(fabs(bench_limit_step_ns(&limits, &cost, 1000, 1000) - 4e6) < 1);
    /* Rows that need no output: 3 us. */
    assert_true(fabs(bench_limit_step_ns(&limits, &cost, 1001, 1) - 3.004e6) < 1);
    const struct bench_limits unknown = {0};
    assert_true(bench_limit_step_ns(&unknown, &cost, 1, 1) == 0);
}

static void test_counts_scale_with_iterations(void **state)
{
    struct bench_run run = {.iterations = 100};
    (void)state;
    assert_int_equal(bench_count(&run, 400, 8), 400);
    run.iterations = 1;
    assert_int_equal(bench_count(&run, 400, 8), 8);
    run.iterations = 1000;
    assert_int_equal(bench_count(&run, 400, 8), 4000);
    run.iterations = BENCH_ITERATIONS_MAX;
    assert_true(bench_count(&run, 200000, 8) > 0);
}

static void test_this_process_has_memory(void **state)
{
    struct bench_identity id = {.cpus = 0};
    (void)state;
    assert_true(bench_memory_resident() > 1e5);
    assert_true(bench_memory_peak() >= bench_memory_resident() * 0.5);
    assert_true(bench_memory_available() > 0);
    bench_identity_machine(&id);
    assert_true(bench_foreign_seconds() >= 0);
    assert_true(id.cpu[0] != '\0' && id.cpus >= 1 && id.memory_mb > 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_answers_are_read),
        cmocka_unit_test(test_waiting_for_a_connection_counts),
        cmocka_unit_test(test_what_is_no_answer_ends_the_load),
        cmocka_unit_test(test_limits_are_positive),
        cmocka_unit_test(test_a_step_takes_the_longer_of_both),
        cmocka_unit_test(test_counts_scale_with_iterations),
        cmocka_unit_test(test_this_process_has_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
