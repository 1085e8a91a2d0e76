/* SPDX-License-Identifier: Apache-2.0 */
/* Calibration, its file of labels, and the sets of tokens that spell a word. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "ihsan/calibrate.h"
#include "ihsan/evaluator.h"
#include "ihsan/labels.h"
#include "ihsan/token_set.h"
#include "tests/tokenizer_fixture.h"

enum { SAMPLES = 20000 };

static uint64_t random_state = 3;

static double random_unit(void)
{
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (double)(random_state >> 11) / 9007199254740992.0;
}

/* Labels drawn with the probability that the logit means when divided by T. */
static void draw(struct calibration_sample *samples, size_t count, double temperature)
{
    for (size_t i = 0; i < count; i++) {
        samples[i].logit = (random_unit() - 0.5) * 12;
        samples[i].yes = random_unit() < 1 / (1 + exp(-samples[i].logit / temperature));
    }
}

static void the_temperature_behind_the_labels_is_found(void **state)
{
    (void)state;
    static struct calibration_sample samples[SAMPLES];
    static const double truths[] = {0.3, 1, 2.5, 8};
    for (size_t t = 0; t < 4; t++) {
        struct calibration c;
        draw(samples, SAMPLES, truths[t]);
        calibration_fit(samples, SAMPLES, 1, &c);
        assert_true(c.fitted);
        assert_int_equal(c.yes + c.no, SAMPLES);
        if (!(fabs(c.after / truths[t] - 1) < 0.1))
            fail_msg("%g was found for %g", c.after, truths[t]);
        assert_true(c.brier_after <= c.brier_before + 1e-6);
        if (truths[t] == 8) assert_true(c.brier_after < c.brier_before - 0.05);
        /* The minimum: a little to either side is no better. */
        double least = calibration_loss(samples, SAMPLES, c.after);
        assert_true(least <= calibration_loss(samples, SAMPLES, c.after * 1.001));
        assert_true(least <= calibration_loss(samples, SAMPLES, c.after / 1.001));
        /* And the bins of the calibrated scores are near the frequencies. */
        int seen = 0;
        for (int b = 0; b < CALIBRATION_BINS; b++) {
            const struct calibration_bin *bin = &c.bins_after[b];
            seen += bin->count;
            if (bin->count > 500) assert_true(fabs(bin->mean - bin->frequency) < 0.08);
        }
        assert_int_equal(seen, SAMPLES);
    }
}

static void the_same_labels_give_the_same_bits(void **state)
{
    (void)state;
    static struct calibration_sample samples[100];
    struct calibration a, b;
    draw(samples, 100, 2);
    calibration_fit(samples, 100, 1, &a);
    calibration_fit(samples, 100, 1, &b);
    assert_memory_equal(&a, &b, sizeof a);
}

static void one_sided_labels_change_nothing(void **state)
{
    (void)state;
    struct calibration_sample samples[] = {{1, true}, {2, true}, {-3, true}, {4, false}};
    struct calibration c;
    for (size_t count = 0; count <= 4; count++) {
        calibration_fit(samples, count, 1.5, &c);
        assert_false(c.fitted);
        assert_true(c.after == 1.5 && c.brier_after == c.brier_before);
    }
    assert_int_equal(c.yes, 3);
    assert_int_equal(c.no, 1);
}

static void extremes_stay_within_the_rubrics_limits(void **state)
{
    (void)state;
    struct calibration_sample right[] = {{5, true}, {6, true}, {-5, false}, {-700, false}};
    struct calibration_sample wrong[] = {{5, false}, {700, false}, {-5, true}, {-6, true}};
    struct calibration c;
    calibration_fit(right, 4, 1, &c);
    assert_true(c.fitted && c.after >= RUBRIC_TEMPERATURE_MIN && c.after < 0.5);
    assert_true(c.brier_after < 1e-6);
    calibration_fit(wrong, 4, 1, &c);
    assert_true(c.after <= RUBRIC_TEMPERATURE_MAX && c.after > 99);
    assert_true(isfinite(calibration_loss(wrong, 4, RUBRIC_TEMPERATURE_MIN)));
}

static void the_brier_score_is_the_mean_square(void **state)
{
    (void)state;
    struct calibration_sample samples[] = {{0, true}, {0, false}};
    struct calibration c;
    calibration_fit(samples, 2, 1, &c);
    assert_true(c.brier_before == 0.25);
    assert_int_equal(c.bins_before[5].count, 2);
    assert_true(c.bins_before[5].frequency == 0.5 && c.bins_before[5].mean == 0.5);
}

static void the_plot_has_a_panel_for_each_labelled_dimension(void **state)
{
    (void)state;
    static struct calibration all[IHSAN_DIMENSIONS];
    static struct plot_panel panels[IHSAN_DIMENSIONS];
    struct calibration_sample samples[] = {{2, true}, {-2, false}, {1, false}, {-1, true}};
    calibration_fit(samples, 4, 1, &all[IHSAN_JUSTICE]);
    assert_int_equal(calibration_plot(all, panels), 1);
    struct strbuf image = {0};
    plot_render("Reliability", panels, 1, &image);
    assert_false(strbuf_failed(&image));
    assert_int_equal(strncmp(image.data, "<svg ", 5), 0);
    assert_non_null(strstr(image.data, "justice, 4 answers"));
    assert_string_equal(image.data + image.length - 7, "</svg>\n");
    strbuf_free(&image);
}

static void label_file(const char *text, const char *says)
{
    struct labels labels;
    struct sov_errbuf err = {""};
    enum sov_error rc = labels_parse(&labels, text, strlen(text), &err);
    if (rc == SOV_OK) fail_msg("accepted: %s", text);
    if (strstr(err.message, says) == NULL) fail_msg("\"%s\" does not say %s", err.message, says);
    assert_null(labels.all);
}

#define LINE1 "{\"question\":\"q\",\"answer\":\"a\",\"labels\":{\"wisdom\":1}}\n"

static void labels_are_read(void **state)
{
    (void)state;
    struct labels labels;
    struct sov_errbuf err;
    const char *text = LINE1 "\n  \r\n{\"system\":\"s\",\"question\":\"q2\",\"answer\":\"a2\","
                             "\"labels\":{\"justice\":0,\"gratitude\":1}}";
    assert_int_equal(labels_parse(&labels, text, strlen(text), &err), SOV_OK);
    assert_int_equal(labels.count, 2);
    assert_null(labels.all[0].system);
    assert_int_equal(labels.all[0].values[IHSAN_WISDOM], 1);
    assert_int_equal(labels.all[0].values[IHSAN_JUSTICE], -1);
    assert_string_equal(labels.all[1].system, "s");
    assert_string_equal(labels.all[1].answer, "a2");
    assert_int_equal(labels.all[1].values[IHSAN_JUSTICE], 0);
    assert_int_equal(labels.all[1].line, 4);
    labels_free(&labels);
}

static void wrong_labels_are_named_by_line_and_field(void **state)
{
    (void)state;
    label_file("", "no labelled answers");
    label_file(LINE1 "nonsense\n", "line 2: not valid JSON");
    label_file(LINE1 "\n[]\n", "line 3: a JSON object");
    label_file(LINE1 "{\"answer\":\"a\",\"labels\":{\"wisdom\":1}}", "line 2: 'question'");
    label_file("{\"question\":\"q\",\"answer\":\"\",\"labels\":{\"wisdom\":1}}",
               "'answer' is empty");
    label_file("{\"question\":\"q\",\"answer\":\"a\\u0000\",\"labels\":{\"wisdom\":1}}", "zero");
    label_file("{\"question\":\"q\",\"answer\":\"a\"}", "'labels' must be an object");
    label_file("{\"question\":\"q\",\"answer\":\"a\",\"labels\":{}}",
               "'labels' names no dimension");
    label_file("{\"question\":\"q\",\"answer\":\"a\",\"labels\":{\"wit\":1}}", "'labels.wit'");
    label_file("{\"question\":\"q\",\"answer\":\"a\",\"labels\":{\"wisdom\":2}}",
               "'labels.wisdom'");
    label_file("{\"question\":\"q\",\"answer\":\"a\",\"labels\":{\"wisdom\":true}}",
               "'labels.wisdom'");
    label_file("{\"question\":\"q\",\"answer\":\"a\",\"label\":{},\"labels\":{}}",
               "unknown field 'label'");
}

static void labels_survive_every_lack_of_memory(void **state)
{
    (void)state;
    const char *text = LINE1 LINE1;
    for (long i = 0;; i++) {
        struct labels labels;
        struct sov_errbuf err;
        (void)sov_mem_fail_after(i, true);
        enum sov_error rc = labels_parse(&labels, text, strlen(text), &err);
        (void)sov_mem_fail_after(-1, false);
        labels_free(&labels);
        if (rc == SOV_OK) break;
        assert_int_equal(rc, SOV_ERR_NOMEM);
        assert_true(i < 10000);
    }
}

static void expect_set(const struct tokenizer *tok, const char *word, const int32_t *ids, int count)
{
    struct rubric_words words = {.count = 1};
    struct token_set set;
    struct sov_errbuf err;
    strcpy(words.words[0], word);
    assert_int_equal(token_set_fill(&set, tok, &words, &err), SOV_OK);
    assert_int_equal(set.count, count);
    for (int i = 0; i < count; i++) assert_int_equal(set.ids[i], ids[i]);
}

static void a_word_is_all_its_spellings_of_one_token(void **state)
{
    (void)state;
    struct gguf_fixture f = {0};
    fixture_put_bpe(&f, NULL);
    struct tokenizer *bpe = fixture_tokenizer(&f);
    expect_set(bpe, "hello", (const int32_t[]){B_HELLO, B_SPACE_HELLO}, 2);
    expect_set(bpe, "HELLO", (const int32_t[]){B_HELLO, B_SPACE_HELLO}, 2);
    expect_set(bpe, "Hell", (const int32_t[]){B_HELL}, 1);
    expect_set(bpe, "oh", NULL, 0);
    tokenizer_free(bpe);
    struct gguf_fixture g = {0};
    fixture_put_spm(&g, true, "YES");
    struct tokenizer *spm = fixture_tokenizer(&g);
    /* Texts get a space before them here; the word without one is in the vocabulary all the same. */
    expect_set(spm, "ab", (const int32_t[]){S_AB, S_SPACE_AB}, 2);
    expect_set(spm, "yes", (const int32_t[]){S_COUNT}, 1);
    expect_set(spm, "<s>", NULL, 0); /* a control token spells nothing */
    tokenizer_free(spm);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_temperature_behind_the_labels_is_found),
        cmocka_unit_test(the_same_labels_give_the_same_bits),
        cmocka_unit_test(one_sided_labels_change_nothing),
        cmocka_unit_test(extremes_stay_within_the_rubrics_limits),
        cmocka_unit_test(the_brier_score_is_the_mean_square),
        cmocka_unit_test(the_plot_has_a_panel_for_each_labelled_dimension),
        cmocka_unit_test(labels_are_read),
        cmocka_unit_test(wrong_labels_are_named_by_line_and_field),
        cmocka_unit_test(labels_survive_every_lack_of_memory),
        cmocka_unit_test(a_word_is_all_its_spellings_of_one_token),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
