/* SPDX-License-Identifier: Apache-2.0 */
/* run-tests: seconds=300 */
/*
 * The answer cache as clients see it: the same bytes as without it, no work for the engine, and what
 * a client may ask of it.
 */
#include "tests/server_cache_fixture.h"

#include <stdatomic.h>

/* Choices of a stream come in the order of the moment: puts one after the other. */
static void sort_choices(struct strbuf *body)
{
    struct strbuf sorted = {0};
    if (strncmp(body->data, "data: ", 6) != 0) return;
    for (int choice = 0; choice <= 16; choice++) {
        char index[32];
        snprintf(index, sizeof index, "\"index\":%d,", choice);
        for (const char *at = body->data, *end; (end = strstr(at, "\n\n")) != NULL; at = end + 2) {
            struct strbuf event = {0};
            strbuf_append(&event, at, (size_t)(end + 2 - at));
            const char *has = strstr(event.data, "\"index\":");
            bool mine = has != NULL ? strncmp(has, index, strlen(index)) == 0 : choice == 16;
            if (mine) strbuf_append(&sorted, event.data, event.length);
            strbuf_free(&event);
        }
    }
    assert_int_equal(sorted.length, body->length);
    strbuf_free(body);
    *body = sorted;
}

/* Fields of requests, without braces and without stream. */
static const struct {
    const char *path, *fields;
} REQUESTS[] = {
    {CHAT,
     "\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}],\"temperature\":0,\"max_tokens\":12"},
    {CHAT, "\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}],\"seed\":5,\"max_tokens\":9,"
           "\"logprobs\":true,\"top_logprobs\":3,\"n\":2"},
    {COMPLETIONS, "\"prompt\":\"Once\",\"seed\":1,\"max_tokens\":14,\"n\":3"},
    {COMPLETIONS, "\"prompt\":[\"Once\",\"Twice\"],\"seed\":2,\"max_tokens\":6,\"echo\":true,"
                  "\"logprobs\":2"},
    {COMPLETIONS, "\"prompt\":[72,73,74],\"seed\":3,\"max_tokens\":40,\"stop\":[\"e\",\"t\"],"
                  "\"logprobs\":0"},
    {COMPLETIONS, "\"prompt\":\"x\",\"temperature\":0,\"max_tokens\":0,\"echo\":true"},
};
enum { REQUEST_COUNT = sizeof REQUESTS / sizeof REQUESTS[0] };

static void test_a_hit_has_the_bytes_of_a_miss_in_every_form(void **state)
{
    (void)state;
    for (int i = 0; i < REQUEST_COUNT; i++) {
        for (int form = 0; form < 3; form++) {
            char first[1024], again[1024], how[16];
            snprintf(first, sizeof first, "{%s%s,\"cache\":false}", REQUESTS[i].fields,
                     FORMS[form]);
            snprintf(again, sizeof again, "{%s%s}", REQUESTS[i].fields, FORMS[form]);
            struct strbuf alone = answer_with(REQUESTS[i].path, "", first, how);
            assert_string_equal(how, "bypass");
            uint64_t before = computed();
            struct strbuf one = answer_with(REQUESTS[i].path, "", again, how);
            assert_string_equal(how, form == 0 ? "miss" : "hit");
            struct strbuf two = answer_with(REQUESTS[i].path, "", again, how);
            assert_string_equal(how, "hit");
            assert_string_equal(one.data, two.data);
            sort_choices(&one);
            sort_choices(&alone);
            assert_string_equal(one.data, alone.data);
            if (form > 0) assert_int_equal(computed(), before);
            strbuf_free(&alone);
            strbuf_free(&one);
            strbuf_free(&two);
        }
    }
}

/* The linker leads calls of these functions here (Makefile), and __real_ to the functions. */
static atomic_uint tokenized, submitted;

enum sov_error __real_tokenizer_encode(const struct tokenizer *tok, const char *text, size_t length,
                                       unsigned flags, struct token_list *list,
                                       struct sov_errbuf *err);
enum sov_error __wrap_tokenizer_encode(const struct tokenizer *tok, const char *text, size_t length,
                                       unsigned flags, struct token_list *list,
                                       struct sov_errbuf *err);
enum sov_error __wrap_tokenizer_encode(const struct tokenizer *tok, const char *text, size_t length,
                                       unsigned flags, struct token_list *list,
                                       struct sov_errbuf *err)
{
    atomic_fetch_add(&tokenized, 1);
    return __real_tokenizer_encode(tok, text, length, flags, list, err);
}

enum sov_error __real_tokenizer_encode_guarded(const struct tokenizer *tok, const char *text,
                                               size_t length, unsigned flags,
                                               const struct tokenizer_span *spans,
                                               size_t span_count, struct token_list *list,
                                               struct sov_errbuf *err);
enum sov_error __wrap_tokenizer_encode_guarded(const struct tokenizer *tok, const char *text,
                                               size_t length, unsigned flags,
                                               const struct tokenizer_span *spans,
                                               size_t span_count, struct token_list *list,
                                               struct sov_errbuf *err);
enum sov_error __wrap_tokenizer_encode_guarded(const struct tokenizer *tok, const char *text,
                                               size_t length, unsigned flags,
                                               const struct tokenizer_span *spans,
                                               size_t span_count, struct token_list *list,
                                               struct sov_errbuf *err)
{
    atomic_fetch_add(&tokenized, 1);
    return __real_tokenizer_encode_guarded(tok, text, length, flags, spans, span_count, list, err);
}

enum sov_error __real_engine_submit(struct engine *engine, const struct engine_request *request,
                                    engine_notify *notify, void *user, struct engine_job **out,
                                    struct sov_errbuf *err);
enum sov_error __wrap_engine_submit(struct engine *engine, const struct engine_request *request,
                                    engine_notify *notify, void *user, struct engine_job **out,
                                    struct sov_errbuf *err);
enum sov_error __wrap_engine_submit(struct engine *engine, const struct engine_request *request,
                                    engine_notify *notify, void *user, struct engine_job **out,
                                    struct sov_errbuf *err)
{
    atomic_fetch_add(&submitted, 1);
    return __real_engine_submit(engine, request, notify, user, out, err);
}

/* In whichever form it is asked for: seen before byte for byte, or only by what it means. */
static void test_a_hit_is_not_tokenized_and_wakes_no_engine(void **state)
{
    (void)state;
    for (int i = 0; i < REQUEST_COUNT; i++) {
        char body[1024];
        struct engine_stats before, after;
        atomic_store(&tokenized, 0);
        atomic_store(&submitted, 0);
        snprintf(body, sizeof body, "{%s}", REQUESTS[i].fields);
        expect_way(REQUESTS[i].path, "", body, "miss");
        assert_true(atomic_load(&submitted) > 0);
        bool is_text = strstr(body, "\"prompt\":[72") == NULL; /* else ids */
        assert_int_equal(atomic_exchange(&tokenized, 0) > 0, is_text);
        atomic_store(&submitted, 0);
        await_idle(f.port);
        engine_stats_read(f.engine, &before);
        for (int form = 0; form < 3; form++)
            for (int again = 0; again < 3; again++) {
                snprintf(body, sizeof body, "{%s%s%s}", again == 2 ? " " : "", REQUESTS[i].fields,
                         FORMS[form]);
                expect_way(REQUESTS[i].path, "", body, "hit");
                expect_way(REQUESTS[i].path, "Cache-Control: no-store\r\n", body, "hit");
            }
        engine_stats_read(f.engine, &after);
        assert_int_equal(atomic_load(&tokenized), 0);
        assert_int_equal(atomic_load(&submitted), 0);
        assert_int_equal(after.steps_total, before.steps_total);
    }
}

/* A stream that was computed as such is the same again, and the whole answer made of it, too. */
static void test_a_stream_fills_the_cache_for_whole_answers(void **state)
{
    (void)state;
    for (int i = 0; i < REQUEST_COUNT; i++) {
        char stream[1024], whole[1024], alone[1024], how[16];
        snprintf(stream, sizeof stream, "{%s%s}", REQUESTS[i].fields, FORMS[1]);
        snprintf(whole, sizeof whole, "{%s}", REQUESTS[i].fields);
        snprintf(alone, sizeof alone, "{%s,\"cache\":false}", REQUESTS[i].fields);
        struct strbuf first = answer_with(REQUESTS[i].path, "", stream, how);
        assert_string_equal(how, "miss");
        struct strbuf second = answer_with(REQUESTS[i].path, "", stream, how);
        assert_string_equal(how, "hit");
        assert_string_equal(first.data, second.data);
        struct strbuf from_stream = answer_with(REQUESTS[i].path, "", whole, how);
        assert_string_equal(how, "hit");
        struct strbuf computed_whole = answer_with(REQUESTS[i].path, "", alone, how);
        assert_string_equal(from_stream.data, computed_whole.data);
        strbuf_free(&first);
        strbuf_free(&second);
        strbuf_free(&from_stream);
        strbuf_free(&computed_whole);
    }
}

static void test_what_decides_the_answer_is_told_apart(void **state)
{
    (void)state;
    static const char *const DIFFERENT[] = {
        "{" P ",\"temperature\":0}",
        "{" P ",\"seed\":1}",
        "{" P ",\"seed\":2}",
        "{" P ",\"seed\":1,\"temperature\":0.5}",
        "{" P ",\"seed\":1,\"top_k\":3}",
        "{" P ",\"seed\":1,\"top_p\":0.5}",
        "{" P ",\"seed\":1,\"min_p\":0.5}",
        "{" P ",\"seed\":1,\"presence_penalty\":0.5}",
        "{" P ",\"seed\":1,\"frequency_penalty\":0.5}",
        "{" P ",\"seed\":1,\"repetition_penalty\":1.5}",
        "{" P ",\"seed\":1,\"logit_bias\":{\"70\":1}}",
        "{" P ",\"seed\":1,\"logit_bias\":{\"71\":1}}",
        "{" P ",\"seed\":1,\"stop\":\"a\"}",
        "{" P ",\"seed\":1,\"stop\":[\"a\",\"b\"]}",
        "{" P ",\"seed\":1,\"n\":2}",
        "{" P ",\"seed\":1,\"echo\":true}",
        "{" P ",\"seed\":1,\"logprobs\":0}",
        "{" P ",\"seed\":1,\"logprobs\":1}",
        "{" P ",\"seed\":1,\"ignore_eos\":true}",
        "{\"prompt\":\"same\",\"max_tokens\":3,\"seed\":1}",
        "{\"prompt\":\"same \",\"max_tokens\":2,\"seed\":1}",
        "{\"prompt\":[\"sa\",\"me\"],\"max_tokens\":2,\"seed\":1}",
        "{\"prompt\":[\"sam\",\"e\"],\"max_tokens\":2,\"seed\":1}",
        "{\"prompt\":[115,97],\"max_tokens\":2,\"seed\":1}",
    };
    for (size_t i = 0; i < sizeof DIFFERENT / sizeof DIFFERENT[0]; i++)
        expect_way(COMPLETIONS, "", DIFFERENT[i], "miss");
    expect_way(CHAT, "",
               "{\"messages\":[{\"role\":\"user\",\"content\":\"same\"}],\"max_tokens\":2,"
               "\"seed\":1}",
               "miss");
    expect_way(CHAT, "",
               "{\"messages\":[{\"role\":\"system\",\"content\":\"same\"}],\"max_tokens\":2,"
               "\"seed\":1}",
               "miss");
    static const char *const SAME[] = {
        "{\"seed\":1,\"max_tokens\":2,\"prompt\":\"same\"}",
        "{\"model\":\"any\",\"user\":\"me\"," P ",\"seed\":1}",
        "{" P ",\"seed\":1,\"stream\":true}",
        "{" P ",\"seed\":1,\"temperature\":1,\"top_k\":-1,\"n\":null,\"cache\":true}",
        "{\"prompt\":[\"same\"],\"max_tokens\":2,\"seed\":1}",
        "{" P ",\"temperature\":0,\"seed\":9}", /* nothing is left to chance */
    };
    for (size_t i = 0; i < sizeof SAME / sizeof SAME[0]; i++)
        expect_way(COMPLETIONS, "", SAME[i], "hit");
    expect_way(CHAT, "",
               "{\"messages\":[{\"role\":\"developer\",\"content\":\"same\"}],"
               "\"max_completion_tokens\":2,\"seed\":1}",
               "hit");
}

static void test_chance_is_not_cached(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++) {
        expect_way(COMPLETIONS, "", "{" P "}", "bypass");
        expect_way(COMPLETIONS, "", "{" P ",\"seed\":-1}", "bypass");
        expect_way(COMPLETIONS, "", "{" P ",\"seed\":-1,\"stream\":true}", "bypass");
    }
    struct cache_stats stats;
    cache_stats_read(cache, &stats);
    assert_int_equal(stats.entries, 0);
    assert_int_equal(stats.misses, 0);
}

static void test_clients_say_what_they_want_of_the_cache(void **state)
{
    (void)state;
    static const char PLAIN[] = "{" P ",\"seed\":1}";
    for (int i = 0; i < 2; i++) {
        expect_way(COMPLETIONS, "", "{" P ",\"seed\":1,\"cache\":false}", "bypass");
        expect_way(COMPLETIONS, "Cache-Control: no-store\r\n", PLAIN, "miss");
        expect_way(COMPLETIONS, "", "{" P ",\"seed\":1,\"cache\":{\"no_store\":true}}", "miss");
    }
    expect_way(COMPLETIONS, "", PLAIN, "miss");
    expect_way(COMPLETIONS, "Cache-Control: no-store\r\n", PLAIN, "hit");
    expect_way(COMPLETIONS, "Cache-Control: max-age=3600\r\n", PLAIN, "hit");
    expect_way(COMPLETIONS, "", "{" P ",\"seed\":1,\"cache\":{\"max_age\":3600}}", "hit");
    /* Each of these is computed, and kept for the next. */
    expect_way(COMPLETIONS, "Cache-Control: no-cache\r\n", PLAIN, "miss");
    expect_way(COMPLETIONS, "X: y\r\ncache-control: foo, NO-CACHE ,bar=1\r\n", PLAIN, "miss");
    expect_way(COMPLETIONS, "Cache-Control: max-age=60\r\nCache-Control: no-cache\r\n", PLAIN,
               "miss");
    expect_way(COMPLETIONS, "", PLAIN, "hit");
    expect_way(COMPLETIONS, "Cache-Control: no-cache, no-store\r\n", PLAIN, "miss");
    expect_way(COMPLETIONS, "Cache-Control: max-age=60, private, max-stale\r\n", PLAIN, "hit");

    static const struct {
        const char *value, *param;
    } WRONG[] = {
        {"1", "\"param\":\"cache\""},
        {"\"no\"", "\"param\":\"cache\""},
        {"[]", "\"param\":\"cache\""},
        {"{\"no_store\":1}", "\"param\":\"cache.no_store\""},
        {"{\"max_age\":-1}", "\"param\":\"cache.max_age\""},
        {"{\"max_age\":1.5}", "\"param\":\"cache.max_age\""},
        {"{\"nostore\":true}", "\"param\":\"cache.nostore\""},
    };
    for (size_t i = 0; i < sizeof WRONG / sizeof WRONG[0]; i++) {
        char body[256];
        snprintf(body, sizeof body, "{" P ",\"seed\":1,\"cache\":%s}", WRONG[i].value);
        struct response r = http(f.port, "POST", COMPLETIONS, "", body);
        if (strstr(strbuf_text(&r.body), WRONG[i].param) == NULL)
            fail_msg("%s: %s", body, strbuf_text(&r.body));
        expect_error(&r, 400, NULL, "cache");
    }
}

static void with_keys(bool share)
{
    char file[128];
    snprintf(file, sizeof file, "%s/keys", f.dir);
    FILE *keys = fopen(file, "w");
    assert_non_null(keys);
    fputs("alpha-key\nbeta-key\n", keys);
    fclose(keys);
    struct server_options o;
    server_options_default(&o);
    o.api_key_file = file;
    start_cached(8, 64, 0, &o, share);
    static const char BODY[] = "{" P ",\"seed\":1}";
    expect_way(COMPLETIONS, "Authorization: Bearer alpha-key\r\n", BODY, "miss");
    expect_way(COMPLETIONS, "Authorization: Bearer alpha-key\r\n", BODY, "hit");
    expect_way(COMPLETIONS, "authorization: bearer  alpha-key \r\n", BODY, "hit");
    expect_way(COMPLETIONS, "Authorization: Bearer beta-key\r\n", BODY, share ? "hit" : "miss");
    expect_way(COMPLETIONS, "Authorization: Bearer beta-key\r\n", BODY, "hit");
    unlink(file);
    (void)stop(NULL);
}

static void test_keys_share_answers_only_if_the_operator_says_so(void **state)
{
    (void)state;
    with_keys(false);
    with_keys(true);
}

/* The engine has no room for anything, and is not asked. */
static void test_a_hit_needs_no_engine(void **state)
{
    (void)state;
    static const char KNOWN[] = "{" P ",\"seed\":1}", NEW[] = "{" P ",\"seed\":2}";
    start_cached(1, 1, 0, NULL, false);
    expect_way(COMPLETIONS, "", KNOWN, "miss");
    struct client running = client_open(f.port), waiting = client_open(f.port);
    engine_hold(0);
    client_request(&running, "POST", COMPLETIONS, "", SHARED(",\"cache\":false"));
    await_metric(f.port, "sovereign_requests_running", 1);
    client_request(&waiting, "POST", COMPLETIONS, "", SHARED(",\"cache\":false"));
    await_metric(f.port, "sovereign_requests_waiting", 1);
    uint64_t before = computed();
    expect_way(COMPLETIONS, "", KNOWN, "hit");
    expect_way(COMPLETIONS, "", "{" P ",\"seed\":1,\"stream\":true}", "hit");
    assert_int_equal(computed(), before);
    struct response r = http(f.port, "POST", COMPLETIONS, "", NEW);
    expect_error(&r, 429, "server_busy", "");
    r = http(f.port, "POST", COMPLETIONS, "", "{" P ",\"seed\":2,\"stream\":true}");
    expect_error(&r, 429, "server_busy", "");
    client_close(&waiting);
    client_close(&running);
    engine_let_go();
    await_idle(f.port);
    /* The refusal was not kept. */
    expect_way(COMPLETIONS, "", NEW, "miss");
    (void)stop(NULL);
}

/* A disk that gives back one answer, and only when it is let. */
struct slow_disk {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool asked, open;
    struct cache_value *written; /* what the cache told to write */
};

static void slow_disk_write(void *user, struct cache_value *value)
{
    struct slow_disk *d = user;
    pthread_mutex_lock(&d->lock);
    cache_value_release(d->written);
    d->written = value;
    cache_value_hold(value);
    pthread_mutex_unlock(&d->lock);
}

static void slow_disk_read(void *user, const struct cache_key *key)
{
    struct slow_disk *d = user;
    struct cache_value *value = NULL;
    pthread_mutex_lock(&d->lock);
    d->asked = true;
    pthread_cond_signal(&d->changed);
    while (!d->open) pthread_cond_wait(&d->changed, &d->lock);
    if (cache_hash_equal(key->hash, d->written->hash))
        value = cache_value_create(key, cache_value_bytes(d->written), d->written->length);
    if (value != NULL) {
        value->serial = d->written->serial;
        value->born_mono_ms = d->written->born_mono_ms;
        cache_insert_cold(cache, value);
    }
    pthread_mutex_unlock(&d->lock);
}

/*
 * While answers come back from disk, one that is not there yet is waited for, and computed no second
 * time; but all others are answered meanwhile, however long the disk takes.
 */
static void test_a_slow_disk_holds_up_only_who_needs_it(void **state)
{
    (void)state;
    static const char KNOWN[] = "{" P ",\"seed\":1}", ON_DISK[] = "{" P ",\"seed\":2}";
    struct slow_disk disk = {.lock = PTHREAD_MUTEX_INITIALIZER,
                             .changed = PTHREAD_COND_INITIALIZER};
    struct cache_listener listener = {
        .user = &disk, .inserted = slow_disk_write, .fetch = slow_disk_read};
    cache_listen(cache, &listener);
    expect_way(COMPLETIONS, "", KNOWN, "miss");
    expect_way(COMPLETIONS, "", ON_DISK, "miss");
    const struct cache_value *written = disk.written;
    struct cache_key key = {written->bytes, written->key_length, written->hash};
    assert_true(cache_remove(cache, &key));
    cache_set_fetching(cache, true);
    uint64_t before = computed();
    struct client waiting = client_open(f.port), streaming = client_open(f.port);
    client_request(&waiting, "POST", COMPLETIONS, "", ON_DISK);
    client_request(&streaming, "POST", COMPLETIONS, "", "{" P ",\"seed\":2,\"stream\":true}");
    pthread_mutex_lock(&disk.lock);
    while (!disk.asked) pthread_cond_wait(&disk.changed, &disk.lock);
    pthread_mutex_unlock(&disk.lock);
    for (int i = 0; i < 3; i++) {
        expect_way(COMPLETIONS, "", KNOWN, "hit");
        expect_way(COMPLETIONS, "", "{\"seed\":1," P "}", "hit"); /* not seen in this form */
        expect_way(COMPLETIONS, "", "{" P ",\"seed\":9,\"cache\":false}", "bypass");
    }
    assert_int_equal(computed(), before + 3);
    pthread_mutex_lock(&disk.lock);
    disk.open = true;
    pthread_cond_signal(&disk.changed);
    pthread_mutex_unlock(&disk.lock);
    struct strbuf text = rest_of(&waiting, "hit");
    strbuf_free(&text);
    text = rest_of(&streaming, "hit");
    strbuf_free(&text);
    assert_int_equal(computed(), before + 3);
    cache_set_fetching(cache, false);
    cache_listen(cache, &(struct cache_listener){0});
    cache_value_release(disk.written);
}

static void test_errors_reach_all_and_are_not_kept(void **state)
{
    (void)state;
    struct strbuf body = {0};
    strbuf_puts(&body, "{\"seed\":1,\"prompt\":[70");
    for (int i = 0; i < FIXTURE_CONTEXT; i++) strbuf_puts(&body, ",70");
    strbuf_puts(&body, "]}");
    for (int i = 0; i < 2; i++) {
        struct response r = http(f.port, "POST", COMPLETIONS, "", body.data);
        assert_non_null(strstr(r.body.data, "\"param\":\"prompt\""));
        expect_error(&r, 400, "context_length_exceeded", "8192 tokens");
        r = http(f.port, "POST", COMPLETIONS, "",
                 "{\"prompt\":\"\",\"seed\":1,\"stream\":true,"
                 "\"max_tokens\":1,\"logit_bias\":{\"70\":101}}");
        expect_error(&r, 400, NULL, "logit_bias");
    }
    strbuf_free(&body);
    assert_int_equal(flights().in_flight, 0);
    struct cache_stats stats;
    cache_stats_read(cache, &stats);
    assert_int_equal(stats.entries, 0);
}

static void test_what_is_no_answer_is_computed_again(void **state)
{
    (void)state;
    static const char BODY[] = "{" P ",\"seed\":1}";
    struct api_request request;
    struct api_error bad;
    struct cache_encoder encoder;
    struct cache_key key;
    struct answer_scope scope = {
        .model_digest = {7}, .chat_template = f.served.chat_template, .context = FIXTURE_CONTEXT};
    assert_true(api_request_parse(false, BODY, strlen(BODY), FIXTURE_VOCAB, &request, &bad));
    cache_encoder_init(&encoder);
    answer_key_encode(&encoder, &scope, &request, NULL, 0);
    assert_int_equal(cache_key_finish(&encoder, &secret, &key, NULL), SOV_OK);
    assert_int_equal(
        cache_insert(cache, &key, "\1\1\1\0nonsense", 12, cache_now_read(), NULL, NULL), SOV_OK);
    expect_way(COMPLETIONS, "", BODY, "miss");
    expect_way(COMPLETIONS, "", BODY, "hit");
    cache_encoder_free(&encoder);
    api_request_free(&request);
}

/* Wherever an allocation fails: an error or a closed connection, nothing hangs, nothing is wrong. */
static void test_out_of_memory(void **state)
{
    (void)state;
    enum { ALLOCATIONS = 120 };
    static const char *const BODIES[] = {"{\"prompt\":\"a\",\"max_tokens\":2,\"seed\":%ld}",
                                         "{\"prompt\":\"a\",\"max_tokens\":2,\"stream\":true,"
                                         "\"logprobs\":1,\"echo\":true,\"seed\":%ld}",
                                         "{\"prompt\":\"a\",\"max_tokens\":2,\"seed\":0}"};
    expect_way(COMPLETIONS, "", "{\"prompt\":\"a\",\"max_tokens\":2,\"seed\":0}", "miss");
    for (int which = 0; which < 3; which++)
        for (long i = 0; i < ALLOCATIONS; i++) {
            char body[256], text[512], answer[65536] = "";
            snprintf(body, sizeof body, BODIES[which], i + 1);
            int length =
                snprintf(text, sizeof text,
                         "POST " COMPLETIONS " HTTP/1.1\r\nHost: x\r\nContent-Length: %zu\r\n"
                         "\r\n%s",
                         strlen(body), body);
            struct client c = client_open(f.port);
            sov_mem_fail_after(i, false);
            client_send(&c, text, (size_t)length);
            size_t have = 0;
            ssize_t n;
            do {
                struct pollfd p = {.fd = c.fd, .events = POLLIN};
                if (poll(&p, 1, FIXTURE_WAIT_MS) != 1) fail_msg("no answer, allocation %ld", i);
                n = recv(c.fd, answer + have, sizeof answer - 1 - have, 0);
                have += n > 0 ? (size_t)n : 0;
                answer[have] = '\0';
            } while (n > 0 && strstr(answer, "\r\n\r\n") == NULL);
            sov_mem_fail_after(-1, false);
            long status = have > 12 ? strtol(answer + strlen("HTTP/1.1 "), NULL, 10) : 0;
            if (status != 0 && status != 200 && status != 503) fail_msg("%ld: %s", i, answer);
            client_close(&c);
        }
    await_idle(f.port);
    await_metric(f.port, "sovereign_cache_in_flight", 0);
    expect_way(COMPLETIONS, "", "{\"prompt\":\"a\",\"max_tokens\":2,\"seed\":0}", "hit");
}

static void test_metrics_tell_how_requests_were_answered(void **state)
{
    (void)state;
    expect_way(COMPLETIONS, "", "{" P ",\"seed\":1}", "miss");
    expect_way(COMPLETIONS, "", "{" P ",\"seed\":2}", "miss");
    for (int i = 0; i < 3; i++) expect_way(COMPLETIONS, "", "{" P ",\"seed\":1}", "hit");
    expect_way(COMPLETIONS, "", "{" P "}", "bypass");
    await_metric(f.port, "sovereign_cache_hits_total", 3);
    await_metric(f.port, "sovereign_cache_misses_total", 2);
    await_metric(f.port, "sovereign_cache_bypasses_total", 1);
    assert_true(metric(f.port, "sovereign_cache_joins_total") == 0);
    assert_true(metric(f.port, "sovereign_cache_entries") == 2);
    assert_true(metric(f.port, "sovereign_cache_bytes") > 0);
    assert_true(metric(f.port, "sovereign_cache_evictions_total") == 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        EACH(test_a_hit_has_the_bytes_of_a_miss_in_every_form),
        EACH(test_a_hit_is_not_tokenized_and_wakes_no_engine),
        EACH(test_a_stream_fills_the_cache_for_whole_answers),
        EACH(test_what_decides_the_answer_is_told_apart),
        EACH(test_chance_is_not_cached),
        EACH(test_clients_say_what_they_want_of_the_cache),
        cmocka_unit_test(test_keys_share_answers_only_if_the_operator_says_so),
        cmocka_unit_test(test_a_hit_needs_no_engine),
        EACH(test_a_slow_disk_holds_up_only_who_needs_it),
        EACH(test_errors_reach_all_and_are_not_kept),
        EACH(test_what_is_no_answer_is_computed_again),
        EACH(test_out_of_memory),
        EACH(test_metrics_tell_how_requests_were_answered),
    };
    return cmocka_run_group_tests(tests, load, unload);
}
