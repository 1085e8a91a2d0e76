/* SPDX-License-Identifier: Apache-2.0 */
/* run-tests: no-sanitizers */
/*
 * A server that has a model loaded, has answered and has nothing to do: no thread runs and none
 * wakes up. There is no timer that ticks for nothing.
 */
#include "tests/server_fixture.h"

#include <dirent.h>
#include <time.h>

enum { IDLE_MS = 1500, IDLE_THREADS = 2, TRIES = 20 };

static struct fixture f;

struct activity {
    int threads;
    long switches; /* voluntary: each is a wait that ended */
    int64_t cpu_ns;
};

static long idle_read_switches(const char *task)
{
    char path[320], line[256];
    long switches = -1;
    snprintf(path, sizeof path, "/proc/self/task/%s/status", task);
    FILE *file = fopen(path, "r");
    if (file == NULL) return -1;
    while (fgets(line, sizeof line, file) != NULL)
        if (strncmp(line, "voluntary_ctxt_switches:", 24) == 0)
            switches = strtol(line + 24, NULL, 10);
    fclose(file);
    return switches;
}

/* Of all threads but this one, which waits for the time to pass; and the CPU time of all. */
static struct activity idle_read(void)
{
    struct activity a = {0};
    char self[32];
    snprintf(self, sizeof self, "%d", (int)gettid());
    DIR *dir = opendir("/proc/self/task");
    assert_non_null(dir);
    for (const struct dirent *e = readdir(dir); e != NULL; e = readdir(dir)) {
        if (e->d_name[0] == '.' || strcmp(e->d_name, self) == 0) continue;
        long switches = idle_read_switches(e->d_name);
        assert_true(switches >= 0);
        a.switches += switches;
        a.threads++;
    }
    closedir(dir);
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    a.cpu_ns = (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
    return a;
}

static void test_an_idle_server_does_nothing_at_all(void **state)
{
    (void)state;
    struct sov_errbuf err = {0};
    struct pool *pool;
    fixture_load(&f);
    fixture_start_engine(&f, 1, 1); /* for what is served; the engine itself has more threads */
    engine_free(f.engine);
    FIXTURE_OK(pool_create(IDLE_THREADS, &pool, &err));
    struct engine_options options = {.model = f.model,
                                     .tokenizer = f.tokenizer,
                                     .pool = pool,
                                     .parallel = 4,
                                     .context = 512,
                                     .prefix_reuse = true};
    FIXTURE_OK(engine_create(&options, &f.engine, &err));
    f.served.engine = f.engine;
    fixture_start_server(&f, NULL, true);
    json_decref(post(f.port, "/v1/completions", "{\"prompt\":\"a\",\"max_tokens\":20}", 200));
    await_idle(f.port);
    /* The connection that asked is closed some time after: the watcher looks for it by the second. */
    struct activity before, after = {0};
    int tries =
        0; /* a machine that stands still for a while wakes all, and takes none of them away */
    int64_t until = clock_monotonic_ns() + (int64_t)FIXTURE_WAIT_MS * 1000000;
    do {
        if (tries++ >= TRIES && clock_monotonic_ns() > until)
            fail_msg("%ld wake-ups while idle", after.switches);
        before = idle_read();
        poll(NULL, 0, IDLE_MS);
        after = idle_read();
        after.switches -= before.switches;
    } while (after.switches > 0);
    assert_true(before.threads >= 4); /* events, worker, watcher, engine, pool */
    assert_int_equal(after.threads, before.threads);
    int64_t used_ns = after.cpu_ns - before.cpu_ns; /* this thread reading /proc, mostly */
    if (used_ns > 10000000) fail_msg("%.1f ms of CPU while idle", (double)used_ns * 1e-6);
    fixture_stop(&f);
    pool_free(pool);
    fixture_unload(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_an_idle_server_does_nothing_at_all),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
