/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a query is found by and kept as: keys with all that decides its answer, records that are read
 * back as they were written and nothing else, and queries that follow them.
 */
#include "tests/query_world.h"

#include "runtime/query_cache.h"
#include "runtime/query_record.h"

/* ---- keys ---- */

static struct cache_hash key_of(struct world *w, const struct query_request *request,
                                const char *tenant)
{
    static const struct cache_secret SECRET = {{4, 5, 6}};
    struct cache_encoder encoder;
    struct cache_key key;
    struct sov_errbuf err = {""};
    cache_encoder_init(&encoder);
    if (query_key_encode(&w->config, request, tenant, strlen(tenant), &encoder, &err) != SOV_OK)
        fail_msg("%s", err.message);
    assert_int_equal(cache_key_finish(&encoder, &SECRET, &key, &err), SOV_OK);
    cache_encoder_free(&encoder);
    return key.hash;
}

static void whatever_decides_the_answer_is_in_the_key(void **state)
{
    struct world *w = *state;
    enum { ROWS = 22 };
    static const char *const STOPS[] = {"ab", "c", "a", "bc"};
    static const size_t LENGTHS[] = {2, 1, 1, 2};
    static const struct sampling_bias BIAS[] = {{.token = 3, .bias = 1}, {.token = 3, .bias = 2}};
    struct query_request rows[ROWS];
    const char *tenants[ROWS];
    struct cache_hash keys[ROWS + 4];
    struct rubric rubric;
    struct sov_errbuf err;
    open_world(w);
    assert_int_equal(model_digest_of_memory("a model", 7, &w->config.digest, &err), SOV_OK);
    rubric_default(&rubric);
    assert_true(query_rubric_digest(&rubric, w->config.rubric_digest));
    for (int i = 0; i < ROWS; i++) {
        rows[i] = ask(0);
        tenants[i] = "";
    }
    rows[1].length--;
    rows[2].max_depth = 1;
    rows[3].max_tokens = 3;
    rows[4].sampling.seed = 12;
    rows[5].sampling.temperature = 0.5f;
    rows[6].sampling.top_k = 3;
    rows[7].sampling.top_p = 0.5f;
    rows[8].sampling.min_p = 0.1f;
    rows[9].sampling.repetition_penalty = 1.5f;
    rows[10].sampling.presence_penalty = 1;
    rows[11].sampling.frequency_penalty = 1;
    rows[12].sampling.penalty_window = 3;
    tenants[13] = "a";
    tenants[14] = "b";
    rows[15].sampling.temperature = 0;
    for (int i = 16; i < 20; i++) {
        rows[i].stops = STOPS + (i == 19 ? 2 : 0); /* "ab", "c" is not "a", "bc" */
        rows[i].stop_lengths = LENGTHS + (i == 19 ? 2 : 0);
        rows[i].stop_count = i < 18 ? i - 15 : 2;
    }
    rows[18].sampling.bias = BIAS;
    rows[18].sampling.bias_count = 1;
    rows[20].sampling.bias = BIAS;
    rows[20].sampling.bias_count = 1;
    rows[21].sampling.bias = BIAS + 1;
    rows[21].sampling.bias_count = 1;
    int count = 0;
    for (; count < ROWS; count++) keys[count] = key_of(w, &rows[count], tenants[count]);
    /* Depth without reasoning, and a seed where there is no chance, decide nothing. */
    struct query_request same = rows[0];
    same.max_depth = 5;
    same.require_reasoning = false;
    assert_true(cache_hash_equal(key_of(w, &same, ""), keys[0]));
    same = rows[15];
    same.sampling.seed = 99;
    same.seed_given = false;
    assert_true(cache_hash_equal(key_of(w, &same, ""), keys[15]));
    same = rows[0];
    same.federated = same.stream = true;
    same.timeout_ms = 5;
    assert_true(cache_hash_equal(key_of(w, &same, ""), keys[0]));
    /* What is configured. */
    w->config.rubric_digest[0] ^= 1;
    keys[count++] = key_of(w, &rows[0], "");
    w->config.stop_belief = 0.5f;
    keys[count++] = key_of(w, &rows[0], "");
    w->config.projector.weights.bias[2] += 0.25f;
    keys[count++] = key_of(w, &rows[0], "");
    w->config.guide = true;
    keys[count++] = key_of(w, &rows[0], "");
    for (int i = 0; i < count; i++)
        for (int k = 0; k < i; k++)
            if (cache_hash_equal(keys[i], keys[k])) fail_msg("rows %d and %d", i, k);
    model_digest_free(w->config.digest);
    close_world(w);
}

static void what_is_left_to_chance_has_no_key(void **state)
{
    (void)state;
    struct query_request r = ask(1);
    assert_true(query_is_determined(&r));
    r.receipt = true; /* it has a time */
    assert_false(query_is_determined(&r));
    r.receipt = r.seed_given = false;
    r.sampling.temperature = 1;
    assert_false(query_is_determined(&r));
    r.sampling.temperature = 0;
    assert_true(query_is_determined(&r));
}

/* ---- records ---- */

#define HEAD "{\"query\":2}\n"
#define COUNTS ",\"counts\":[1,2,3,4,5,6]}\n"
#define STEP "{\"step\":\"so\"" COUNTS
#define THOUGHT "{\"thought\":\"so\",\"ended\":false,\"scores\":null" COUNTS
#define ANSWER "{\"answer\":\"yes\"" COUNTS
#define END "{\"stopped\":true,\"scores\":null" COUNTS
#define THOUGHTS_8 THOUGHT THOUGHT THOUGHT THOUGHT THOUGHT THOUGHT THOUGHT THOUGHT

static enum sov_error read_all(const char *text, size_t length, struct strbuf *again)
{
    struct query_record_reader reader = {0};
    const char *at = text, *end = text + length;
    enum sov_error rc = SOV_OK;
    while (at < end && rc == SOV_OK) {
        struct query_record r;
        rc = query_record_next(&reader, &at, end, &r);
        if (rc != SOV_OK) break;
        if (again != NULL) query_record_put(&r, again);
        query_record_free(&r);
    }
    return rc == SOV_OK && !reader.ended ? SOV_ERR_TIMEOUT : rc;
}

static void records_have_their_order_and_ranges(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        enum sov_error rc; /* TIMEOUT: good so far */
    } ROWS[] = {
        {HEAD STEP STEP THOUGHT STEP ANSWER ANSWER END, SOV_OK},
        {HEAD END, SOV_OK},
        {HEAD THOUGHTS_8 ANSWER END, SOV_OK},
        {HEAD ANSWER, SOV_ERR_TIMEOUT},
        {"", SOV_ERR_TIMEOUT},
        {ANSWER END, SOV_ERR_FORMAT},
        {HEAD HEAD END, SOV_ERR_FORMAT},
        {"{\"query\":1}\n" END, SOV_ERR_FORMAT},
        {HEAD END ANSWER, SOV_ERR_FORMAT},
        {HEAD ANSWER THOUGHT END, SOV_ERR_FORMAT},
        {HEAD ANSWER STEP END, SOV_ERR_FORMAT},
        {HEAD THOUGHTS_8 THOUGHT END, SOV_ERR_FORMAT},
        {HEAD "{\"answer\":1" COUNTS, SOV_ERR_FORMAT},
        {HEAD "{\"answer\":\"\"}\n", SOV_ERR_FORMAT},
        {HEAD "{\"answer\":\"\",\"counts\":[1,2,3,4,5]}\n", SOV_ERR_FORMAT},
        {HEAD "{\"answer\":\"\",\"counts\":[1,2,3,4,5,-1]}\n", SOV_ERR_FORMAT},
        {HEAD "{\"answer\":\"\",\"counts\":[1,2,3,4,5,0.5]}\n", SOV_ERR_FORMAT},
        {HEAD "{\"answer\":\"\",\"counts\":[1,2,3,4,5,4294967296]}\n", SOV_ERR_FORMAT},
        {HEAD "{\"thought\":\"so\",\"ended\":1,\"scores\":null" COUNTS, SOV_ERR_FORMAT},
        {HEAD "{\"thought\":\"so\",\"ended\":true,\"scores\":[1]" COUNTS, SOV_ERR_FORMAT},
        {HEAD "{\"stopped\":true" COUNTS, SOV_ERR_FORMAT},
        {HEAD "{\"stopped\":true,\"scores\":[0,0,0,0,0,0,0,2]" COUNTS, SOV_ERR_FORMAT},
        {HEAD "{\"stopped\":true,\"scores\":null,\"timings\":[1,2,3]" COUNTS, SOV_ERR_FORMAT},
        {HEAD "[]\n", SOV_ERR_FORMAT},
        {HEAD "\n", SOV_ERR_FORMAT},
        {HEAD "{\"answer\":\"\"", SOV_ERR_FORMAT},
    };
    for (size_t i = 0; i < sizeof ROWS / sizeof ROWS[0]; i++) {
        size_t length = strlen(ROWS[i].text);
        enum sov_error rc = read_all(ROWS[i].text, length, NULL);
        if (rc != ROWS[i].rc) fail_msg("%d: %s", rc, ROWS[i].text);
        for (size_t cut = 0; cut < length && ROWS[i].rc == SOV_OK; cut++)
            assert_int_not_equal(read_all(ROWS[i].text, cut, NULL), SOV_OK);
    }
}

static void records_are_read_as_they_were_written(void **state)
{
    (void)state;
    static const struct query_scores SCORES = {
        .there = true, .ihsan = {0, 1, 0.1f, 0.33333334f, 1e-30f, 0.99999994f, 0.5f, 0.7f}};
    struct query_record r = {.kind = QUERY_RECORD_HEAD, .text = "a\0\"b\n\xc3\xa9", .length = 7};
    struct strbuf text = {0}, again = {0};
    r.counts = (struct query_counts){1, 2, 3, 4, 5, 6};
    for (int kind = QUERY_RECORD_HEAD; kind <= QUERY_RECORD_END; kind++) {
        r.kind = (enum query_record_kind)kind;
        r.ended = kind == QUERY_RECORD_END;
        r.timed = true;
        r.scoring_ns = INT64_MAX / 4;
        r.scores = SCORES;
        query_record_put(&r, &text);
    }
    assert_int_equal(read_all(text.data, text.length, &again), SOV_OK);
    assert_string_equal(again.data, text.data);
    struct query_record_reader reader = {0};
    const char *at = text.data, *end = at + text.length;
    for (int kind = QUERY_RECORD_HEAD; kind <= QUERY_RECORD_END; kind++) {
        struct query_record got;
        assert_int_equal(query_record_next(&reader, &at, end, &got), SOV_OK);
        assert_int_equal(got.kind, kind);
        if (kind != QUERY_RECORD_HEAD) assert_memory_equal(&got.counts, &r.counts, sizeof r.counts);
        if (kind == QUERY_RECORD_THOUGHT || kind == QUERY_RECORD_END)
            assert_memory_equal(got.scores.ihsan, SCORES.ihsan, sizeof SCORES.ihsan);
        if (kind != QUERY_RECORD_HEAD && kind != QUERY_RECORD_END) {
            assert_int_equal(got.length, 7);
            assert_memory_equal(got.text, r.text, 7);
        }
        query_record_free(&got);
    }
    strbuf_free(&text);
    strbuf_free(&again);
}

/* ---- following ---- */

static struct query *follow(struct world *w, const struct query_request *request)
{
    struct query *q;
    struct sov_errbuf err = {""};
    if (query_create_following(&w->config, request, &q, &err) != SOV_OK)
        fail_msg("%s", err.message);
    return q;
}

static void tell(struct query *q, const char *records, size_t length)
{
    struct sov_errbuf err = {""};
    if (query_follow(q, records, length, &err) != SOV_OK) fail_msg("%s", err.message);
}

static void expect_told(const struct query_result *told, const struct query_result *computed)
{
    assert_true(told->over);
    assert_int_equal(told->depth_reached, computed->depth_reached);
    assert_int_equal(told->answer_length, computed->answer_length);
    assert_memory_equal(told->answer, computed->answer, computed->answer_length);
    assert_memory_equal(&told->scores, &computed->scores, sizeof told->scores);
    assert_memory_equal(&told->counts, &computed->counts, sizeof told->counts);
    for (int i = 0; i < told->depth_reached; i++) {
        assert_string_equal(strbuf_text(&told->thoughts[i].text),
                            strbuf_text(&computed->thoughts[i].text));
        assert_memory_equal(&told->thoughts[i].scores, &computed->thoughts[i].scores,
                            sizeof told->thoughts[i].scores);
    }
}

/* As it is kept, and with the engine gone; the gate judges anew. */
static void who_follows_shows_the_same(void **state)
{
    struct world *w = *state;
    struct query_request request = ask(2);
    struct query_result computed, told;
    struct strbuf kept = {0};
    open_world(w);
    struct query *q = run(&w->config, &request, &computed);
    query_record_put_all(&computed, &kept);
    engine_shutdown(w->engine, 0);
    for (int mode = GATE_OFF; mode <= GATE_ENFORCE; mode++) {
        w->config.gate = (enum gate_mode)mode;
        struct query *f = follow(w, &request);
        assert_false(query_has_begun(f));
        tell(f, kept.data, kept.length);
        finish(f, &told);
        expect_told(&told, &computed);
        assert_int_equal(told.status, computed.status);
        query_free(f);
    }
    w->config.thresholds = (struct gate_thresholds){1, 1, 1, 1, 0, 1};
    struct query *withheld = follow(w, &request);
    struct query_origin origin = {.cached = QUERY_CACHE_HIT, .age_ms = 7, .ns = 1000};
    query_set_origin(withheld, &origin);
    tell(withheld, kept.data, kept.length);
    finish(withheld, &told);
    assert_int_equal(told.status, QUERY_WITHHELD);
    json_t *root = as_json(withheld);
    const json_t *cache = json_object_get(root, "cache");
    assert_string_equal(json_string_value(json_object_get(cache, "status")), "hit");
    assert_int_equal(json_string_length(json_object_get(cache, "key")), 32);
    assert_int_equal(json_integer_value(json_object_get(cache, "age_ms")), 7);
    json_decref(root);
    query_free(withheld);
    query_free(q);
    strbuf_free(&kept);
    close_world(w);
}

/* However it is cut into pieces, the events are those of the query that was computed. */
static void events_come_as_they_are_told(void **state)
{
    struct world *w = *state;
    struct query_request request = ask(2);
    static const char *const CHUNKS[] = {HEAD, STEP, STEP, THOUGHT, STEP, ANSWER ANSWER, END};
    /* What there is after each of them: N none, S step, T thought, A answer, R scores. */
    static const char *const EVENTS[] = {"N", "S", "S", "T", "S", "A", "R"};
    open_world(w);
    request.steps = true;
    struct query *f = follow(w, &request);
    for (size_t i = 0; i < sizeof CHUNKS / sizeof CHUNKS[0]; i++) {
        struct query_event event;
        tell(f, CHUNKS[i], strlen(CHUNKS[i]));
        query_next(f, &event);
        char letter = event.kind == QUERY_EVENT_NONE      ? 'N'
                      : event.kind == QUERY_EVENT_STEP    ? 'S'
                      : event.kind == QUERY_EVENT_THOUGHT ? 'T'
                      : event.kind == QUERY_EVENT_ANSWER  ? 'A'
                                                          : 'R';
        if (letter != EVENTS[i][0]) fail_msg("%c behind %s", letter, CHUNKS[i]);
        if (letter == 'A') {
            assert_int_equal(event.length, 6);
            assert_memory_equal(event.text, "yesyes", 6);
        }
    }
    struct query_event event;
    query_next(f, &event);
    assert_int_equal(event.kind, QUERY_EVENT_END);
    query_free(f);
    close_world(w);
}

/* It ends with what it was told, in every phase. */
static void a_deadline_ends_who_follows(void **state)
{
    struct world *w = *state;
    struct query_request request = ask(3);
    static const struct {
        const char *told, *thoughts, *answer;
    } ROWS[] = {
        {"", "", ""},
        {HEAD, "", ""},
        {HEAD STEP STEP, "soso", ""},
        {HEAD STEP THOUGHT, "so", ""},
        {HEAD STEP THOUGHT STEP STEP, "so|soso", ""},
        {HEAD STEP ANSWER, "", "yes"}, /* a step that was no thought */
        {HEAD THOUGHT ANSWER ANSWER, "so", "yesyes"},
    };
    open_world(w);
    request.timeout_ms = 5;
    for (size_t i = 0; i < sizeof ROWS / sizeof ROWS[0]; i++) {
        for (int mode = GATE_OFF; mode <= GATE_ENFORCE; mode += GATE_ENFORCE - GATE_OFF) {
            struct query_result r;
            struct strbuf thoughts = {0};
            w->config.gate = (enum gate_mode)mode;
            struct query *f = follow(w, &request);
            assert_true(query_deadline_ns(f) > 0);
            tell(f, ROWS[i].told, strlen(ROWS[i].told));
            query_expire(f);
            finish(f, &r);
            assert_int_equal(r.status, mode == GATE_ENFORCE ? QUERY_WITHHELD : QUERY_TIMEOUT);
            assert_string_equal(r.answer, ROWS[i].answer);
            assert_false(r.scores.there);
            for (int k = 0; k < r.depth_reached; k++)
                strbuf_printf(&thoughts, "%s%s", k > 0 ? "|" : "",
                              strbuf_text(&r.thoughts[k].text));
            assert_string_equal(strbuf_text(&thoughts), ROWS[i].thoughts);
            strbuf_free(&thoughts);
            query_free(f);
        }
    }
    /* After the end it is too late. */
    struct query *f = follow(w, &request);
    struct query_result r;
    tell(f, HEAD ANSWER END, strlen(HEAD ANSWER END));
    query_expire(f);
    query_result(f, &r);
    assert_int_equal(r.status, QUERY_WITHHELD); /* it has no scores, and the gate enforces */
    w->config.gate = GATE_OFF;
    query_free(f);
    close_world(w);
}

static void nonsense_is_an_error(void **state)
{
    struct world *w = *state;
    static const char *const BAD[] = {ANSWER, HEAD "{}\n", HEAD END END, "x", HEAD HEAD};
    struct query_request request = ask(1);
    open_world(w);
    for (size_t i = 0; i < sizeof BAD / sizeof BAD[0]; i++) {
        struct query *f = follow(w, &request);
        struct sov_errbuf err = {""};
        assert_int_equal(query_follow(f, BAD[i], strlen(BAD[i]), &err), SOV_ERR_FORMAT);
        assert_non_null(strstr(err.message, "record"));
        query_free(f);
    }
    close_world(w);
}

static void a_lack_of_memory_is_told(void **state)
{
    struct world *w = *state;
    struct query_request request = ask(2);
    static const char TEXT[] = HEAD STEP THOUGHT ANSWER END;
    int failed = 0;
    open_world(w);
    for (long i = 0; i < 200; i++) {
        struct query *f = NULL;
        struct query_result r;
        struct sov_errbuf err = {""};
        (void)sov_mem_fail_after(i, false);
        enum sov_error rc = query_create_following(&w->config, &request, &f, &err);
        if (rc == SOV_OK) rc = query_follow(f, TEXT, strlen(TEXT), &err);
        (void)sov_mem_fail_after(-1, false);
        if (rc == SOV_OK) {
            finish(f, &r);
            assert_string_equal(r.answer, "yes");
            assert_int_equal(r.depth_reached, 1);
        } else {
            assert_int_equal(rc, SOV_ERR_NOMEM);
            failed++;
        }
        query_free(f);
    }
    assert_true(failed > 4 && failed < 200);
    /* Another rubric has another digest, or there is none. */
    unsigned char want[MODEL_DIGEST_BYTES], got[MODEL_DIGEST_BYTES];
    struct rubric rubric;
    rubric_default(&rubric);
    assert_true(query_rubric_digest(&rubric, want));
    failed = 0;
    for (long i = 0; i < 50; i++) {
        (void)sov_mem_fail_after(i, false);
        bool whole = query_rubric_digest(&rubric, got);
        (void)sov_mem_fail_after(-1, false);
        if (whole)
            assert_memory_equal(got, want, sizeof want);
        else
            failed++;
    }
    assert_true(failed > 0 && failed < 50);
    close_world(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(whatever_decides_the_answer_is_in_the_key),
        cmocka_unit_test(what_is_left_to_chance_has_no_key),
        cmocka_unit_test(records_have_their_order_and_ranges),
        cmocka_unit_test(records_are_read_as_they_were_written),
        cmocka_unit_test(who_follows_shows_the_same),
        cmocka_unit_test(events_come_as_they_are_told),
        cmocka_unit_test(a_deadline_ends_who_follows),
        cmocka_unit_test(nonsense_is_an_error),
        cmocka_unit_test(a_lack_of_memory_is_told),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
