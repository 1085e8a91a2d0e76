/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory holds one copy of the weights: every type keeps about its file density when it is packed; while a model loads,
 * no more of the mapped file stays in memory than the slice that is being packed, and none of what was packed afterwards;
 * the rest of the process grows by the packed weights and no more. Forward passes work from then on, embedding included.
 *
 * What of the mapping is in memory is what the system says (/proc/self/smaps); where it says nothing of use, that test is
 * skipped. Under sanitizers the process' own memory means nothing, and is left out.
 */
#include <libgen.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/mem.h"
#include "base/pool.h"
#include "kernels/matmul.h"
#include "model/model.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#else
#define SANITIZED 0
#endif

enum { MIB = 1 << 20, HUGE_PAGE = 2 * MIB, THREADS = 2 };

static struct pool *pool;
static char build_dir[512], path[600];

static uint64_t file_bytes(enum gguf_type type, uint64_t elements)
{
    const struct gguf_type_info *info = gguf_type_info(type);
    return elements / info->block_elems * info->block_bytes;
}

/* Whole panels: a header of 16 bits here and there is all that may be added. */
static void test_types_keep_their_density(void **state)
{
    enum { OUTPUTS = 4096, COLUMNS = 4096, PERCENT_MORE = 6 };
    int types = 0;
    (void)state;
    for (int type = 0; type < GGUF_TYPE_LIMIT; type++) {
        struct matmul_weights w;
        struct sov_errbuf err;
        if (matmul_weights_init(&w, (enum gguf_type)type, OUTPUTS, COLUMNS, &err) != SOV_OK)
            continue;
        uint64_t file = file_bytes((enum gguf_type)type, (uint64_t)OUTPUTS * COLUMNS);
        assert_in_range(matmul_weights_bytes(&w), file, file * (100 + PERCENT_MORE) / 100);
        types++;
    }
    assert_int_equal(types, 13);
}

/* Bytes of [begin, end) that are in this process' memory; whole mappings of the file begin and end in there. */
static uint64_t resident(const void *begin, const void *end)
{
    char line[512];
    unsigned long from = 0, to = 0;
    unsigned long long kilobytes, sum = 0;
    FILE *maps = fopen("/proc/self/smaps", "r");
    if (maps == NULL) return 0;
    while (fgets(line, sizeof line, maps) != NULL) {
        unsigned long a, b;
        char access[5];
        if (sscanf(line, "%lx-%lx %4[-rwxps]", &a, &b, access) == 3)
            from = a, to = b;
        else if (sscanf(line, "Rss: %llu kB", &kilobytes) == 1 && from < (uintptr_t)end &&
                 to > (uintptr_t)begin)
            sum += kilobytes * 1024;
    }
    fclose(maps);
    return sum;
}

/* Of memory that is no file's. */
static uint64_t anonymous(void)
{
    char line[256];
    unsigned long long kilobytes = 0;
    FILE *status = fopen("/proc/self/status", "r");
    while (status != NULL && fgets(line, sizeof line, status) != NULL)
        if (sscanf(line, "RssAnon: %llu kB", &kilobytes) == 1) break;
    if (status != NULL) fclose(status);
    return kilobytes * 1024;
}

static void make_model(const char *options)
{
    char command[2048];
    snprintf(command, sizeof command, "%s/mkmodel --arch llama --vocab-bytes 300 %s %s >/dev/null",
             build_dir, options, path);
    if (system(command) != 0) fail_msg("failed: %s", command);
}

/* The tensors' part of the mapping, and how much of it there was when progress was last told. */
struct watched {
    const unsigned char *begin, *end;
    uint64_t most;
};

static struct watched watch(const struct gguf *gguf)
{
    struct watched w = {.begin = NULL};
    for (size_t i = 0; i < gguf_tensor_count(gguf); i++) {
        const struct gguf_tensor *t = gguf_tensor_at(gguf, i);
        const unsigned char *data = t->data;
        if (w.begin == NULL || data < w.begin) w.begin = data;
        if (w.end == NULL || data + t->bytes > w.end) w.end = data + t->bytes;
    }
    return w;
}

static void progress(void *user, double fraction)
{
    struct watched *w = user;
    uint64_t now = resident(w->begin, w->end);
    (void)fraction;
    if (now > w->most) w->most = now;
}

/* Reads a byte of every page; the sum is of no interest, but keeps the reads. */
static unsigned touch(const struct gguf_tensor *t)
{
    unsigned sum = 0;
    for (size_t i = 0; i < t->bytes; i += 4096) sum += ((const volatile unsigned char *)t->data)[i];
    return sum;
}

/* The largest tensor was read beforehand, as by a reader of the whole file, and must go, too. */
static void load_watched(struct gguf *gguf, struct watched *w, struct model **model)
{
    struct sov_errbuf err = {.message = ""};
    const struct gguf_tensor *largest = gguf_tensor_at(gguf, 0);
    for (size_t i = 1; i < gguf_tensor_count(gguf); i++)
        if (gguf_tensor_at(gguf, i)->bytes > largest->bytes) largest = gguf_tensor_at(gguf, i);
    uint64_t before = resident(w->begin, w->end);
    (void)touch(largest);
    uint64_t touched = resident(w->begin, w->end);
    if (touched < before + largest->bytes / 2) {
        print_message("what of a mapping is in memory is not told here: %llu, then %llu bytes\n",
                      (unsigned long long)before, (unsigned long long)touched);
        skip();
    }
    struct model_load_options options = {
        .isa = kern_isa_best(), .pool = pool, .progress = progress, .user = w};
    if (model_load(gguf, &options, model, &err) != SOV_OK) fail_msg("%s", err.message);
}

static void test_pages_of_the_file_are_given_back(void **state)
{
    struct sov_errbuf err = {.message = ""};
    struct gguf *gguf;
    struct model *model;
    (void)state;
    /* Three matrices of 17.8 MB, each more than a slice. */
    make_model("--dim 1024 --layers 1 --heads 8 --kv-heads 2 --ffn 16384 --type q8_0");
    if (gguf_open(path, &gguf, &err) != SOV_OK) fail_msg("%s", err.message);
    struct watched w = watch(gguf);
    uint64_t matrices = (uint64_t)(w.end - w.begin), anonymous_before = anonymous();
    assert_true(matrices > 50 * MIB);
    load_watched(gguf, &w, &model);
    const struct model_config *c = model_config(model);
    const struct gguf_tensor *embedding = gguf_find_tensor(gguf, "token_embd.weight");
    uint64_t grown = anonymous() - anonymous_before;
    /* A large page more than what may stay: the tensor that was read beforehand, until it is packed. */
    assert_true(w.most <= (uint64_t)16384 * 1024 / 32 * 34 + 4 * HUGE_PAGE);
    assert_true(resident(w.begin, w.end) <= embedding->bytes + HUGE_PAGE);
    assert_in_range(c->weight_bytes, matrices - embedding->bytes, matrices);
    if (!SANITIZED && anonymous_before != 0) {
        /* Each matrix may end in the middle of a large page. */
        assert_true(grown <= c->weight_bytes + gguf_tensor_count(gguf) * HUGE_PAGE);
    }
    model_free(model);
    gguf_close(gguf);
}

/* Many tensors that no page ends with: a page that two of them share is given back with the second. */
static void test_nothing_stays_between_small_tensors(void **state)
{
    struct sov_errbuf err = {.message = ""};
    struct gguf *gguf;
    struct model *model;
    (void)state;
    make_model("--dim 288 --layers 60 --heads 6 --kv-heads 2 --ffn 800 --type q5_1");
    if (gguf_open(path, &gguf, &err) != SOV_OK) fail_msg("%s", err.message);
    struct watched w = watch(gguf);
    load_watched(gguf, &w, &model);
    const struct gguf_tensor *embedding = gguf_find_tensor(gguf, "token_embd.weight");
    assert_true((uint64_t)(w.end - w.begin) > 30 * MIB);
    /* At most two pages of each tensor. */
    uint64_t edges = (uint64_t)gguf_tensor_count(gguf) * 2 * (uint64_t)sysconf(_SC_PAGESIZE);
    assert_true(resident(w.begin, w.end) <= embedding->bytes + edges);
    model_free(model);
    gguf_close(gguf);
}

int main(int argc, char **argv)
{
    char self[512];
    (void)argc;
    /* This program is <build>/tests/test_model_memory. */
    snprintf(self, sizeof self, "%s", argv[0]);
    snprintf(build_dir, sizeof build_dir, "%s/..", dirname(self));
    const char *tmp = getenv("TMPDIR");
    snprintf(path, sizeof path, "%s/sov-model-memory-%d.gguf", tmp != NULL ? tmp : "/tmp",
             (int)getpid());
    if (pool_create(THREADS, &pool, NULL) != SOV_OK) return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_types_keep_their_density),
        cmocka_unit_test(test_pages_of_the_file_are_given_back),
        cmocka_unit_test(test_nothing_stays_between_small_tensors),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    unlink(path);
    pool_free(pool);
    return failed;
}
