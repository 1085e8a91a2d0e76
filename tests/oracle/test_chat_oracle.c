/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Our chat templates against libllama's built-in ones, over many conversations, where libllama's
 * equal the models' own. It departs from those in ways that the conversations leave out, as the
 * table says; the models' own are what tests/test_chat_template.c compares with. Also: llama2
 * (libllama leaves out the spaces around answers), llama3.1 (and its dates) and everything that
 * deals with reasoning have no counterpart.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/oracle/llama_api.h"

#include "tests/tokenizer_corpus.h"
#include "tokenizer/chat_template.h"

enum { CONVERSATIONS = 400, MESSAGES_MAX = 9, TEXT_MAX = 1 << 20 };

enum departure {
    WITH_SYSTEM = 1,     /* conversations may begin with a system message */
    NEEDS_SYSTEM = 2,    /* they all do: libllama leaves out the model's default one */
    ANY_ORDER = 4,       /* roles need not take turns */
    ALWAYS_GENERATE = 8, /* libllama leaves out what ends a finished conversation */
};

static const struct {
    const char *ours, *theirs;
    unsigned departures;
} pairs[] = {
    {"chatml", "chatml", WITH_SYSTEM | ANY_ORDER},
    {"llama3", "llama3", WITH_SYSTEM | ANY_ORDER},
    /* libllama puts the system message of v3 to the first message; the model's to the last. */
    {"mistral-v1", "mistral-v1", WITH_SYSTEM},
    {"mistral-v3", "mistral-v3", 0},
    {"mistral-v3-tekken", "mistral-v3-tekken", 0},
    {"mistral-v7", "mistral-v7", WITH_SYSTEM | ANY_ORDER},
    {"mistral-v7-tekken", "mistral-v7-tekken", WITH_SYSTEM | ANY_ORDER},
    {"zephyr-endoftext", "zephyr", WITH_SYSTEM | ANY_ORDER},
    {"gemma", "gemma", WITH_SYSTEM},
    {"phi3", "phi3", WITH_SYSTEM | ANY_ORDER | ALWAYS_GENERATE},
    {"deepseek", "deepseek2", WITH_SYSTEM | ANY_ORDER},
    {"deepseek-coder", "deepseek", WITH_SYSTEM | NEEDS_SYSTEM | ANY_ORDER},
    /* libllama adds an empty line to the system message. */
    {"deepseek-v3", "deepseek3", ANY_ORDER},
};

struct conversation {
    struct chat_message ours[MESSAGES_MAX];
    struct llama_chat_message theirs[MESSAGES_MAX];
    char contents[MESSAGES_MAX][400];
    size_t count;
};

/* Texts of the corpus without zero bytes; white space at the ends is ASCII, which both strip. */
static void make_content(const struct corpus *corpus, uint64_t *random, bool system, char *out)
{
    struct strbuf text = {0};
    corpus_text(corpus, corpus_below(random, (uint32_t)corpus->line_count), &text);
    size_t length = text.length < 380 ? text.length : 380;
    static const char *const ends[] = {"", "", " ", "\n", " \t\n"};
    uint32_t before = system ? 0 : corpus_below(random, 5),
             after = system ? 0 : corpus_below(random, 5);
    snprintf(out, 400, "%sa%.*sz%s", ends[before], (int)length, strbuf_text(&text), ends[after]);
    strbuf_free(&text);
}

static void make_conversation(const struct corpus *corpus, uint64_t *random, unsigned departures,
                              struct conversation *c)
{
    static const char *const roles[] = {"user", "assistant", "system"};
    bool system =
        departures & NEEDS_SYSTEM || (departures & WITH_SYSTEM && corpus_below(random, 2));
    c->count = 1 + system + corpus_below(random, MESSAGES_MAX - 2);
    for (size_t i = 0; i < c->count; i++) {
        size_t turn = (i - system) % 2;
        if (departures & ANY_ORDER) turn = corpus_below(random, 2);
        const char *role = system && i == 0 ? roles[2] : roles[turn];
        make_content(corpus, random, system && i == 0, c->contents[i]);
        c->ours[i] = (struct chat_message){role, c->contents[i], strlen(c->contents[i])};
        c->theirs[i] = (struct llama_chat_message){role, c->contents[i]};
    }
}

static void renderings_equal(void **state)
{
    (void)state;
    struct corpus corpus;
    assert_true(corpus_load(&corpus, "tests/data/tokenizer_corpus.txt"));
    char *theirs = malloc(TEXT_MAX);
    assert_non_null(theirs);
    uint64_t random = 5;
    for (size_t p = 0; p < sizeof pairs / sizeof pairs[0]; p++) {
        enum chat_template t;
        assert_true(chat_template_by_name(pairs[p].ours, &t));
        for (int i = 0; i < CONVERSATIONS; i++) {
            static struct conversation c;
            bool generate = pairs[p].departures & ALWAYS_GENERATE || i % 2 == 0;
            make_conversation(&corpus, &random, pairs[p].departures, &c);
            int32_t length = llama_chat_apply_template(pairs[p].theirs, c.theirs, c.count, generate,
                                                       theirs, TEXT_MAX - 1);
            assert_in_range(length, 1, TEXT_MAX - 1);
            theirs[length] = '\0';
            struct strbuf ours = {0};
            struct sov_errbuf err = {""};
            if (chat_template_render(t, c.ours, c.count, generate, &ours, &err) != SOV_OK)
                fail_msg("%s: %s", pairs[p].ours, err.message);
            assert_string_equal(strbuf_text(&ours), theirs);
            strbuf_free(&ours);
        }
    }
    free(theirs);
    strbuf_free(&corpus.file);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(renderings_equal),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
