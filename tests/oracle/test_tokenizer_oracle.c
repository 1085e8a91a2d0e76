/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Our tokenizer against libllama's: ids, special ids, end-of-generation set, pieces and texts must
 * be equal, on the vocabulary files of llama.cpp's tree, on vocabularies derived from them for
 * pre-tokenizers that have no file, and on vocabularies in which every boundary between words
 * shows. Reads $SOVEREIGN_DEPS/llama/models. An argument selects the vocabularies whose name has
 * it.
 *
 * run-tests: seconds=900
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/oracle/llama_api.h"

#include "base/log.h"
#include "tests/gguf_fixture.h"
#include "tests/tokenizer_corpus.h"
#include "tokenizer/tokenizer.h"

enum { REPORTED_MAX = 10, PATH_MAX_BYTES = 1024, ID_MAX = 1 << 20, TEXT_MAX = 1 << 22 };

struct pair {
    const char *name;
    struct tokenizer *ours;
    struct llama_model *model;
    const struct llama_vocab *theirs;
    int32_t *ids; /* ID_MAX */
    char *text;   /* TEXT_MAX */
    size_t compared;
    int differences;
};

static void print_escaped(const char *text, size_t length)
{
    for (size_t i = 0; i < length && i < 200; i++) {
        unsigned char c = (unsigned char)text[i];
        if (c >= 0x20 && c < 0x7F && c != '\\')
            fputc(c, stderr);
        else
            fprintf(stderr, "\\x%02x", c);
    }
}

/* False once enough was said about this vocabulary. */
static bool report(struct pair *p, const char *what, const char *text, size_t length)
{
    if (p->differences++ >= REPORTED_MAX) return false;
    fprintf(stderr, "%s: %s differ for \"", p->name, what);
    print_escaped(text, length);
    fprintf(stderr, "\"\n");
    return true;
}

static void print_ids(const char *whose, const int32_t *ids, size_t count)
{
    fprintf(stderr, "    %s:", whose);
    for (size_t i = 0; i < count && i < 40; i++) fprintf(stderr, " %d", ids[i]);
    fprintf(stderr, "\n");
}

static void pair_open(struct pair *p, const char *name, const char *path)
{
    *p = (struct pair){
        .name = name, .ids = malloc(ID_MAX * sizeof(int32_t)), .text = malloc(TEXT_MAX)};
    assert_non_null(p->ids);
    assert_non_null(p->text);
    struct gguf *gguf;
    struct sov_errbuf err = {""};
    if (gguf_open(path, &gguf, &err) != SOV_OK) fail_msg("%s: %s", name, err.message);
    if (tokenizer_create(gguf, &p->ours, &err) != SOV_OK) fail_msg("%s: %s", name, err.message);
    gguf_close(gguf);
    struct llama_model_params params = llama_model_default_params();
    params.vocab_only = true;
    p->model = llama_model_load_from_file(path, params);
    if (p->model == NULL) fail_msg("%s: libllama does not load it", name);
    p->theirs = llama_model_get_vocab(p->model);
}

static void pair_close(struct pair *p)
{
    int differences = p->differences;
    llama_model_free(p->model);
    tokenizer_free(p->ours);
    free(p->ids);
    free(p->text);
    if (differences != 0) fail_msg("%s: %d differences", p->name, differences);
    if (p->compared < 3000) fail_msg("%s: only %zu texts", p->name, p->compared);
}

static void compare_decode(struct pair *p, const int32_t *ids, size_t count)
{
    for (int special = 0; special < 2; special++) {
        int32_t length =
            llama_detokenize(p->theirs, ids, (int32_t)count, p->text, TEXT_MAX, false, special);
        struct strbuf ours = {0};
        if (tokenizer_decode(p->ours, ids, count, special, &ours, NULL) != SOV_OK) abort();
        if (length < 0 || ours.length != (size_t)length ||
            memcmp(strbuf_text(&ours), p->text, ours.length) != 0) {
            if (report(p, "decoded texts", p->text, (size_t)(length < 0 ? 0 : length))) {
                fprintf(stderr, "    ours \"");
                print_escaped(strbuf_text(&ours), ours.length);
                fprintf(stderr, "\"\n");
            }
        }
        strbuf_free(&ours);
    }
}

static void compare_flags(struct pair *p, const char *text, size_t length, unsigned flags)
{
    struct token_list list = {0};
    if (tokenizer_encode(p->ours, text, length, flags, &list, NULL) != SOV_OK) abort();
    int32_t count = llama_tokenize(p->theirs, text, (int32_t)length, p->ids, ID_MAX,
                                   (flags & TOKENIZER_ADD_SPECIAL) != 0,
                                   (flags & TOKENIZER_PARSE_SPECIAL) != 0);
    if (count < 0 || list.count != (size_t)count ||
        memcmp(list.ids, p->ids, list.count * sizeof *p->ids) != 0) {
        bool parse = (flags & TOKENIZER_PARSE_SPECIAL) != 0;
        if (report(p, parse ? "ids (special)" : "ids", text, length)) {
            print_ids("ours  ", list.ids, list.count);
            print_ids("theirs", p->ids, (size_t)(count < 0 ? 0 : count));
        }
    } else {
        compare_decode(p, list.ids, list.count);
    }
    token_list_free(&list);
}

static void compare_text(struct pair *p, const char *text, size_t length)
{
    p->compared++;
    for (unsigned flags = 0; flags < 4; flags++) compare_flags(p, text, length, flags);
}

static void compare_vocabulary(struct pair *p)
{
    int32_t count = tokenizer_vocab_size(p->ours);
    if (count != llama_vocab_n_tokens(p->theirs)) report(p, "vocabulary sizes", "", 0);
    if (tokenizer_bos(p->ours) != llama_vocab_bos(p->theirs)) report(p, "BOS ids", "", 0);
    if (tokenizer_eos(p->ours) != llama_vocab_eos(p->theirs)) report(p, "EOS ids", "", 0);
    if (tokenizer_adds_bos(p->ours) != llama_vocab_get_add_bos(p->theirs))
        report(p, "add_bos", "", 0);
    for (int32_t id = 0; id < count; id++) {
        const char *name = llama_vocab_get_text(p->theirs, id);
        if (tokenizer_is_eog(p->ours, id) != llama_vocab_is_eog(p->theirs, id))
            report(p, "end of generation", name, strlen(name));
        if (tokenizer_is_control(p->ours, id) != llama_vocab_is_control(p->theirs, id))
            report(p, "control tokens", name, strlen(name));
        if (tokenizer_find(p->ours, name, strlen(name)) != id)
            report(p, "ids of texts", name, strlen(name));
        for (int special = 0; special < 2; special++) {
            int32_t length = llama_token_to_piece(p->theirs, id, p->text, TEXT_MAX, 0, special);
            size_t our_length;
            const char *piece = tokenizer_piece(p->ours, id, special, &our_length);
            if (our_length != (size_t)length || memcmp(piece, p->text, our_length) != 0)
                report(p, "pieces", name, strlen(name));
        }
    }
}

/* Texts between the vocabulary's own special tokens. */
static void compare_specials(struct pair *p, const struct corpus *c)
{
    struct strbuf text = {0}, part = {0};
    uint64_t random = 99;
    int32_t specials[4096], count = 0;
    for (int32_t id = 0; id < tokenizer_vocab_size(p->ours) && count < 4096; id++) {
        enum llama_token_attr attr = llama_vocab_get_attr(p->theirs, id);
        if (attr &
            (LLAMA_TOKEN_ATTR_CONTROL | LLAMA_TOKEN_ATTR_USER_DEFINED | LLAMA_TOKEN_ATTR_UNKNOWN))
            specials[count++] = id;
    }
    for (int i = 0; count != 0 && i < 300; i++) {
        strbuf_clear(&text);
        for (uint32_t k = 0; k < 1 + (uint32_t)i % 6; k++) {
            const char *name =
                llama_vocab_get_text(p->theirs, specials[corpus_below(&random, (uint32_t)count)]);
            size_t length = strlen(name);
            size_t cut =
                corpus_below(&random, 5) == 0 ? corpus_below(&random, (uint32_t)length) : 0;
            strbuf_append(&text, name + cut, length - cut);
            if (corpus_below(&random, 3) == 0)
                strbuf_append(&text, "   \n ", corpus_below(&random, 6));
            corpus_text(c, corpus_below(&random, (uint32_t)corpus_count(c)), &part);
            if (corpus_below(&random, 2)) strbuf_append(&text, part.data, part.length);
        }
        corpus_sanitize(&text);
        compare_text(p, text.data, text.length);
    }
    strbuf_free(&text);
    strbuf_free(&part);
}

static void compare_corpus(struct pair *p, const struct corpus *c)
{
    struct strbuf text = {0};
    compare_text(p, "", 0);
    for (size_t i = 0; i < corpus_count(c); i++) {
        corpus_text(c, i, &text);
        compare_text(p, strbuf_text(&text), text.length);
    }
    strbuf_free(&text);
}

/* Every code point that Unicode assigns or may assign, in contexts that show its class. */
static void compare_code_points(struct pair *p)
{
    struct strbuf text = {0};
    for (uint32_t start = 0; start < 0x32400; start += 64) {
        strbuf_clear(&text);
        for (uint32_t c = start; c < start + 64; c++) {
            corpus_put_point(c, &text);
            strbuf_puts(&text, "a.");
            corpus_put_point(c, &text);
            strbuf_puts(&text, "1 ");
            corpus_put_point(c, &text);
            corpus_put_point(c, &text);
            strbuf_puts(&text, "\n");
        }
        compare_flags(p, text.data, text.length, 0);
        p->compared++;
    }
    strbuf_free(&text);
}

/* The vectors that come with the vocabulary files. */
static void compare_vectors(struct pair *p, const char *path)
{
    char input_path[PATH_MAX_BYTES + 8], output_path[PATH_MAX_BYTES + 8];
    snprintf(input_path, sizeof input_path, "%s.inp", path);
    snprintf(output_path, sizeof output_path, "%s.out", path);
    FILE *input = fopen(input_path, "rb"), *output = fopen(output_path, "rb");
    if (input == NULL || output == NULL) fail_msg("%s: no vectors", path);
    static const char separator[] = "\n__ggml_vocab_test__\n";
    size_t length = fread(p->text, 1, TEXT_MAX - 1, input);
    p->text[length] = '\0';
    fclose(input);
    char line[1 << 16];
    size_t vectors = 0;
    for (char *text = p->text, *end;
         (end = strstr(text, separator)) != NULL && fgets(line, sizeof line, output) != NULL;
         text = end + strlen(separator)) {
        struct token_list list = {0};
        if (tokenizer_encode(p->ours, text, (size_t)(end - text), 0, &list, NULL) != SOV_OK)
            abort();
        size_t i = 0;
        bool equal = true;
        for (char *word = strtok(line, " \n"); word != NULL; word = strtok(NULL, " \n"), i++)
            equal = equal && i < list.count && list.ids[i] == strtol(word, NULL, 10);
        if (!equal || i != list.count) report(p, "vectors", text, (size_t)(end - text));
        token_list_free(&list);
        vectors++;
    }
    fclose(output);
    if (vectors < 40) report(p, "numbers of vectors", "", 0);
}

/* A temporary file with the fixture's bytes. */
static void write_fixture(struct gguf_fixture *f, char *path, size_t path_length)
{
    const char *folder = getenv("TMPDIR");
    size_t length;
    const void *file = fixture_finish(f, &length);
    snprintf(path, path_length, "%s/sovereign-oracle-XXXXXX", folder == NULL ? "/tmp" : folder);
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, file, length), (ssize_t)length);
    assert_int_equal(close(fd), 0);
    fixture_free(f);
}

/* The vocabulary file at path, with another pre-tokenizer. */
static void put_derived(struct gguf_fixture *f, const char *path, const char *pre)
{
    static const char key[] = "tokenizer.ggml.pre";
    struct gguf *gguf;
    struct sov_errbuf err;
    if (gguf_open(path, &gguf, &err) != SOV_OK) fail_msg("%s", err.message);
    for (size_t i = 0; i < gguf_kv_count(gguf); i++) {
        const struct gguf_kv *kv = gguf_kv_at(gguf, i);
        bool is_pre = kv->key.length == strlen(key) && memcmp(kv->key.data, key, strlen(key)) == 0;
        if (!is_pre) fixture_kv_copy(f, kv);
    }
    gguf_close(gguf);
    fixture_kv_str(f, key, pre);
}

static void be_quiet(enum ggml_log_level level, const char *text, void *ignored)
{
    (void)level;
    (void)text;
    (void)ignored;
}

/*
 * A vocabulary to compare: a file; a file with another pre-tokenizer; or (no file) the one that
 * shows where words end, with a pre-tokenizer of each set of patterns.
 */
struct job {
    const char *name, *file, *pre;
    bool has_vectors;
};

static const struct job jobs[] = {
    {"llama-spm", "llama-spm", NULL, true},
    {"phi-3", "phi-3", NULL, true},
    {"baichuan", "baichuan", NULL, false},
    {"gpt-2", "gpt-2", NULL, true},
    {"llama-bpe", "llama-bpe", NULL, true},
    {"qwen2", "qwen2", NULL, true},
    {"deepseek-llm", "deepseek-llm", NULL, true},
    {"deepseek-coder", "deepseek-coder", NULL, true},
    {"falcon", "falcon", NULL, true},
    {"starcoder", "starcoder", NULL, true},
    {"refact", "refact", NULL, true},
    {"command-r", "command-r", NULL, true},
    {"mpt", "mpt", NULL, true},
    {"gpt-neox", "gpt-neox", NULL, false},
    {"aquila", "aquila", NULL, false},
    {"smollm", "starcoder", "smollm", false},
    {"deepseek-r1-qwen", "qwen2", "deepseek-r1-qwen", false},
    {"megrez", "qwen2", "megrez", false},
    {"falcon3", "llama-bpe", "falcon3", false},
    {"llama3", "llama-bpe", "llama3", false},
    {"llama-v3", "llama-bpe", "llama-v3", false},
    {"smaug-bpe", "llama-bpe", "smaug-bpe", false},
    {"default", "gpt-2", "default", false},
    {"words/default", NULL, "default", false},
    {"words/gpt-2", NULL, "gpt-2", false},
    {"words/llama-bpe", NULL, "llama-bpe", false},
    {"words/qwen2", NULL, "qwen2", false},
    {"words/smollm", NULL, "smollm", false},
    {"words/deepseek-llm", NULL, "deepseek-llm", false},
    {"words/deepseek-coder", NULL, "deepseek-coder", false},
    {"words/falcon", NULL, "falcon", false},
};
enum { JOBS = sizeof jobs / sizeof jobs[0] };

static struct corpus corpus;

static void run_job(void **state)
{
    const struct job *job = *state;
    const char *deps = getenv("SOVEREIGN_DEPS");
    char path[PATH_MAX_BYTES], temporary[PATH_MAX_BYTES];
    struct gguf_fixture f = {0};
    struct pair p;
    snprintf(path, sizeof path, "%s/llama/models/ggml-vocab-%s.gguf", deps != NULL ? deps : ".deps",
             job->file == NULL ? "" : job->file);
    if (job->pre != NULL) {
        if (job->file == NULL)
            fixture_put_revealing_bpe(&f, job->pre);
        else
            put_derived(&f, path, job->pre);
        write_fixture(&f, temporary, sizeof temporary);
    }
    pair_open(&p, job->name, job->pre != NULL ? temporary : path);
    if (job->pre != NULL) unlink(temporary);
    compare_vocabulary(&p);
    if (job->has_vectors) compare_vectors(&p, path);
    compare_corpus(&p, &corpus);
    compare_specials(&p, &corpus);
    if (job->file == NULL) compare_code_points(&p);
    pair_close(&p);
}

int main(int argc, char **argv)
{
    struct CMUnitTest tests[JOBS];
    size_t count = 0;
    for (size_t i = 0; i < JOBS; i++) {
        if (argc > 1 && strstr(jobs[i].name, argv[1]) == NULL) continue;
        tests[count++] = (struct CMUnitTest){.name = jobs[i].name,
                                             .test_func = run_job,
                                             .initial_state = (void *)(uintptr_t)&jobs[i]};
    }
    if (!corpus_load(&corpus, "tests/data/tokenizer_corpus.txt")) {
        fprintf(stderr, "tests/data/tokenizer_corpus.txt cannot be read from this folder\n");
        return 1;
    }
    log_configure(LOG_LEVEL_ERROR, LOG_FORMAT_TEXT);
    llama_log_set(be_quiet, NULL);
    int failed = _cmocka_run_group_tests("tokenizer", tests, count, NULL, NULL);
    strbuf_free(&corpus.file);
    return failed != 0;
}
