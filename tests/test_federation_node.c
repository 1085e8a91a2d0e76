/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Four nodes in this process, with everything that is counted inside; and a member that sends what no correct one
 * sends.
 */
#include <malloc.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/identity.h"
#include "base/mem.h"
#include "federation/control_internal.h"
#include "federation/message_private.h"
#include "federation/node_internal.h"
#include "tests/federation_inside_fixture.h"

/* ---- four nodes ---- */

static const int64_t MS = 1000000;

/* That a flood may cost in all, the buffers of the one who makes it included. */
enum { FLOOD_BYTES = 8 << 20 };

static size_t heap_bytes(void)
{
    struct mallinfo2 info = mallinfo2();
    return info.uordblks + info.hblkhd;
}

static struct inside in;

static int setup(void **state)
{
    (void)state;
    char problem[SOV_ERROR_MESSAGE_MAX];
    signal(SIGPIPE, SIG_IGN);
    if (inside_make(&in, problem)) return 0;
    fprintf(stderr, "%s\n", problem);
    return -1;
}

static int teardown(void **state)
{
    (void)state;
    inside_remove(&in);
    return 0;
}

struct waited {
    atomic_bool done;
    struct fed_proposal *proposal;
};

static void on_done(struct fed_proposal *proposal)
{
    struct waited *waited = proposal->user;
    atomic_store(&waited->done, true);
}

static void propose_within(int node, struct waited *waited, const char *json, int64_t timeout_ms)
{
    struct sov_errbuf err = {""};
    *waited = (struct waited){.proposal = NULL};
    assert_int_equal(fed_proposal_create(&waited->proposal, NULL), SOV_OK);
    waited->proposal->done = on_done;
    waited->proposal->user = waited;
    waited->proposal->timeout_ms = timeout_ms;
    if (fed_proposal_add(waited->proposal, fed_node_limits(in.nodes[node]), json, strlen(json),
                         &err) != SOV_OK ||
        fed_node_propose(in.nodes[node], waited->proposal, &err) != SOV_OK)
        fail_msg("%s", err.message);
}

static void propose(int node, struct waited *waited, const char *json)
{
    propose_within(node, waited, json, 0);
}

static uint64_t await(struct waited *waited)
{
    FED_WAIT_FOR(atomic_load(&waited->done));
    assert_int_equal(waited->proposal->outcome, PBFT_COMMITTED);
    uint64_t sequence = waited->proposal->sequence;
    fed_proposal_free(waited->proposal);
    return sequence;
}

static bool all_have(uint64_t patterns)
{
    for (int i = 0; i < FED_NODES; i++)
        if (inside_see(&in, i).patterns < patterns) return false;
    return true;
}

/* The seed's third optimization: whatever the number of votes, each replica digests a pattern once. */
static void test_each_replica_digests_a_pattern_once(void **state)
{
    (void)state;
    enum { COUNT = 200 };
    static struct waited waited[COUNT];
    char json[64];
    for (int i = 0; i < COUNT; i++) {
        snprintf(json, sizeof json, "{\"n\": %d}", i);
        propose(i % FED_NODES, &waited[i], json);
    }
    for (int i = 0; i < COUNT; i++) assert_true(await(&waited[i]) > 0);
    FED_WAIT_FOR(all_have(COUNT));
    fed_pause(2 * NODE_STATUS_MS);
    for (int i = 0; i < FED_NODES; i++) {
        struct fed_node_status s = inside_see(&in, i);
        assert_int_equal(s.patterns, COUNT);
        assert_int_equal(s.digests_pattern, COUNT);
        /* Own ones were made canonical when they were proposed. */
        assert_int_equal(s.canonical, COUNT - COUNT / FED_NODES);
        assert_int_equal(s.committed, COUNT / FED_NODES);
        assert_int_equal(s.signatures_bad + s.messages_bad, 0);
        /* Proposals that waited went together. */
        assert_true(s.requests < COUNT);
    }
}

static void test_proposals_are_bounded(void **state)
{
    (void)state;
    struct fed_proposal *p;
    struct sov_errbuf err;
    const struct message_limits *limits = fed_node_limits(in.nodes[0]);
    char *text = calloc(1, PBFT_PATTERN_BYTES_MAX + 16);
    assert_non_null(text);
    assert_int_equal(fed_proposal_create(&p, NULL), SOV_OK);
    assert_int_equal(fed_node_propose(in.nodes[0], p, &err), SOV_ERR_INVALID);
    assert_int_equal(fed_proposal_add(p, limits, "{\"a\":1,\"a\":2}", 13, &err), SOV_ERR_FORMAT);
    memset(text, 'x', PBFT_PATTERN_BYTES_MAX + 1);
    text[0] = text[PBFT_PATTERN_BYTES_MAX] = '"';
    assert_int_equal(fed_proposal_add(p, limits, text, PBFT_PATTERN_BYTES_MAX + 1, &err),
                     SOV_ERR_LIMIT);
    text[PBFT_PATTERN_BYTES_MAX - 1] = '"';
    int taken = 0;
    while (fed_proposal_add(p, limits, text, PBFT_PATTERN_BYTES_MAX, &err) == SOV_OK) taken++;
    assert_int_equal(taken, 3); /* of 64 KiB each, in a request of 256 */
    assert_int_equal(p->count, 3);
    fed_proposal_free(p);
    assert_int_equal(fed_proposal_create(&p, NULL), SOV_OK);
    for (int i = 0; i < PBFT_REQUEST_PATTERNS_MAX; i++)
        assert_int_equal(fed_proposal_add(p, limits, "1", 1, &err), SOV_OK);
    assert_int_equal(fed_proposal_add(p, limits, "1", 1, &err), SOV_ERR_LIMIT);
    fed_proposal_free(p);
    free(text);
}

static void test_a_node_that_ends_says_so(void **state)
{
    (void)state;
    struct waited waited[3];
    /* Without a quorum nothing is committed. */
    inside_stop(&in, 2);
    inside_stop(&in, 3);
    for (int i = 0; i < 3; i++) propose(0, &waited[i], "{\"too\": \"late\"}");
    fed_pause(50);
    inside_stop(&in, 0);
    for (int i = 0; i < 3; i++) {
        assert_true(atomic_load(&waited[i].done));
        assert_int_equal(waited[i].proposal->outcome, PBFT_LOST);
        assert_int_not_equal(waited[i].proposal->fate, FED_DECIDED);
        assert_false(waited[i].proposal->timed_out);
        fed_proposal_free(waited[i].proposal);
    }
}

/* What was sent cannot be taken back, what was not is; and a request that nobody waits for is committed. */
static void test_proposals_time_out(void **state)
{
    (void)state;
    enum { SENT = 2, ALL = 4, SHORT_MS = 100 };
    struct waited waited[ALL];
    struct sov_errbuf err = {""};
    char json[40];
    inside_stop(&in, 2);
    inside_stop(&in, 3);
    for (int i = 0; i < ALL;) {
        snprintf(json, sizeof json, "{\"late\": %d}", i);
        propose_within(0, &waited[i], json, SHORT_MS);
        if (i < SENT)
            FED_WAIT_FOR(inside_see(&in, 0).under_way > (uint64_t)i ||
                         atomic_load(&waited[i].done));
        /* Not even sent in that time, by a machine that had other things to do: anew. */
        if (i < SENT && atomic_load(&waited[i].done) && waited[i].proposal->fate == FED_NEVER)
            fed_proposal_free(waited[i].proposal);
        else
            i++;
    }
    for (int i = 0; i < ALL; i++) {
        const struct fed_proposal *p = waited[i].proposal;
        FED_WAIT_FOR(atomic_load(&waited[i].done));
        assert_true(p->timed_out && p->latency_ns >= SHORT_MS * MS);
        assert_int_equal(p->outcome, PBFT_LOST);
        assert_int_equal(p->fate, i < SENT ? FED_UNDECIDED : FED_NEVER);
    }
    struct message_digest none = {{0}};
    assert_memory_not_equal(&waited[0].proposal->ids[0], &none, sizeof none);
    char text[256];
    fed_proposal_explain(waited[0].proposal, text, sizeof text);
    assert_non_null(strstr(text, "within 0.1 s"));
    for (int i = 0; i < ALL; i++) fed_proposal_free(waited[i].proposal);
    FED_WAIT_FOR(inside_see(&in, 0).waiting == 0);
    if (inside_start(&in, 2, &err) != SOV_OK) fail_msg("%s", err.message);
    propose(0, &waited[0], "{\"in\": \"time\"}");
    assert_true(await(&waited[0]) > 0);
    FED_WAIT_FOR(inside_see(&in, 0).patterns == SENT + 1);
}

static void test_beginning_without_memory(void **state)
{
    (void)state;
    struct sov_errbuf err = {""};
    struct waited waited;
    char folder[PATH_MAX];
    long n = 0;
    inside_stop(&in, 1);
    fed_path(&in.fed, 1, "", folder);
    assert_int_equal(datadir_open(folder, &in.dirs[1], NULL), SOV_OK);
    /* Others allocate, too: which allocation of the node's it hits is left to chance. */
    for (; in.nodes[1] == NULL; n += 3) {
        struct fed_node_options options = {.config = &in.fed.config, .dir = in.dirs[1]};
        assert_true(n < 20000);
        sov_mem_fail_after(n, false);
        enum sov_error rc = fed_node_create(&options, &in.nodes[1], &err);
        sov_mem_fail_after(-1, false);
        if (rc != SOV_OK) assert_int_equal(rc, SOV_ERR_NOMEM);
    }
    assert_int_equal(fed_node_start(in.nodes[1], &err), SOV_OK);
    propose(1, &waited, "{\"it\": \"works\"}");
    assert_true(await(&waited) > 0);
}

/* Another key for node 3, beside the one it has; its public part in hexadecimal. */
static void make_key(char path[PATH_MAX], char hex[65])
{
    char folder[PATH_MAX];
    struct identity *identity;
    fed_path(&in.fed, 3, "new", folder);
    assert_int_equal(identity_open(folder, &identity, NULL), SOV_OK);
    sodium_bin2hex(hex, 65, identity_public(identity), IDENTITY_PUBLIC_BYTES);
    identity_close(identity);
    fed_path(&in.fed, 3, "new/node.key", path);
}

static enum pbft_outcome change_members(int node, const struct message_change *change)
{
    struct waited waited = {.proposal = NULL};
    assert_int_equal(fed_proposal_create(&waited.proposal, NULL), SOV_OK);
    waited.proposal->done = on_done;
    waited.proposal->user = &waited;
    waited.proposal->is_change = true;
    waited.proposal->change = *change;
    assert_int_equal(fed_node_propose(in.nodes[node], waited.proposal, NULL), SOV_OK);
    FED_WAIT_FOR(atomic_load(&waited.done));
    enum pbft_outcome outcome = waited.proposal->outcome;
    fed_proposal_free(waited.proposal);
    return outcome;
}

static void propose_until_epoch(uint32_t epoch)
{
    char json[40];
    for (int i = 0; inside_see(&in, 0).epoch < epoch; i++) {
        struct waited more;
        assert_true(i < 1000);
        snprintf(json, sizeof json, "{\"n\": %d}", i);
        propose(i % 3, &more, json);
        await(&more);
    }
}

static void test_new_key_by_consent(void **state)
{
    (void)state;
    struct waited waited;
    char text[200], hex[65], key[PATH_MAX], path[PATH_MAX], folder[PATH_MAX];
    struct message_change change;
    struct sov_errbuf err = {""};
    make_key(key, hex);
    snprintf(text, sizeof text, "rekey 3 %s 127.0.0.1:%d", hex, in.fed.port + 3);
    assert_int_equal(fed_change_read(text, &change, NULL), SOV_OK);
    /* Nobody has agreed to it. */
    assert_int_not_equal(change_members(1, &change), PBFT_COMMITTED);
    for (int i = 0; i < FED_NODES; i++) {
        fed_path(&in.fed, i, "", folder);
        assert_int_equal(fed_change_approve(folder, &change, NULL), SOV_OK);
    }
    assert_int_equal(change_members(1, &change), PBFT_COMMITTED);
    propose_until_epoch(1);
    /* The old key is nobody's any more. */
    FED_WAIT_FOR(!inside_see(&in, 0).peers[3].link.up);
    inside_stop(&in, 3);
    fed_path(&in.fed, 3, "node.key", path);
    assert_int_equal(rename(key, path), 0);
    if (inside_start(&in, 3, &err) != SOV_OK) fail_msg("%s", err.message);
    FED_WAIT_FOR(inside_see(&in, 0).peers[3].link.up);
    /* And its vote counts: without node 2 it is needed. */
    FED_WAIT_FOR(inside_see(&in, 3).epoch == 1 && inside_see(&in, 3).core.state == PBFT_NORMAL);
    inside_stop(&in, 2);
    propose(3, &waited, "{\"new\": \"key\"}");
    assert_true(await(&waited) > 0);
}

/* ---- the local control ---- */

/* Node 3 anew, with a control. */
static struct control *controlled_start(void)
{
    struct sov_errbuf err = {""};
    struct control *control;
    char folder[PATH_MAX];
    inside_stop(&in, 3);
    fed_path(&in.fed, 3, "", folder);
    assert_int_equal(datadir_open(folder, &in.dirs[3], NULL), SOV_OK);
    struct fed_node_options options = {.config = &in.fed.config, .dir = in.dirs[3]};
    if (fed_node_create(&options, &in.nodes[3], &err) != SOV_OK ||
        control_open(in.nodes[3], folder, &control, &err) != SOV_OK ||
        fed_node_start(in.nodes[3], &err) != SOV_OK)
        fail_msg("%s", err.message);
    return control;
}

static void controlled_stop(struct control *control)
{
    fed_node_join(in.nodes[3]);
    control_close(control);
}

/* A socket of node 3's control, to be connected; *folder is to be closed afterwards. */
static int controlled_socket(struct sockaddr_un *address, int *folder)
{
    char path[PATH_MAX];
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    fed_path(&in.fed, 3, "", path);
    assert_true(fd >= 0 && control_address(path, folder, address));
    return fd;
}

/* Whoever asks and does not read is not answered without end; but in the end, everything. */
static void test_answers_that_are_not_read_take_no_memory(void **state)
{
    (void)state;
    enum { COUNT = 9000, LINE = 7 };
    static char requests[COUNT * LINE];
    static char answers[1 << 16];
    struct control *control = controlled_start();
    struct sockaddr_un address;
    int folder, fd = controlled_socket(&address, &folder);
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof address), 0);
    close(folder);
    size_t heap = heap_bytes();
    for (int i = 0; i < COUNT; i++) memcpy(requests + i * LINE, "status\n", LINE);
    assert_int_equal(send(fd, requests, sizeof requests, MSG_NOSIGNAL), sizeof requests);
    struct pollfd ready = {.fd = fd, .events = POLLIN};
    assert_int_equal(poll(&ready, 1, FED_WAIT_S * 1000), 1);
    assert_true(heap_bytes() < heap + FLOOD_BYTES);
    for (int lines = 0; lines < COUNT;) {
        ssize_t got = recv(fd, answers, sizeof answers, 0);
        assert_true(got > 0);
        for (ssize_t i = 0; i < got; i++) lines += answers[i] == '\n';
    }
    close(fd);
    controlled_stop(control);
}

static void test_without_descriptors_a_node_does_not_spin(void **state)
{
    (void)state;
    enum {
        PAUSE_MS = 300,
        TURNS_MAX = 1000
    }; /* a loop that spins makes 100,000 turns in a second */
    struct rlimit before, none;
    char answer[16];
    struct control *control = controlled_start();
    FED_WAIT_FOR(inside_see(&in, 3).peers[0].link.up && inside_see(&in, 3).peers[1].link.up &&
                 inside_see(&in, 3).peers[2].link.up);
    struct sockaddr_un address;
    int folder, fd = controlled_socket(&address, &folder);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    none = (struct rlimit){1, before.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    int connected = connect(fd, (struct sockaddr *)&address, sizeof address);
    uint64_t turns = inside_see(&in, 3).turns;
    fed_pause(PAUSE_MS);
    turns = inside_see(&in, 3).turns - turns;
    setrlimit(RLIMIT_NOFILE, &before);
    close(folder);
    assert_int_equal(connected, 0);
    assert_true(turns < TURNS_MAX);
    /* With room it is served. */
    assert_int_equal(send(fd, "status\n", 7, MSG_NOSIGNAL), 7);
    struct pollfd ready = {.fd = fd, .events = POLLIN};
    assert_int_equal(poll(&ready, 1, FED_WAIT_S * 1000), 1);
    assert_true(recv(fd, answer, sizeof answer, 0) > 0);
    close(fd);
    controlled_stop(control);
}

/* ---- a member that sends what no correct one sends ---- */

struct villain {
    struct loop *loop;
    struct links *links;
    struct identity *identity;
    bool deaf;                    /* it reads nothing */
    struct message_digest digest; /* of batch 1 */
    /* What it sends to node 0, again and again; count: how often it did. */
    void (*speak)(struct villain *villain, uint64_t count);
    struct identity *others[FED_NODES]; /* whose votes it may have gathered */
    atomic_bool stop;
    pthread_t thread;
    _Atomic uint64_t sent;
};

static bool villain_sign(void *user, const char *domain, const void *message, size_t length,
                         unsigned char signature[CHANNEL_SIGNATURE_BYTES])
{
    struct villain *v = user;
    return identity_sign(v->identity, domain, message, length, signature, NULL) == SOV_OK;
}

static bool villain_receive(void *user, int peer, unsigned char *bytes, size_t length)
{
    const struct villain *v = user;
    (void)peer;
    (void)bytes;
    (void)length;
    return !v->deaf;
}

static void villain_send(struct villain *v, const void *bytes, size_t length)
{
    struct link_message *out = link_message_create(bytes, length);
    if (out == NULL) return;
    links_send(v->links, 0, out);
    link_message_release(out);
    atomic_fetch_add(&v->sent, 1);
}

static void villain_say(struct villain *v, const struct message *m)
{
    static uint8_t bytes[1 << 20];
    villain_send(v, bytes, message_encode(m, bytes, sizeof bytes));
}

/* COMMITs with signatures that are not, and some that end too early. */
static void say_rubbish(struct villain *v, uint64_t count)
{
    struct message m = {.kind = MESSAGE_COMMIT, .sender = 3};
    uint8_t bytes[512];
    (void)count;
    for (int i = 0; i < 50; i++) {
        m.sequence = 1 + randombytes_uniform(40);
        randombytes_buf(m.signature, sizeof m.signature);
        randombytes_buf(m.digest.bytes, sizeof m.digest.bytes);
        size_t length = message_encode(&m, bytes, sizeof bytes);
        villain_send(v, bytes, i == 49 ? length - 1 : length);
    }
}

/* Two different checkpoints, and more of them, each well signed. */
static void say_checkpoints(struct villain *v, uint64_t count)
{
    struct message m = {.kind = MESSAGE_CHECKPOINT, .sender = 3, .sequence = 32};
    struct message_digest signs;
    (void)count;
    for (int i = 0; i < 50; i++) {
        randombytes_buf(m.digest.bytes, sizeof m.digest.bytes);
        message_vote_digest(m.kind, &in.fed.config.federation, 0, m.sequence, &m.digest, &signs);
        identity_sign_digest(v->identity, signs.bytes, m.signature);
        villain_say(v, &m);
    }
}

/* Proposals, though it is not the primary, of requests in its own name; nothing in them is signed. */
static void say_proposals(struct villain *v, uint64_t count)
{
    enum { REQUESTS = 200 };
    struct message m = {.kind = MESSAGE_PRE_PREPARE, .sender = 3, .sequence = 1 + count % 60};
    const struct message_text text = {(const uint8_t *)"1", 1};
    struct message_scratch scratch;
    struct strbuf requests = {0};
    assert_int_equal(
        message_scratch_init(&scratch, &in.fed.config.core.limits, &in.fed.config.federation, NULL),
        SOV_OK);
    for (uint64_t i = 1; i <= REQUESTS; i++)
        assert_int_equal(message_request_build(&scratch, 3, count * REQUESTS + i, &text, 1,
                                               &requests, NULL, NULL),
                         SOV_OK);
    m.batch = (struct message_batch){.bytes = (const uint8_t *)requests.data,
                                     .length = (uint32_t)requests.length,
                                     .request_count = REQUESTS};
    villain_say(v, &m);
    strbuf_free(&requests);
    message_scratch_free(&scratch);
}

enum {
    PROVEN = 64,
    PROOF = 3
}; /* batches that a VIEW_CHANGE says were prepared, and votes for each */

/* It wants views, later and later ones, each time with other batches that were prepared. All of it is well signed. */
static void say_view_changes(struct villain *v, uint64_t count)
{
    static uint8_t bytes[PROVEN * 512];
    const struct message_digest *federation = &in.fed.config.federation;
    struct message m = {.kind = MESSAGE_VIEW_CHANGE,
                        .sender = 3,
                        .view = count + 1,
                        .digest = *federation,
                        .prepared = {.bytes = bytes, .count = PROVEN}};
    struct message_digest signs;
    for (uint64_t s = 1; s <= PROVEN; s++) {
        struct message_vote votes[PROOF];
        struct message_prepared prepared = {.sequence = s, .certificate = {votes, PROOF}};
        randombytes_buf(prepared.digest.bytes, sizeof prepared.digest.bytes);
        message_vote_digest(MESSAGE_PREPARE, federation, 0, s, &prepared.digest, &signs);
        for (uint8_t i = 0; i < PROOF; i++) {
            votes[i].seat = i;
            identity_sign_digest(v->others[i], signs.bytes, votes[i].signature);
        }
        message_prepared_put(&prepared, bytes, &m.prepared.length);
    }
    message_view_change_digest(federation, &m, &m.identity);
    identity_sign_digest(v->identity, m.identity.bytes, m.signature);
    villain_say(v, &m);
}

/* It asks for a batch, 50 bytes at a time. */
static void say_fetches(struct villain *v, uint64_t count)
{
    const struct message m = {
        .kind = MESSAGE_FETCH_BATCH, .sender = 3, .sequence = 1, .digest = v->digest};
    (void)count;
    for (int i = 0; i < 50; i++) villain_say(v, &m);
}

static void *villain_run(void *arg)
{
    struct villain *v = arg;
    for (uint64_t count = 0; !atomic_load(&v->stop); count++) {
        v->speak(v, count);
        loop_turn(v->loop, 1);
    }
    return NULL;
}

/* In the place of node 3. */
static void villain_start(struct villain *v, void (*speak)(struct villain *, uint64_t))
{
    struct link_peer victim = {.id = 0, .host = "127.0.0.1", .port = in.fed.port};
    char folder[PATH_MAX];
    *v = (struct villain){.speak = speak, .deaf = v->deaf, .digest = v->digest};
    inside_stop(&in, 3);
    for (int i = 0; i < FED_NODES; i++) {
        fed_path(&in.fed, i, "", folder);
        assert_int_equal(identity_open(folder, &v->others[i], NULL), SOV_OK);
    }
    v->identity = v->others[3];
    assert_int_equal(loop_create(&v->loop, NULL), SOV_OK);
    struct link_options options = {
        .loop = v->loop, .sign = villain_sign, .receive = villain_receive, .user = v};
    memcpy(options.federation, in.fed.config.federation.bytes, sizeof options.federation);
    memcpy(options.key, identity_public(v->identity), sizeof options.key);
    assert_int_equal(links_create(&options, &v->links, NULL), SOV_OK);
    memcpy(victim.key, in.fed.config.members[0].key, sizeof victim.key);
    assert_int_equal(links_configure(v->links, &victim, 1, NULL, 0, NULL), SOV_OK);
    assert_int_equal(pthread_create(&v->thread, NULL, villain_run, v), 0);
}

static void villain_end(struct villain *v)
{
    atomic_store(&v->stop, true);
    pthread_join(v->thread, NULL);
    links_free(v->links);
    loop_free(v->loop);
    for (int i = 0; i < FED_NODES; i++) identity_close(v->others[i]);
}

/* How many penalties of one peer, each longer than the one before, begin within that time. */
static uint64_t penalties_within(int64_t ns)
{
    struct node_penalty penalty = {0};
    uint64_t count = 0;
    for (int64_t now = MS; now <= ns + MS; now = penalty.until_ns) {
        penalty_add(&penalty, now);
        count++;
    }
    return count;
}

static void test_flood_of_one_member(void **state)
{
    (void)state;
    enum { COUNT = 60 };
    static struct waited waited;
    struct villain villain = {.deaf = false};
    char json[64];
    propose(0, &waited, "{}");
    await(&waited);
    int64_t begin = clock_monotonic_ns();
    villain_start(&villain, say_rubbish);
    FED_WAIT_FOR(inside_see(&in, 0).messages_bad > 0);
    size_t memory = inside_see(&in, 0).core.memory_bytes, heap = heap_bytes();
    /* The others go on, also by way of the node that is flooded. */
    for (int i = 0; i < COUNT; i++) {
        snprintf(json, sizeof json, "{\"n\": %d}", i);
        propose(i % 3, &waited, json);
        await(&waited);
    }
    FED_WAIT_FOR(inside_see(&in, 0).held > 0);
    struct fed_node_status s = inside_see(&in, 0);
    assert_true(heap_bytes() < heap + FLOOD_BYTES);
    villain_end(&villain);
    assert_int_equal(s.core.memory_bytes, memory);
    /* What it is told costs the sender, not the node: it is not listened to for ever longer. */
    print_message("%llu of %llu bad messages were looked at\n", (unsigned long long)s.messages_bad,
                  (unsigned long long)atomic_load(&villain.sent));
    assert_true(s.messages_bad >= 1);
    assert_true(s.messages_bad <= NODE_GROUP * penalties_within(s.now_ns - begin));
    /* Those that end too early have no signature to be looked at. */
    assert_true(s.signatures_bad > 0 && s.signatures_bad <= s.messages_bad);
    assert_int_equal(s.peers[3].bad_messages, s.messages_bad);
}

/* The others go on, also by way of the node that is flooded. */
static void propose_some(int count)
{
    struct waited waited;
    char json[64];
    for (int i = 0; i < count; i++) {
        snprintf(json, sizeof json, "{\"some\": %d}", i);
        propose(i % 3, &waited, json);
        await(&waited);
    }
}

static void test_proposals_of_who_is_not_the_primary_are_not_verified(void **state)
{
    (void)state;
    enum { COUNT = 100 };
    struct villain villain = {.deaf = false};
    villain_start(&villain, say_proposals);
    FED_WAIT_FOR(inside_see(&in, 0).messages_unwanted >= COUNT);
    propose_some(3);
    villain_end(&villain);
    struct fed_node_status s = inside_see(&in, 0);
    /* Had one signature been looked at, it would have been bad. */
    assert_int_equal(s.signatures_bad + s.messages_bad, 0);
}

static void test_signatures_of_one_member_do_not_fill_a_turn(void **state)
{
    (void)state;
    enum { COUNT = 40, EACH = PROVEN * PROOF + 1 };
    struct villain villain = {.deaf = false};
    villain_start(&villain, say_view_changes);
    FED_WAIT_FOR(inside_see(&in, 0).signatures_verified >= COUNT * EACH);
    propose_some(3);
    villain_end(&villain);
    struct fed_node_status s = inside_see(&in, 0);
    assert_int_equal(s.signatures_bad + s.messages_bad, 0);
    print_message("at most %llu of %llu signatures in one turn\n",
                  (unsigned long long)s.signatures_turn, (unsigned long long)s.signatures_verified);
    assert_true(s.signatures_turn >= EACH);
    assert_true(s.signatures_turn <= FED_NODES * (NODE_QUOTA_CHECKS + EACH));
}

static void test_what_is_asked_for_and_not_taken_is_not_made(void **state)
{
    (void)state;
    enum { LENGTH = 60000, ASKED = 1000 };
    struct villain villain = {.deaf = true};
    struct waited waited;
    struct fed_log *log;
    struct fed_log_entry entry;
    struct sov_errbuf err = {""};
    char folder[PATH_MAX];
    static char text[LENGTH + 1];
    memset(text, 'x', LENGTH);
    text[0] = text[LENGTH - 1] = '"';
    propose(0, &waited, text);
    assert_int_equal(await(&waited), 1);
    FED_WAIT_FOR(inside_see(&in, 0).core.durable >= 1);
    fed_path(&in.fed, 0, "", folder);
    if (fed_log_open(folder, &log, &err) != SOV_OK || fed_log_read(log, 1, &entry, &err) != SOV_OK)
        fail_msg("%s", err.message);
    memcpy(villain.digest.bytes, entry.digest, sizeof villain.digest.bytes);
    fed_log_close(log);
    uint64_t before = inside_see(&in, 0).messages_in;
    villain_start(&villain, say_fetches);
    /* Some fill what may wait for it; the rest is for nothing. */
    FED_WAIT_FOR(inside_see(&in, 0).messages_in >= before + ASKED &&
                 inside_see(&in, 0).peers[3].link.queued_bytes >= LENGTH);
    propose_some(3);
    struct fed_node_status s = inside_see(&in, 0);
    villain_end(&villain);
    assert_int_equal(s.messages_bad, 0);
    assert_int_equal(s.peers[3].link.overflowed, 0);
}

/* The log's disk may be the store's. */
static void test_the_log_does_not_grow_with_what_a_member_does_wrong(void **state)
{
    (void)state;
    enum { COUNT = 2000 };
    struct villain villain = {.deaf = false};
    char path[PATH_MAX];
    struct strbuf text = {0};
    fed_path(&in.fed, 0, "log.txt", path);
    int file = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600), before = dup(STDERR_FILENO);
    assert_true(file >= 0 && before >= 0);
    assert_true(dup2(file, STDERR_FILENO) >= 0);
    int64_t begin = clock_monotonic_ns();
    villain_start(&villain, say_checkpoints);
    bool all = false;
    for (int looks = FED_WAIT_S * 1000 / FED_LOOK_MS; looks > 0 && !all; looks--) {
        fed_pause(FED_LOOK_MS);
        all = inside_see(&in, 0).core.faults >= COUNT;
    }
    villain_end(&villain);
    int64_t seconds = (clock_monotonic_ns() - begin) / (1000 * MS);
    assert_true(dup2(before, STDERR_FILENO) >= 0);
    close(before);
    close(file);
    assert_true(all);
    assert_int_equal(file_read(path, 64 << 20, &text, NULL), SOV_OK);
    int lines = 0;
    for (const char *at = strbuf_text(&text); (at = strstr(at, "misbehaves")) != NULL; at++)
        lines++;
    strbuf_free(&text);
    assert_in_range(lines, 1, seconds + 1);
}

/* A program may go on without its node; who waits for a proposal must not wait for ever. */
static void test_a_node_whose_store_fails_ends_what_waits(void **state)
{
    (void)state;
    enum { COUNT = 3 };
    struct waited waited[COUNT];
    char path[PATH_MAX];
    inside_stop(&in, 2);
    inside_stop(&in, 3);
    propose(0, &waited[0], "{\"n\": 0}");
    FED_WAIT_FOR(inside_see(&in, 0).under_way == 1);
    fed_path(&in.fed, 0, "federation.sqlite", path);
    assert_int_equal(unlink(path), 0);
    for (int i = 1; i < COUNT; i++) propose(0, &waited[i], "{\"n\": 1}");
    for (int i = 0; i < COUNT; i++) {
        FED_WAIT_FOR(atomic_load(&waited[i].done));
        assert_int_not_equal(waited[i].proposal->fate, FED_DECIDED);
        assert_false(waited[i].proposal->timed_out);
        fed_proposal_free(waited[i].proposal);
    }
    assert_string_not_equal(fed_node_failure(in.nodes[0]), "");
}

int main(int argc, char **argv)
{
    if (argc > 1) cmocka_set_test_filter(argv[1]);
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_each_replica_digests_a_pattern_once),
        TEST(test_proposals_are_bounded),
        TEST(test_a_node_that_ends_says_so),
        TEST(test_proposals_time_out),
        TEST(test_beginning_without_memory),
        TEST(test_new_key_by_consent),
        TEST(test_answers_that_are_not_read_take_no_memory),
        TEST(test_without_descriptors_a_node_does_not_spin),
        TEST(test_flood_of_one_member),
        TEST(test_proposals_of_who_is_not_the_primary_are_not_verified),
        TEST(test_signatures_of_one_member_do_not_fill_a_turn),
        TEST(test_what_is_asked_for_and_not_taken_is_not_made),
        TEST(test_the_log_does_not_grow_with_what_a_member_does_wrong),
        TEST(test_a_node_whose_store_fails_ends_what_waits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
