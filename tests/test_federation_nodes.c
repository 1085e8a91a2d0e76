/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Federations of real processes: what they survive.
 * run-tests: serial seconds=600
 *
 * FEDERATION_SECONDS (10) is for how long nodes are killed under load.
 */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/federation_nodes_fixture.h"

enum { PROPOSERS = 3, ACKS_MAX = 200000, FED_WINDOW = 64 };

static struct federation fed;

static int setup(void **state)
{
    (void)state;
    char problem[SOV_ERROR_MESSAGE_MAX];
    if (getenv("SOVEREIGN") == NULL) setenv("SOVEREIGN", "build/sovereign", 1);
    signal(SIGPIPE, SIG_IGN);
    if (fed_make(&fed, problem)) return 0;
    fprintf(stderr, "%s\n", problem);
    return -1;
}

static int teardown(void **state)
{
    (void)state;
    fed_remove(&fed);
    return 0;
}

/* ---- proposing all the time ---- */

struct ack {
    uint64_t sequence;
    struct message_digest id;
    uint8_t seat; /* of a pattern in the log: in which request of whom */
    uint64_t number;
};

static struct ack acks[ACKS_MAX];
static atomic_int ack_count;
static atomic_bool proposing;

static void *propose_always(void *arg)
{
    int self = (int)(intptr_t)arg;
    for (int n = 0; atomic_load(&proposing); n++) {
        char json[128], hex[65];
        snprintf(json, sizeof json, "{\"proposer\": %d, \"n\": %d, \"text\": \"caf\\u00e9\"}", self,
                 n);
        long long sequence = fed_propose(&fed, (int)randombytes_uniform(FED_NODES), json, hex);
        if (sequence == 0) {
            fed_pause(5);
            continue;
        }
        int at = atomic_fetch_add(&ack_count, 1);
        if (at >= ACKS_MAX) break;
        struct ack *ack = &acks[at];
        ack->sequence = (uint64_t)sequence;
        (void)sodium_hex2bin(ack->id.bytes, sizeof ack->id.bytes, hex, 64, NULL, NULL, NULL);
    }
    return NULL;
}

static void begin_proposing(pthread_t threads[PROPOSERS])
{
    atomic_store(&ack_count, 0);
    atomic_store(&proposing, true);
    for (intptr_t i = 0; i < PROPOSERS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, propose_always, (void *)i), 0);
}

static void end_proposing(pthread_t threads[PROPOSERS])
{
    atomic_store(&proposing, false);
    for (int i = 0; i < PROPOSERS; i++) pthread_join(threads[i], NULL);
}

struct found {
    struct ack *list;
    size_t count, capacity;
};

static void collect(void *user, uint64_t sequence, const struct message_request *request,
                    const struct message_digest *id)
{
    struct found *found = user;
    if (found->count == found->capacity) {
        found->capacity = found->capacity > 0 ? 2 * found->capacity : 1024;
        found->list = realloc(found->list, found->capacity * sizeof *found->list);
        assert_non_null(found->list);
    }
    found->list[found->count++] = (struct ack){sequence, *id, request->seat, request->number};
}

static int by_id(const void *a, const void *b)
{
    const struct ack *x = a, *y = b;
    int order = memcmp(x->id.bytes, y->id.bytes, sizeof x->id.bytes);
    return order != 0 ? order : (x->sequence > y->sequence) - (x->sequence < y->sequence);
}

/* Stops all; every log is the same, and has every acknowledged proposal where it was said to be. */
static void assert_nothing_was_lost(void)
{
    char heads[FED_NODES][65];
    FED_WAIT_FOR(fed_settled(&fed));
    for (int i = 0; i < FED_NODES; i++) assert_int_equal(fed_end(&fed, i, SIGTERM), 0);
    int count = atomic_load(&ack_count);
    long long batches = 0;
    for (int i = 0; i < FED_NODES; i++) {
        struct found found = {NULL, 0, 0};
        long long n = fed_read_log(&fed, i, collect, &found, heads[i]);
        assert_true(n >= 0);
        if (i == 0) batches = n;
        assert_int_equal(n, batches);
        assert_string_equal(heads[i], heads[0]);
        qsort(found.list, found.count, sizeof *found.list, by_id);
        for (int k = 0; k < count; k++)
            if (bsearch(&acks[k], found.list, found.count, sizeof *found.list, by_id) == NULL)
                fail_msg("node %d lacks an acknowledged proposal of batch %llu", i,
                         (unsigned long long)acks[k].sequence);
        /* After a change of view a request may be in two batches, and counts in the first. */
        for (size_t k = 1; k < found.count; k++) {
            const struct ack *x = &found.list[k - 1], *y = &found.list[k];
            if (memcmp(&x->id, &y->id, sizeof x->id) == 0 &&
                (x->seat != y->seat || x->number != y->number))
                fail_msg("a proposal was made twice, in batches %llu and %llu",
                         (unsigned long long)x->sequence, (unsigned long long)y->sequence);
        }
        free(found.list);
    }
    print_message("%d acknowledged proposals in %lld batches\n", count, batches);
}

/* ---- tests ---- */

static void test_four_nodes_agree(void **state)
{
    (void)state;
    char id[65];
    fed_start_all(&fed);
    for (int i = 0; i < FED_NODES; i++) FED_WAIT_FOR(fed_connected(&fed, i, 3));
    for (int i = 0; i < FED_NODES; i++) {
        assert_true(fed_propose(&fed, i, "{\"b\": 1.0, \"a\": [true]}", id) > 0);
        /* BLAKE2b-256 of the domain, a zero byte and {"a":[true],"b":1}. */
        static const char TEXT[] = "sovereign-federation-v1:pattern\0{\"a\":[true],\"b\":1}";
        unsigned char digest[32];
        char hex[65];
        crypto_generichash(digest, sizeof digest, (const unsigned char *)TEXT, sizeof TEXT - 1,
                           NULL, 0);
        sodium_bin2hex(hex, sizeof hex, digest, sizeof digest);
        assert_string_equal(id, hex);
    }
    assert_int_equal(fed_propose(&fed, 0, "{\"a\": 1, \"a\": 2}", NULL), 0);
    assert_int_equal(fed_propose(&fed, 0, "nonsense", NULL), 0);
    FED_WAIT_FOR(fed_settled(&fed));
}

static void kill_some(int64_t until)
{
    while (clock_monotonic_ns() < until) {
        fed_pause(100 + (int)randombytes_uniform(700));
        struct fed_seen seen = fed_see(&fed, (int)randombytes_uniform(FED_NODES));
        /* Every second time the primary, as somebody sees it. */
        int victim = seen.there && randombytes_uniform(2) == 0
                         ? (int)seen.primary
                         : (int)randombytes_uniform(FED_NODES);
        fed_end(&fed, victim, SIGKILL);
        fed_pause((int)randombytes_uniform(500));
        fed_start(&fed, victim, 0);
    }
}

static void test_killed_under_load(void **state)
{
    (void)state;
    pthread_t threads[PROPOSERS];
    const char *text = getenv("FEDERATION_SECONDS");
    int64_t seconds = text != NULL ? atoi(text) : 10;
    fed_start_all(&fed);
    FED_WAIT_FOR(fed_propose(&fed, 0, "{}", NULL) > 0);
    begin_proposing(threads);
    kill_some(clock_monotonic_ns() + seconds * 1000000000ll);
    int before = atomic_load(&ack_count);
    /* All are there again: it goes on. */
    FED_WAIT_FOR(atomic_load(&ack_count) > before + 10);
    end_proposing(threads);
    assert_nothing_was_lost();
}

static void test_all_killed_at_once(void **state)
{
    (void)state;
    pthread_t threads[PROPOSERS];
    fed_start_all(&fed);
    FED_WAIT_FOR(fed_propose(&fed, 0, "{}", NULL) > 0);
    for (int round = 0; round < 3; round++) {
        begin_proposing(threads);
        FED_WAIT_FOR(atomic_load(&ack_count) > 30);
        for (int i = 0; i < FED_NODES; i++) kill(fed.pids[i], SIGKILL);
        for (int i = 0; i < FED_NODES; i++) fed_end(&fed, i, SIGKILL);
        end_proposing(threads);
        fed_start_all(&fed);
        FED_WAIT_FOR(fed_propose(&fed, round, "{\"again\": true}", NULL) > 0);
        if (round < 2) continue;
        char json[64];
        snprintf(json, sizeof json, "{\"round\": %d}", round);
        FED_WAIT_FOR(fed_propose(&fed, 1, json, NULL) > 0);
    }
    FED_WAIT_FOR(fed_settled(&fed));
}

/*
 * A time-out so long that what else is to be done (the rest of a change of view, on a machine that has other
 * work, too) is small against it; and whoever is held up for seconds all the same has another try.
 */
static void test_primary_is_replaced_in_time(void **state)
{
    (void)state;
    enum { TIMEOUT_MS = 2000, TRIES = 5 };
    int64_t ms = INT64_MAX;
    fed.config.core.view_timeout_ms = TIMEOUT_MS;
    for (int i = 0; i < FED_NODES; i++) assert_true(fed_write_config(&fed, i, &fed.config));
    fed_start_all(&fed);
    for (int n = 0; n < TRIES && ms > 2 * TIMEOUT_MS; n++) {
        /* Patience is back at its beginning: what was executed in this view shows that it works. */
        for (int i = 0; i <= FED_WINDOW; i++) FED_WAIT_FOR(fed_propose(&fed, 1, "{}", NULL) > 0);
        FED_WAIT_FOR(fed_settled(&fed));
        struct fed_seen before = fed_see(&fed, 1);
        int primary = (int)before.primary, other = (primary + 1) % FED_NODES;
        fed_end(&fed, primary, SIGKILL);
        int64_t begin = clock_monotonic_ns();
        assert_true(fed_propose(&fed, other, "{\"after\": 1}", NULL) > 0);
        ms = (clock_monotonic_ns() - begin) / 1000000;
        print_message("the next commit came %lld ms after the primary was killed (time-out %d)\n",
                      (long long)ms, TIMEOUT_MS);
        assert_true(fed_see(&fed, other).view > before.view);
        fed_start(&fed, primary, 0);
    }
    assert_true(ms <= 2 * TIMEOUT_MS);
}

static void wipe(int node)
{
    static const char *const FILES[] = {"federation.sqlite", "federation.sqlite-wal",
                                        "federation.sqlite-shm"};
    for (int i = 0; i < 3; i++) {
        char path[PATH_MAX];
        fed_path(&fed, node, FILES[i], path);
        unlink(path);
    }
}

static void test_wiped_node_catches_up(void **state)
{
    (void)state;
    enum { COUNT = 150 };
    char json[64];
    fed_start_all(&fed);
    for (int i = 0; i < COUNT; i++) {
        snprintf(json, sizeof json, "{\"n\": %d}", i);
        FED_WAIT_FOR(fed_propose(&fed, i % 3, json, NULL) > 0);
    }
    assert_int_equal(fed_end(&fed, 3, SIGTERM), 0);
    wipe(3);
    fed_start(&fed, 3, 0);
    long long last = fed_see(&fed, 0).sequence;
    FED_WAIT_FOR(fed_see(&fed, 3).sequence >= last);
    /*
     * It votes again some time: the others' checkpoints go past what it may have said. That takes some STATUSes, which
     * go by time, and a fast machine commits hundreds of batches between two of them.
     */
    for (int i = 0; strcmp(fed_see(&fed, 3).state, "recovering") == 0; i++) {
        assert_true(i < FED_WAIT_S * 1000); /* each takes about a millisecond, or more */
        snprintf(json, sizeof json, "{\"more\": %d}", i);
        FED_WAIT_FOR(fed_propose(&fed, i % 3, json, NULL) > 0);
    }
    /* And its vote counts: without node 2 it is needed, if only in a view that it cannot have left before. */
    assert_int_equal(fed_end(&fed, 2, SIGTERM), 0);
    FED_WAIT_FOR(fed_propose(&fed, 3, "{\"by\": 3}", NULL) > 0);
    assert_string_equal(fed_see(&fed, 3).state, "normal");
    fed_start(&fed, 2, 0);
    FED_WAIT_FOR(fed_settled(&fed));
}

static void test_wrong_key(void **state)
{
    (void)state;
    char path[PATH_MAX], log[PATH_MAX];
    struct strbuf text = {0};
    fed_path(&fed, 3, "node.key", path);
    assert_int_equal(unlink(path), 0);
    fed_start(&fed, 3, 0);
    int status;
    assert_int_equal(waitpid(fed.pids[3], &status, 0), fed.pids[3]);
    fed.pids[3] = 0;
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 1);
    fed_path(&fed, 3, "log.txt", log);
    assert_int_equal(file_read(log, 1 << 20, &text, NULL), SOV_OK);
    assert_non_null(strstr(text.data, "is not the key of a member"));
    strbuf_free(&text);
    /* The three others do without it. */
    for (int i = 0; i < 3; i++) fed_start(&fed, i, 0);
    FED_WAIT_FOR(fed_propose(&fed, 0, "{}", NULL) > 0);
}

/* Who says that the key is a member's new one comes as far as the others, who know better. */
static void test_wrong_key_that_is_claimed(void **state)
{
    (void)state;
    char path[PATH_MAX];
    fed_path(&fed, 3, "node.key", path);
    assert_int_equal(unlink(path), 0);
    for (int i = 0; i < 3; i++) fed_start(&fed, i, 0);
    fed_start_as(&fed, 3, 0, "3");
    FED_WAIT_FOR(fed_trouble(&fed, 3, 0, "the key is not a member's"));
    FED_WAIT_FOR(fed_propose(&fed, 0, "{}", NULL) > 0);
    assert_int_equal(fed_see(&fed, 3).connected, 0);
    assert_int_equal(fed_see(&fed, 3).sequence, 0);
    assert_int_equal(fed_see(&fed, 0).connected, 2);
    /* What it proposes goes nowhere. */
    assert_int_equal(fed_propose_within(&fed, 3, "{\"let me\": \"in\"}", FED_VIEW_TIMEOUT_MS, NULL),
                     0);
}

static void test_garbage_on_the_ports(void **state)
{
    (void)state;
    unsigned char bytes[4096];
    fed_start_all(&fed);
    for (int i = 0; i < FED_NODES; i++) FED_WAIT_FOR(fed_connected(&fed, i, 3));
    for (int round = 0; round < 200; round++) {
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        struct sockaddr_in to = {.sin_family = AF_INET,
                                 .sin_port = htons((uint16_t)(fed.port + round % FED_NODES)),
                                 .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
        assert_int_equal(connect(fd, (struct sockaddr *)&to, sizeof to), 0);
        randombytes_buf(bytes, sizeof bytes);
        if (round % 2 == 0) bytes[2] = bytes[3] = 0; /* a length that a frame may have */
        (void)!send(fd, bytes, 1 + randombytes_uniform(sizeof bytes), MSG_NOSIGNAL);
        close(fd);
        if (round % 50 == 0)
            assert_true(fed_propose(&fed, round % FED_NODES, "{\"x\": 0}", NULL) > 0);
    }
    for (int i = 0; i < FED_NODES; i++) FED_WAIT_FOR(fed_connected(&fed, i, 3));
}

static void test_full_disk_on_one_node(void **state)
{
    (void)state;
    enum { BYTES = 400 << 10, COUNT = 120 };
    char json[2100];
    for (int i = 0; i < FED_NODES; i++) fed_start(&fed, i, i == 2 ? BYTES : 0);
    memset(json, 0, sizeof json);
    for (int i = 0; i < COUNT; i++) {
        int n = snprintf(json, sizeof json, "{\"n\": %d, \"text\": \"", i);
        memset(json + n, 'x', 2000);
        snprintf(json + n + 2000, sizeof json - (size_t)n - 2000, "\"}");
        FED_WAIT_FOR(fed_propose(&fed, i % 2, json, NULL) > 0);
    }
    long long last = fed_see(&fed, 0).sequence;
    struct fed_seen stuck = fed_see(&fed, 2);
    assert_true(!stuck.there || stuck.durable < last);
    fed_end(&fed, 2, SIGKILL);
    fed_start(&fed, 2, 0);
    FED_WAIT_FOR(fed_settled(&fed));
}

/* ---- partitions, by proxies between the nodes ---- */

enum { PROXY_PAIRS = 512 };

/* Everything that node i sends to the address of node j goes through port base + 4 i + j. */
static struct {
    int base;
    int listens[FED_NODES * FED_NODES];
    struct {
        int from, to, a, b; /* a: who dialed */
    } pairs[PROXY_PAIRS];
    atomic_int cut[FED_NODES]; /* which side a node is on */
    atomic_bool cut_seen;      /* set when all is as `cut` says */
    atomic_bool stop;
    pthread_t thread;
} proxy;

static int connect_to(int port)
{
    struct sockaddr_in to = {.sin_family = AF_INET,
                             .sin_port = htons((uint16_t)port),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd >= 0 && connect(fd, (struct sockaddr *)&to, sizeof to) == 0) return fd;
    if (fd >= 0) close(fd);
    return -1;
}

static bool is_cut(int i, int j)
{
    return atomic_load(&proxy.cut[i]) != atomic_load(&proxy.cut[j]);
}

static void proxy_accept(int which)
{
    int from = which / FED_NODES, to = which % FED_NODES, slot = 0;
    int a = accept4(proxy.listens[which], NULL, NULL, SOCK_CLOEXEC);
    if (a < 0) return;
    while (slot < PROXY_PAIRS && proxy.pairs[slot].a > 0) slot++;
    int b = is_cut(from, to) || slot == PROXY_PAIRS ? -1 : connect_to(fed.port + to);
    if (b < 0) {
        close(a);
        return;
    }
    proxy.pairs[slot].from = from;
    proxy.pairs[slot].to = to;
    proxy.pairs[slot].a = a;
    proxy.pairs[slot].b = b;
}

static void proxy_close(int slot)
{
    close(proxy.pairs[slot].a);
    close(proxy.pairs[slot].b);
    proxy.pairs[slot].a = proxy.pairs[slot].b = 0;
}

static bool pump(int from, int to)
{
    char bytes[64 << 10];
    ssize_t n = recv(from, bytes, sizeof bytes, MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return true;
    return n > 0 && send(to, bytes, (size_t)n, MSG_NOSIGNAL) == n;
}

static void *proxy_run(void *arg)
{
    static struct pollfd fds[FED_NODES * FED_NODES + 2 * PROXY_PAIRS];
    (void)arg;
    while (!atomic_load(&proxy.stop)) {
        int n = 0, owner[2 * PROXY_PAIRS];
        bool was_seen = atomic_load(&proxy.cut_seen);
        for (int i = 0; i < FED_NODES * FED_NODES; i++)
            fds[n++] = (struct pollfd){.fd = proxy.listens[i], .events = POLLIN};
        for (int i = 0; i < PROXY_PAIRS; i++) {
            if (proxy.pairs[i].a <= 0) continue;
            if (is_cut(proxy.pairs[i].from, proxy.pairs[i].to)) {
                proxy_close(i);
                continue;
            }
            owner[n - FED_NODES * FED_NODES] = i;
            fds[n++] = (struct pollfd){.fd = proxy.pairs[i].a, .events = POLLIN};
            owner[n - FED_NODES * FED_NODES] = i;
            fds[n++] = (struct pollfd){.fd = proxy.pairs[i].b, .events = POLLIN};
        }
        if (!was_seen) atomic_store(&proxy.cut_seen, true);
        poll(fds, (nfds_t)n, 20);
        for (int k = FED_NODES * FED_NODES; k < n; k++) {
            int i = owner[k - FED_NODES * FED_NODES];
            if (fds[k].revents == 0 || proxy.pairs[i].a <= 0) continue;
            bool first = fds[k].fd == proxy.pairs[i].a;
            int to = first ? proxy.pairs[i].b : proxy.pairs[i].a;
            if (!pump(fds[k].fd, to)) proxy_close(i);
        }
        for (int i = 0; i < FED_NODES * FED_NODES; i++)
            if (fds[i].revents != 0) proxy_accept(i);
    }
    return NULL;
}

static void proxy_start(void)
{
    memset(&proxy, 0, sizeof proxy);
    proxy.base = fed_free_ports(FED_NODES * FED_NODES);
    assert_true(proxy.base > 0);
    for (int i = 0; i < FED_NODES * FED_NODES; i++) {
        struct sockaddr_in at = {.sin_family = AF_INET,
                                 .sin_port = htons((uint16_t)(proxy.base + i)),
                                 .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
        int on = 1;
        proxy.listens[i] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        setsockopt(proxy.listens[i], SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
        assert_int_equal(bind(proxy.listens[i], (struct sockaddr *)&at, sizeof at), 0);
        assert_int_equal(listen(proxy.listens[i], 64), 0);
    }
    for (int i = 0; i < FED_NODES; i++) {
        struct fed_config config = fed.config;
        for (int j = 0; j < FED_NODES; j++) {
            struct message_member *m = &config.members[j];
            if (j == i) continue;
            m->address_length = (uint8_t)snprintf(m->address, sizeof m->address, "127.0.0.1:%d",
                                                  proxy.base + FED_NODES * i + j);
        }
        assert_true(fed_write_config(&fed, i, &config));
    }
    assert_int_equal(pthread_create(&proxy.thread, NULL, proxy_run, NULL), 0);
}

static void proxy_end(void)
{
    atomic_store(&proxy.stop, true);
    pthread_join(proxy.thread, NULL);
    for (int i = 0; i < FED_NODES * FED_NODES; i++) close(proxy.listens[i]);
    for (int i = 0; i < PROXY_PAIRS; i++)
        if (proxy.pairs[i].a > 0) proxy_close(i);
}

static void partition(int a, int b, int c, int d)
{
    const int sides[FED_NODES] = {a, b, c, d};
    for (int i = 0; i < FED_NODES; i++) atomic_store(&proxy.cut[i], sides[i]);
}

/* Every connection across the cut is closed, and no new one comes. */
static void await_cut(void)
{
    atomic_store(&proxy.cut_seen, false);
    FED_WAIT_FOR(atomic_load(&proxy.cut_seen));
}

static void test_partitions(void **state)
{
    (void)state;
    pthread_t threads[PROPOSERS];
    char json[64];
    proxy_start();
    fed_start_all(&fed);
    FED_WAIT_FOR(fed_propose(&fed, 0, "{}", NULL) > 0);
    begin_proposing(threads);
    FED_WAIT_FOR(atomic_load(&ack_count) > 20);
    /* Two and two: nobody has a quorum, so nothing that is proposed from now on is committed. */
    partition(0, 0, 1, 1);
    await_cut();
    for (int i = 0; i < FED_NODES; i++) {
        snprintf(json, sizeof json, "{\"cut off\": %d}", i);
        assert_int_equal(fed_propose_within(&fed, i, json, 2 * FED_VIEW_TIMEOUT_MS, NULL), 0);
    }
    partition(0, 0, 0, 0);
    int count = atomic_load(&ack_count);
    FED_WAIT_FOR(atomic_load(&ack_count) > count + 20);
    /* The primary alone: the others go on without it. */
    int primary = (int)fed_see(&fed, 0).primary, witness = (primary + 1) % FED_NODES;
    partition(primary == 0, primary == 1, primary == 2, primary == 3);
    await_cut();
    long long last = 0;
    for (int i = 0; i < 21; i++) {
        snprintf(json, sizeof json, "{\"witness\": %d}", i);
        last = fed_propose(&fed, witness, json, NULL);
        assert_true(last > 0);
    }
    assert_true(fed_see(&fed, primary).sequence < last);
    partition(0, 0, 0, 0);
    FED_WAIT_FOR(fed_see(&fed, primary).sequence >= last);
    end_proposing(threads);
    assert_nothing_was_lost();
    proxy_end();
}

int main(int argc, char **argv)
{
    if (argc > 1) cmocka_set_test_filter(argv[1]);
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_four_nodes_agree),          TEST(test_killed_under_load),
        TEST(test_all_killed_at_once),        TEST(test_primary_is_replaced_in_time),
        TEST(test_wiped_node_catches_up),     TEST(test_wrong_key),
        TEST(test_wrong_key_that_is_claimed), TEST(test_garbage_on_the_ports),
        TEST(test_full_disk_on_one_node),     TEST(test_partitions),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
