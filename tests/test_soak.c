/* SPDX-License-Identifier: Apache-2.0 */
/* run-tests: seconds=300 */
/*
 * A mixed load on one server for SOAK_SECONDS (8; `make soak` runs it for half an hour with
 * AddressSanitizer): clients that come and go, long and short prompts that begin alike or not,
 * streams and whole answers, several choices, stop strings, log probabilities, echoed prompts,
 * clients that leave in the middle; in KV memory for a fraction of them, so that sequences are
 * preempted all the time.
 *
 * Every answer must equal the one that the same request got alone, with memory for everything and
 * nothing shared. Load comes in rounds; after each, when the server is idle, what is allocated and
 * what is open must be no more than after the first rounds.
 */
#include "tests/server_fixture.h"

#include <dirent.h>
#include <malloc.h>
#include <pthread.h>
#include <stdatomic.h>

/* AddressSanitizer counts what is allocated; the C library counts what it keeps for later too. */
#if defined(__SANITIZE_ADDRESS__)
enum { SOAK_GROWTH_BYTES = 64 << 10 };
/* gcc does not install the header that has it. */
size_t __sanitizer_get_current_allocated_bytes(void);
#else
enum { SOAK_GROWTH_BYTES = 1 << 20 };
#endif

enum {
    SOAK_SECONDS_DEFAULT = 8,
    SOAK_ROUND_MS_MIN = 1000,
    SOAK_ROUNDS = 30, /* of a long run */
    SOAK_WARM_ROUNDS = 3,
    SOAK_CLIENTS = 10,
    SOAK_PLANS = 60,
    SOAK_PARALLEL = 8,
    SOAK_CONTEXT = 512,
    SOAK_PAGES = 20, /* a context is 16 */
    SOAK_TEXT_MAX = 340,
    SOAK_WHOLE_EVERY = 3, /* of these answers one is read whole, the others are streams */
    SOAK_LEAVE_EVERY = 4, /* one of these clients leaves early */
};

static struct fixture f;

/* A request, without its end (", \"stream\": ..."), and what it gets alone. */
struct soak_plan {
    const char *path;
    struct strbuf body;
    json_t *choices;
    int completion_tokens;
    struct strbuf texts[16]; /* may hold zeros */
    const char *finish[16];
    int choice_count;
};
static struct soak_plan plans[SOAK_PLANS];

struct soak_client {
    pthread_t thread;
    uint32_t random;
    int64_t until_ns;
    int answers, left;
};
static atomic_bool soak_wrong; /* some client has said what */

static uint32_t soak_random(uint32_t *state)
{
    *state = *state * 1664525u + 1013904223u;
    return *state >> 8;
}

static void soak_put_text(struct strbuf *out, int bytes, uint32_t seed)
{
    for (int i = 0; i < bytes; i++)
        strbuf_putc(out, (char)(i % 6 == 5 ? ' ' : 'a' + (int)(soak_random(&seed) % 26)));
}

/* Half of the prompts begin with one of two long texts; others are short or alone of their kind. */
static void soak_put_prompt(struct strbuf *out, int i)
{
    if (i % 2 == 0) soak_put_text(out, 120 + i % 4 * 30, (uint32_t)(i % 4));
    soak_put_text(out, 1 + i * 53 % (SOAK_TEXT_MAX - 210), 100 + (uint32_t)i);
}

static void soak_make_plan(struct soak_plan *p, int i)
{
    bool chat = i % 5 == 3;
    p->path = chat ? "/v1/chat/completions" : "/v1/completions";
    strbuf_puts(&p->body,
                chat ? "{\"messages\":[{\"role\":\"user\",\"content\":\"" : "{\"prompt\":\"");
    soak_put_prompt(&p->body, i);
    strbuf_puts(&p->body, chat ? "\"}]" : "\"");
    strbuf_printf(&p->body, ",\"max_tokens\":%d,\"n\":%d,\"temperature\":%s,\"seed\":%d",
                  1 + i * 31 % 120, i % 7 == 2 ? 4 : 1, i % 3 == 0 ? "0" : "0.9", i);
    if (i % 4 == 1) strbuf_puts(&p->body, ",\"stop\":[\"a\",\"xyz\",\"the end of it\"]");
    if (i % 3 == 1) strbuf_puts(&p->body, ",\"frequency_penalty\":0.4,\"repetition_penalty\":1.1");
    if (i % 6 == 4) strbuf_puts(&p->body, ",\"top_p\":0.9,\"min_p\":0.01,\"top_k\":200");
    /* Not the likeliest tokens of completions: keys, in which our parser has no zeros. */
    if (chat && i % 2 == 0) strbuf_puts(&p->body, ",\"logprobs\":true,\"top_logprobs\":3");
    if (i % 5 == 0) strbuf_puts(&p->body, ",\"logprobs\":0");
    if (i % 10 == 5) strbuf_puts(&p->body, ",\"echo\":true");
    if (i % 8 == 6) strbuf_puts(&p->body, ",\"ignore_eos\":true");
    assert_false(strbuf_failed(&p->body));
}

static char *soak_body(const struct soak_plan *p, bool stream)
{
    struct strbuf body = {0};
    strbuf_printf(&body, "%s%s}", p->body.data,
                  stream ? ",\"stream\":true,\"stream_options\":{\"include_usage\":true}" : "");
    assert_false(strbuf_failed(&body));
    return body.data;
}

static void soak_start_engine(int parallel, size_t pages, bool reuse)
{
    struct sov_errbuf err = {0};
    fixture_start_engine(&f, 1, 1); /* for what is served; the engine itself is another */
    engine_free(f.engine);
    struct engine_options options = {
        .model = f.model,
        .tokenizer = f.tokenizer,
        .pool = f.pool,
        .parallel = parallel,
        .context = SOAK_CONTEXT,
        .queue_max = 256,
        .prefill_chunk = 48,
        .kv_bytes_max = pages * model_kv_page_bytes(f.model),
        .prefix_reuse = reuse,
    };
    FIXTURE_OK(engine_create(&options, &f.engine, &err));
    f.served.engine = f.engine;
    fixture_start_server(&f, NULL, true);
}

/* Of a choice: whole, or what an event of a stream adds to it. */
static void soak_put_choice_text(const json_t *choice, struct strbuf *out)
{
    const json_t *holder = json_object_get(choice, "message");
    if (holder == NULL) holder = json_object_get(choice, "delta");
    const json_t *text =
        holder != NULL ? json_object_get(holder, "content") : json_object_get(choice, "text");
    if (text != NULL) strbuf_append(out, json_string_value(text), json_string_length(text));
}

static void soak_run_alone(struct soak_plan *p)
{
    char *body = soak_body(p, false);
    json_t *root = post(f.port, p->path, body, 200);
    p->choices = json_incref(json_object_get(root, "choices"));
    p->completion_tokens = (int)json_integer_value(
        json_object_get(json_object_get(root, "usage"), "completion_tokens"));
    p->choice_count = (int)json_array_size(p->choices);
    assert_in_range(p->choice_count, 1, 16);
    for (int i = 0; i < p->choice_count; i++) {
        const json_t *choice = json_array_get(p->choices, (size_t)i);
        soak_put_choice_text(choice, &p->texts[i]);
        p->finish[i] = json_string_value(json_object_get(choice, "finish_reason"));
        assert_non_null(p->finish[i]);
    }
    json_decref(root);
    sov_free(body);
}

static void soak_complain(const struct soak_plan *p, const char *what, const char *got)
{
    atomic_store(&soak_wrong, true);
    print_error("%s: %s\n  alone: %.8000s\n  got: %.8000s\n", what, p->body.data,
                strbuf_text(&p->texts[0]), got);
}

static void soak_check_whole(const struct soak_plan *p, const struct response *r)
{
    json_t *root = json_loadb(strbuf_text(&r->body), r->body.length, JSON_ALLOW_NUL, NULL);
    json_t *usage = json_object_get(root, "usage");
    if (r->status != 200 || !json_equal(json_object_get(root, "choices"), p->choices) ||
        json_integer_value(json_object_get(usage, "completion_tokens")) != p->completion_tokens)
        soak_complain(p, "another answer than alone", strbuf_text(&r->body));
    json_decref(root);
}

/* Adds an event's text to its choice; false when it is none of ours. */
static bool soak_take_event(const struct soak_plan *p, const json_t *event, struct strbuf *texts,
                            int *ends, int *tokens)
{
    const json_t *usage = json_object_get(event, "usage");
    if (json_is_object(usage))
        *tokens = (int)json_integer_value(json_object_get(usage, "completion_tokens"));
    const json_t *choice = json_array_get(json_object_get(event, "choices"), 0);
    if (choice == NULL) return json_is_object(usage);
    json_int_t index = json_integer_value(json_object_get(choice, "index"));
    if (index < 0 || index >= p->choice_count) return false;
    soak_put_choice_text(choice, &texts[index]);
    const char *finish = json_string_value(json_object_get(choice, "finish_reason"));
    if (finish == NULL) return true;
    ends[index]++;
    return strcmp(finish, p->finish[index]) == 0;
}

static void soak_check_stream(const struct soak_plan *p, const struct response *r)
{
    struct strbuf texts[16] = {0};
    int ends[16] = {0}, tokens = -1;
    bool right = r->status == 200, done = false;
    const char *at = strbuf_text(&r->body);
    for (const char *end; right && !done; at = end + 2) {
        end = strstr(at, "\n\n");
        right = end != NULL && (at[0] == ':' || strncmp(at, "data: ", 6) == 0);
        if (!right) break;
        if (at[0] == ':') continue; /* a comment, after a time of silence */
        done = strncmp(at, "data: [DONE]", 12) == 0;
        json_t *event = json_loadb(at + 6, (size_t)(end - at - 6), JSON_ALLOW_NUL, NULL);
        if (!done) right = event != NULL && soak_take_event(p, event, texts, ends, &tokens);
        json_decref(event);
    }
    right = right && done && tokens == p->completion_tokens;
    for (int i = 0; i < p->choice_count; i++)
        right = right && ends[i] == 1 && texts[i].length == p->texts[i].length &&
                memcmp(strbuf_text(&texts[i]), strbuf_text(&p->texts[i]), texts[i].length) == 0;
    if (!right) {
        soak_complain(p, "another stream than alone", strbuf_text(&r->body));
        soak_complain(p, "of which the text is", strbuf_text(&texts[0]));
    }
    for (int i = 0; i < 16; i++) strbuf_free(&texts[i]);
}

/* Asks, reads the beginning of the answer or nothing, and goes. */
static void soak_leave(struct soak_client *c, struct client *connection)
{
    if (soak_random(&c->random) % 2 == 0) (void)client_more(connection);
    if (soak_random(&c->random) % 2 == 0)
        client_reset(connection);
    else
        client_close(connection);
    c->left++;
}

/* One connection, for a few requests. */
static void soak_connection(struct soak_client *c)
{
    struct client connection = client_open(f.port);
    int requests = 1 + (int)(soak_random(&c->random) % 5);
    for (int i = 0; i < requests && clock_monotonic_ns() < c->until_ns; i++) {
        const struct soak_plan *p = &plans[soak_random(&c->random) % SOAK_PLANS];
        bool stream = soak_random(&c->random) % SOAK_WHOLE_EVERY != 0;
        char *body = soak_body(p, stream);
        bool sent = client_request(&connection, "POST", p->path, "", body);
        sov_free(body);
        if (sent && soak_random(&c->random) % SOAK_LEAVE_EVERY == 0) {
            soak_leave(c, &connection);
            return;
        }
        struct response r = client_read(&connection, true);
        if (stream)
            soak_check_stream(p, &r);
        else
            soak_check_whole(p, &r);
        c->answers++;
        response_free(&r);
    }
    client_close(&connection);
}

static void *soak_client_main(void *arg)
{
    struct soak_client *c = arg;
    while (clock_monotonic_ns() < c->until_ns && !atomic_load(&soak_wrong)) soak_connection(c);
    return NULL;
}

static size_t soak_allocated(void)
{
#if defined(__SANITIZE_ADDRESS__)
    return __sanitizer_get_current_allocated_bytes();
#else
    struct mallinfo2 info = mallinfo2();
    return info.uordblks + info.hblkhd;
#endif
}

static int soak_open_files(void)
{
    DIR *dir = opendir("/proc/self/fd");
    assert_non_null(dir);
    int count = 0;
    while (readdir(dir) != NULL) count++;
    closedir(dir);
    return count;
}

/* Waits until what ended connections held is given back: the event thread does it when it can. */
static void soak_settle(size_t bytes, int files)
{
    int64_t until = clock_monotonic_ns() + (int64_t)FIXTURE_WAIT_MS * 1000000;
    await_idle(f.port);
    while (soak_allocated() > bytes || soak_open_files() > files) {
        if (clock_monotonic_ns() > until)
            fail_msg("%zu bytes and %d files are in use, %zu and %d were after the first rounds",
                     soak_allocated(), soak_open_files(), bytes, files);
        poll(NULL, 0, 10);
    }
}

static void soak_round(int number, int round_ms, int *answers, int *left)
{
    static struct soak_client clients[SOAK_CLIENTS];
    int64_t until_ns = clock_monotonic_ns() + (int64_t)round_ms * 1000000;
    for (int i = 0; i < SOAK_CLIENTS; i++) {
        clients[i] = (struct soak_client){.random = (uint32_t)(number * SOAK_CLIENTS + i),
                                          .until_ns = until_ns};
        assert_int_equal(pthread_create(&clients[i].thread, NULL, soak_client_main, &clients[i]),
                         0);
    }
    for (int i = 0; i < SOAK_CLIENTS; i++) {
        pthread_join(clients[i].thread, NULL);
        *answers += clients[i].answers;
        *left += clients[i].left;
    }
}

static int setup(void **state)
{
    (void)state;
    fixture_load(&f);
    soak_start_engine(1, SOAK_CONTEXT / 32, false);
    for (int i = 0; i < SOAK_PLANS; i++) {
        soak_make_plan(&plans[i], i);
        soak_run_alone(&plans[i]);
    }
    fixture_stop(&f);
    soak_start_engine(SOAK_PARALLEL, SOAK_PAGES, true);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    fixture_stop(&f);
    for (int i = 0; i < SOAK_PLANS; i++) {
        for (int k = 0; k < plans[i].choice_count; k++) strbuf_free(&plans[i].texts[k]);
        json_decref(plans[i].choices);
        strbuf_free(&plans[i].body);
    }
    fixture_unload(&f);
    return 0;
}

static void test_a_mixed_load_changes_no_answer_and_leaves_nothing_behind(void **state)
{
    (void)state;
    const char *setting = getenv("SOAK_SECONDS");
    int seconds = setting != NULL ? atoi(setting) : SOAK_SECONDS_DEFAULT;
    assert_in_range(seconds, 1, 1000000);
    int round_ms = seconds * 1000 / SOAK_ROUNDS, answers = 0, left = 0, files = 0;
    if (round_ms < SOAK_ROUND_MS_MIN) round_ms = SOAK_ROUND_MS_MIN;
    size_t bytes = 0;
    int64_t until_ns = clock_monotonic_ns() + (int64_t)seconds * 1000000000;
    for (int round = 0; clock_monotonic_ns() < until_ns || round <= SOAK_WARM_ROUNDS; round++) {
        soak_round(round, round_ms, &answers, &left);
        if (atomic_load(&soak_wrong)) fail_msg("an answer was wrong");
        await_metric(f.port, "sovereign_http_connections", 1); /* the one that asks */
        soak_settle(round < SOAK_WARM_ROUNDS ? SIZE_MAX : bytes + SOAK_GROWTH_BYTES,
                    round < SOAK_WARM_ROUNDS ? INT32_MAX : files);
        if (round < SOAK_WARM_ROUNDS && bytes < soak_allocated()) bytes = soak_allocated();
        if (round < SOAK_WARM_ROUNDS && files < soak_open_files()) files = soak_open_files();
        print_message("# round %d: %d answers, %d clients left, %.0f preemptions, %.0f prefix hits "
                      "of %.0f, %zu bytes\n",
                      round, answers, left, metric(f.port, "sovereign_preemptions_total"),
                      metric(f.port, "sovereign_prefix_hits_total"),
                      metric(f.port, "sovereign_prefix_lookups_total"), soak_allocated());
    }
    assert_true(answers > 0 && left > 0);
    assert_true(metric(f.port, "sovereign_preemptions_total") > 0);
    assert_true(metric(f.port, "sovereign_prefix_hits_total") > 0);
    assert_true(metric(f.port, "sovereign_prefix_evictions_total") > 0);
    assert_true(metric(f.port, "sovereign_sequences_cancelled_total") > 0);
    assert_true(metric(f.port, "sovereign_sequences_failed_total") == 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_mixed_load_changes_no_answer_and_leaves_nothing_behind),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
