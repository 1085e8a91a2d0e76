/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sovereign federation log, get, export and verify-log on the data directory of a node that runs: what they
 * print, that they see what is committed, and that they name what is damaged. (tests/e2e/federation_offline.sh
 * has what needs no log.)
 */
#include "tests/federation_log_fixture.h"
#include "tests/federation_store_fixture.h"

#include <signal.h>
#include <sys/wait.h>

#include "base/clock.h"
#include "base/file.h"

enum { OUTPUT_MAX = 1 << 20, COMMAND_MAX = 4096, WAIT_MS = 150000 };

struct fixture {
    struct log_fixture log;
    struct store_fixture store;
    struct fed_putter *putter;
    uint64_t token;
    int status;
    char out[OUTPUT_MAX], err[8192];
};

static void deliver(struct fixture *f, uint64_t first, uint64_t last, const uint8_t *executed)
{
    struct sov_errbuf err;
    for (uint64_t s = first; s <= last; s++) {
        log_make(&f->log, s);
        struct pbft_effect effect = {.kind = PBFT_EFFECT_DELIVER,
                                     .message = &f->log.entry,
                                     .token = ++f->token,
                                     .head = f->log.head,
                                     .executed = executed};
        if (fed_putter_put(f->putter, &effect, 1, &err) != SOV_OK) fail_msg("%s", err.message);
    }
    fixture_flush(&f->store);
}

static int setup(void **state)
{
    static struct fixture f;
    struct strbuf config = {0};
    struct sov_errbuf err;
    char path[FIXTURE_PATH_MAX + 32];
    memset(&f, 0, sizeof f);
    log_fixture_init(&f.log);
    fixture_init(&f.store);
    memcpy(f.store.options.federation, f.log.config.federation.bytes, 32);
    fixture_create(&f.store);
    snprintf(path, sizeof path, "%s/federation.json", f.store.path);
    assert_true(fed_config_write(&f.log.config, &config));
    if (file_replace(path, config.data, config.length, &err) != SOV_OK) fail_msg("%s", err.message);
    strbuf_free(&config);
    if (fed_putter_create(f.store.store, &f.putter, &err) != SOV_OK) fail_msg("%s", err.message);
    *state = &f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    fed_putter_free(f->putter);
    fixture_free(&f->store);
    log_fixture_free(&f->log);
    return 0;
}

static const char *program(void)
{
    const char *path = getenv("SOVEREIGN");
    return path != NULL ? path : "build/sovereign";
}

static void read_back(const char *path, char *out, size_t size)
{
    struct strbuf text = {0};
    struct sov_errbuf err;
    if (file_read(path, size - 1, &text, &err) != SOV_OK) fail_msg("%s", err.message);
    memcpy(out, strbuf_text(&text), text.length);
    out[text.length] = '\0';
    strbuf_free(&text);
    (void)unlink(path);
}

/* Runs `sovereign federation` with these words; %s in them is the data directory. */
static void run(struct fixture *f, const char *words)
{
    char arguments[COMMAND_MAX], command[2 * COMMAND_MAX + 4 * FIXTURE_PATH_MAX];
    char out[FIXTURE_PATH_MAX + 16], err[FIXTURE_PATH_MAX + 16];
    snprintf(out, sizeof out, "%s/out", f->store.path);
    snprintf(err, sizeof err, "%s/err", f->store.path);
    snprintf(arguments, sizeof arguments, words, f->store.path, f->store.path);
    snprintf(command, sizeof command, "%s federation %s >%s 2>%s </dev/null", program(), arguments,
             out, err);
    f->status = system(command);
    assert_true(WIFEXITED(f->status));
    f->status = WEXITSTATUS(f->status);
    read_back(out, f->out, sizeof f->out);
    read_back(err, f->err, sizeof f->err);
}

static void assert_printed(struct fixture *f, int status, const char *text)
{
    if (f->status != status || strstr(status == 0 ? f->out : f->err, text) == NULL)
        fail_msg("status %d\n%s\n%s", f->status, f->out, f->err);
}

static int count_lines(const char *text)
{
    int lines = 0;
    for (; *text != '\0'; text++) lines += *text == '\n';
    return lines;
}

static void test_log_lists_what_is_committed_while_the_node_runs(void **state)
{
    struct fixture *f = *state;
    deliver(f, 1, 12, NULL);
    run(f, "log --data-dir %s");
    assert_printed(f, 0, "sequence");
    assert_int_equal(count_lines(f->out), 13);
    assert_non_null(strstr(f->out, "0,1,3\n"));
    run(f, "log --data-dir %s --from 11 --json");
    assert_printed(f, 0, "{\"sequence\":11,\"epoch\":0,\"view\":1,\"requests\":1,\"patterns\":1,");
    assert_non_null(strstr(f->out, "\"signers\":[0,1,3]}"));
    assert_int_equal(count_lines(f->out), 2);
    deliver(f, 13, 30, NULL);
    run(f, "log --data-dir %s --from 25 --json");
    assert_printed(f, 0, "\"epoch\":1,\"view\":1,");
    assert_int_equal(count_lines(f->out), 6);
    run(f, "log --data-dir %s --from 31 --json");
    assert_printed(f, 0, "");
    assert_string_equal(f->out, "");
}

static void test_log_follows_until_it_is_interrupted(void **state)
{
    struct fixture *f = *state;
    int ends[2], status;
    char text[OUTPUT_MAX] = "";
    size_t length = 0;
    deliver(f, 1, 2, NULL);
    assert_int_equal(pipe(ends), 0);
    pid_t child = fork();
    if (child == 0) {
        dup2(ends[1], STDOUT_FILENO);
        close(ends[0]);
        close(ends[1]);
        execlp(program(), "sovereign", "federation", "log", "--data-dir", f->store.path, "--follow",
               "--json", (char *)NULL);
        _exit(127);
    }
    close(ends[1]);
    int64_t until = clock_monotonic_ns() + WAIT_MS * (int64_t)1000000;
    while (count_lines(text) < 5 && clock_monotonic_ns() < until) {
        ssize_t n = read(ends[0], text + length, sizeof text - 1 - length);
        assert_true(n > 0);
        length += (size_t)n;
        text[length] = '\0';
        if (count_lines(text) == 2) deliver(f, 3, 5, NULL); /* behind the first two */
    }
    assert_int_equal(count_lines(text), 5);
    assert_non_null(strstr(text, "{\"sequence\":5,"));
    assert_int_equal(kill(child, SIGINT), 0);
    assert_int_equal(waitpid(child, &status, 0), child);
    close(ends[0]);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 130);
}

static void test_get_prints_a_pattern_and_its_place(void **state)
{
    struct fixture *f = *state;
    char words[COMMAND_MAX], id[65];
    static const char TEXT[] = "[\"a \\\"quoted\\\" } text\",{},[],1e+21]";
    struct message_digest digest;
    deliver(f, 1, 9, NULL);
    message_pattern_digest((const uint8_t *)TEXT, sizeof TEXT - 1, NULL, &digest);
    sodium_bin2hex(id, sizeof id, digest.bytes, sizeof digest.bytes);
    snprintf(words, sizeof words, "get %s --data-dir %%s", id);
    run(f, words);
    assert_printed(f, 0, TEXT);
    assert_int_equal(strlen(f->out), sizeof TEXT); /* and a newline */
    snprintf(words, sizeof words, "get %s --json --data-dir %%s", id);
    run(f, words);
    assert_printed(f, 0,
                   ",\"sequence\":6,\"request\":0,\"index\":2,\"member\":2,\"number\":\"12\",");
    snprintf(words, sizeof words, "get %.63sx --data-dir %%s", id);
    run(f, words);
    assert_printed(f, 2, "64 hexadecimal digits");
    snprintf(words, sizeof words, "get %.16s --data-dir %%s", id); /* the beginning is not enough */
    run(f, words);
    assert_printed(f, 2, "64 hexadecimal digits");
}

static void test_get_passes_over_requests_that_count_for_nothing(void **state)
{
    struct fixture *f = *state;
    static const uint8_t NONE[4] = {0};
    char words[COMMAND_MAX], id[65];
    static const char TEXT[] = "\"no. 6\""; /* only the batch of that sequence has it */
    struct message_digest digest;
    deliver(f, 1, 4, NULL);
    deliver(f, 5, 6, NONE);
    message_pattern_digest((const uint8_t *)TEXT, sizeof TEXT - 1, NULL, &digest);
    sodium_bin2hex(id, sizeof id, digest.bytes, sizeof digest.bytes);
    snprintf(words, sizeof words, "get %s --data-dir %%s", id);
    run(f, words);
    assert_printed(f, 1, "has no pattern of this id");
}

static void test_what_is_exported_verifies_and_is_the_same_as_the_folder(void **state)
{
    struct fixture *f = *state;
    char first[256];
    deliver(f, 1, LOG_BATCHES, NULL);
    run(f, "verify-log --data-dir %s");
    assert_printed(f, 0, "good: 40 batches with 47 requests and 71 patterns, 136 signatures");
    assert_true(strlen(f->out) < sizeof first);
    memcpy(first, f->out, strlen(f->out) + 1);
    run(f, "export --data-dir %s");
    assert_printed(f, 0, "\"format\":\"sovereign-federation-log\"");
    struct strbuf golden = {0};
    struct sov_errbuf err;
    assert_int_equal(file_read("tests/data/federation/log.jsonl", OUTPUT_MAX, &golden, &err),
                     SOV_OK);
    assert_string_equal(f->out, golden.data);
    strbuf_free(&golden);
    run(f, "export --data-dir %s -o %s/log.jsonl");
    assert_printed(f, 0, "");
    run(f, "verify-log %s/log.jsonl --config %s/federation.json");
    assert_printed(f, 0, first);
    run(f, "export --data-dir %s -o %s/log.jsonl");
    assert_printed(f, 1, "is there already");
    run(f, "export --data-dir %s -o /dev/full/x");
    assert_printed(f, 1, "cannot be made");
}

static void test_a_damaged_row_is_named_and_what_is_before_it_is_good(void **state)
{
    static const struct {
        const char *sql, *says;
        int sequence;
    } CASES[] = {
        {"UPDATE content SET bytes=zeroblob(length(bytes)) WHERE sequence=31",
         "the content of sequence 31 is damaged", 31},
        {"UPDATE batch SET certificate=zeroblob(195) WHERE sequence=12",
         "the batch of sequence 12 is damaged", 12},
        {"DELETE FROM batch WHERE sequence=2", "the batch of sequence 2 is not there", 2},
    };
    struct fixture *f = *state;
    deliver(f, 1, LOG_BATCHES, NULL);
    for (size_t i = 0; i < sizeof CASES / sizeof CASES[0]; i++) {
        char expected[64];
        fixture_sql(&f->store, CASES[i].sql);
        run(f, "verify-log --data-dir %s --json");
        assert_printed(f, 6, CASES[i].says);
        snprintf(expected, sizeof expected, "\"sequence\":%d,", CASES[i].sequence);
        assert_non_null(strstr(f->out, expected));
        snprintf(expected, sizeof expected, "{\"good\":false,\"batches\":%d,",
                 CASES[i].sequence - 1);
        assert_non_null(strstr(f->out, expected));
        run(f, "log --data-dir %s");
        assert_int_equal(f->status, 1);
        assert_int_equal(count_lines(f->out), CASES[i].sequence);
        assert_non_null(strstr(f->err, CASES[i].says));
        run(f, "export --data-dir %s -o %s/broken.jsonl");
        assert_printed(f, 1, CASES[i].says);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_log_lists_what_is_committed_while_the_node_runs, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_log_follows_until_it_is_interrupted, setup, teardown),
        cmocka_unit_test_setup_teardown(test_get_prints_a_pattern_and_its_place, setup, teardown),
        cmocka_unit_test_setup_teardown(test_get_passes_over_requests_that_count_for_nothing, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(
            test_what_is_exported_verifies_and_is_the_same_as_the_folder, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_damaged_row_is_named_and_what_is_before_it_is_good,
                                        setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
