/* SPDX-License-Identifier: Apache-2.0 */
/* run-tests: seconds=300 */
/*
 * `sovereign serve --data-dir` killed (SIGKILL) under load, 50 times, at random moments, as its
 * clients see it. After each start: an answer that a client had, and that was committed by what the
 * server's metrics say, is a hit; no answer, from memory, from disk or computed, is another than the
 * one without a cache; and no row was found corrupt. An answer is committed within a second, and all
 * are in memory within a second of a start, wherever the machine lets them: in one round at least.
 */
#include "tests/server_fixture.h"

#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>

enum {
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
    KILLS = 10,
#else
    KILLS = 50,
#endif
    SETTLE_EVERY = 10, /* rounds: one in which answers are committed before the kill */
    SETTLE_INSERTIONS = 30,
    ALIVE_MS_MIN = 10,
    ALIVE_MS_MAX = 250,
    QUESTIONS = 200,
    CLIENTS = 4,
    PROMISED_MS = 1000, /* until an answer is committed; until all are in memory */
};

/* One request that always has the same answer. */
struct question {
    char body[160];
    struct strbuf answer;         /* as without a cache, but for what differs every time */
    atomic_int_fast64_t acked_ns; /* when a client first had it from a cache that keeps it; 0 */
};

static struct fixture f;
static struct question questions[QUESTIONS];
static char data_dir[128], log_path[128];
static pid_t server = -1;
static int port;
static uint64_t seed = 99;
static double settled_ms_min = 1e9, warm_ms_min = 1e9; /* of all rounds */

static uint32_t below(uint64_t *state, uint32_t n)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(*state >> 33) % n;
}

/* Waits for the line that says where it serves; it goes to a file, which nobody has to empty. */
static int await_port(void)
{
    static const char MARK[] = " on http://127.0.0.1:";
    int64_t until = clock_monotonic_ns() + (int64_t)FIXTURE_WAIT_MS * 1000000;
    for (;;) {
        char text[8192];
        FILE *log = fopen(log_path, "r");
        assert_non_null(log);
        size_t length = fread(text, 1, sizeof text - 1, log);
        fclose(log);
        text[length] = '\0';
        const char *found = strstr(text, MARK);
        if (found != NULL && strchr(found, '\n') != NULL)
            return (int)strtol(found + strlen(MARK), NULL, 10);
        if (clock_monotonic_ns() > until || waitpid(server, NULL, WNOHANG) != 0)
            fail_msg("the server does not start: %s", text);
        poll(NULL, 0, 2);
    }
}

static void start_server(void)
{
    const char *sovereign = getenv("SOVEREIGN");
    char program[512];
    snprintf(program, sizeof program, "%.500s", sovereign != NULL ? sovereign : "build/sovereign");
    char *argv[] = {program, "serve",     "--model",    f.path,       "--port",
                    "0",     "--threads", "1",          "--parallel", "4",
                    "--ctx", "256",       "--data-dir", data_dir,     NULL};
    posix_spawn_file_actions_t files;
    extern char **environ;
    assert_int_equal(posix_spawn_file_actions_init(&files), 0);
    posix_spawn_file_actions_addopen(&files, 0, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_addopen(&files, 1, "/dev/null", O_WRONLY, 0);
    posix_spawn_file_actions_addopen(&files, 2, log_path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    FILE *empty = fopen(log_path, "w");
    assert_non_null(empty);
    fclose(empty);
    assert_int_equal(posix_spawn(&server, program, &files, NULL, argv, environ), 0);
    posix_spawn_file_actions_destroy(&files);
    port = await_port();
}

static void kill_server(void)
{
    int status;
    assert_int_equal(kill(server, SIGKILL), 0);
    assert_int_equal(waitpid(server, &status, 0), server);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    server = -1;
}

/* 0: the answer is right; the server is gone: 1; it is wrong: 2. */
static int ask(struct client *c, const char *extra, const struct question *q, char how[16])
{
    if (!client_request(c, "POST", "/v1/completions", extra, q->body)) return 1;
    struct response r = client_read(c, true);
    int result = r.status == 0 ? 1 : 2;
    if (r.status == 200) {
        snprintf(how, 16, "%s", response_header(&r, "x-sovereign-cache"));
        blank(&r.body);
        if (strcmp(strbuf_text(&r.body), strbuf_text(&q->answer)) == 0) result = 0;
    }
    if (result == 2)
        print_message("%s: %d %s, not %s\n", q->body, r.status, strbuf_text(&r.body),
                      strbuf_text(&q->answer));
    response_free(&r);
    return result;
}

struct load {
    pthread_t thread;
    struct client client;
    uint64_t seed;
    int wrong;
};

/* Until the server is gone: new answers, hits, and answers that take the place of the one there is. */
static void *load_main(void *arg)
{
    struct load *l = arg;
    for (;;) {
        char how[16];
        struct question *q = &questions[below(&l->seed, QUESTIONS)];
        bool anew = below(&l->seed, 3) == 0;
        int result = ask(&l->client, anew ? "Cache-Control: no-cache\r\n" : "", q, how);
        if (result == 1) return NULL;
        if (result == 2) l->wrong++;
        int_fast64_t never = 0;
        atomic_compare_exchange_strong(&q->acked_ns, &never, clock_monotonic_ns());
    }
}

/*
 * Lets the load insert some answers, waits until all that are there now are committed (they are written
 * in the order in which they came), and returns when "now" was.
 */
static int64_t await_committed(void)
{
    int64_t until = clock_monotonic_ns() + (int64_t)FIXTURE_WAIT_MS * 1000000;
    double insertions;
    while ((insertions = metric(port, "sovereign_cache_insertions_total")) < SETTLE_INSERTIONS) {
        if (clock_monotonic_ns() > until) fail_msg("nothing is cached");
        poll(NULL, 0, 5);
    }
    int64_t now = clock_monotonic_ns();
    insertions = metric(port, "sovereign_cache_insertions_total");
    while (metric(port, "sovereign_cache_store_written_total") < insertions) {
        if (clock_monotonic_ns() > until) fail_msg("what is cached is not committed");
        poll(NULL, 0, 5);
    }
    double took_ms = (double)(clock_monotonic_ns() - now) / 1e6;
    if (took_ms < settled_ms_min) settled_ms_min = took_ms;
    return now;
}

static void load_and_kill(bool settle)
{
    struct load loads[CLIENTS];
    int64_t expected_until = clock_monotonic_ns();
    for (int i = 0; i < CLIENTS; i++) {
        loads[i] = (struct load){.client = client_open(port), .seed = seed + (uint64_t)i * 77};
        assert_int_equal(pthread_create(&loads[i].thread, NULL, load_main, &loads[i]), 0);
    }
    if (settle) expected_until = await_committed();
    /* The moment is what is random here. */
    poll(NULL, 0, ALIVE_MS_MIN + (int)below(&seed, ALIVE_MS_MAX - ALIVE_MS_MIN));
    kill_server();
    for (int i = 0; i < CLIENTS; i++) {
        pthread_join(loads[i].thread, NULL);
        client_close(&loads[i].client);
        assert_int_equal(loads[i].wrong, 0);
    }
    /* Of what came in the last moment nothing is expected. */
    for (int i = 0; i < QUESTIONS; i++)
        if (atomic_load(&questions[i].acked_ns) > expected_until)
            atomic_store(&questions[i].acked_ns, 0);
}

/* Right after the start: rows may still be on their way to memory. Returns how many were hits. */
static int check_all(void)
{
    struct client c = client_open(port);
    int hits = 0;
    for (int i = 0; i < QUESTIONS; i++) {
        char how[16];
        struct question *q = &questions[i];
        /* What is not expected is not asked for, or it would be computed here and now. */
        bool expected = atomic_load(&q->acked_ns) != 0;
        if (!expected) continue;
        assert_int_equal(ask(&c, "", q, how), 0);
        if (strcmp(how, "hit") != 0) fail_msg("%s is a %s, and was committed", q->body, how);
        hits++;
    }
    client_close(&c);
    await_metric(port, "sovereign_cache_store_warming", 0);
    assert_true(metric(port, "sovereign_cache_store_corrupt_total") == 0);
    assert_true(metric(port, "sovereign_cache_store_resets_total") == 0);
    double warm_ms = metric(port, "sovereign_cache_store_warm_seconds") * 1000;
    if (warm_ms < warm_ms_min) warm_ms_min = warm_ms;
    return hits;
}

static void test_killed_50_times_under_load_every_answer_is_right(void **state)
{
    (void)state;
    int hits = 0;
    start_server();
    for (int i = 0; i < QUESTIONS; i++) {
        snprintf(questions[i].body, sizeof questions[i].body,
                 "{\"prompt\":\"question %d\",\"max_tokens\":4,\"seed\":%d,\"cache\":false}", i, i);
        struct response r = http(port, "POST", "/v1/completions", "", questions[i].body);
        assert_int_equal(r.status, 200);
        blank(&r.body);
        questions[i].answer = r.body;
        r.body = (struct strbuf){0};
        response_free(&r);
        snprintf(questions[i].body, sizeof questions[i].body,
                 "{\"prompt\":\"question %d\",\"max_tokens\":4,\"seed\":%d}", i, i);
    }
    for (int round = 1; round <= KILLS; round++) {
        load_and_kill(round % SETTLE_EVERY == 1);
        start_server();
        hits += check_all();
    }
    kill_server();
    assert_true(hits > KILLS);
    assert_true(settled_ms_min < PROMISED_MS && warm_ms_min < PROMISED_MS);
    print_message("%d kills, %d answers found again; committed after %.0f ms at best, warm after "
                  "%.0f ms\n",
                  KILLS, hits, settled_ms_min, warm_ms_min);
    for (int i = 0; i < QUESTIONS; i++) strbuf_free(&questions[i].answer);
}

static void remove_data_dir(void)
{
    struct dirent *entry;
    DIR *dir = opendir(data_dir);
    if (dir == NULL) return;
    while ((entry = readdir(dir)) != NULL)
        if (entry->d_name[0] != '.') (void)unlinkat(dirfd(dir), entry->d_name, 0);
    closedir(dir);
    rmdir(data_dir);
}

static int setup(void **state)
{
    (void)state;
    fixture_make_model(&f);
    snprintf(data_dir, sizeof data_dir, "%s/data", f.dir);
    snprintf(log_path, sizeof log_path, "%s/log", f.dir);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    if (server > 0) {
        kill(server, SIGKILL);
        waitpid(server, NULL, 0);
    }
    remove_data_dir();
    unlink(log_path);
    unlink(f.path);
    return rmdir(f.dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_killed_50_times_under_load_every_answer_is_right),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
