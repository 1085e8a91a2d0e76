/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/query_setup.h"

#include "base/log.h"
#include "base/mem.h"
#include "cli/cli.h"

void cli_query_setup_init(struct cli_query_setup *setup)
{
    *setup = (struct cli_query_setup){.gate = gate_mode_name(GATE_OFF),
                                      .thresholds = gate_thresholds_default(),
                                      .stop_belief = QUERY_STOP_BELIEF_DEFAULT};
}

void cli_query_setup_add(struct args *args, struct cli_query_setup *setup)
{
    struct gate_thresholds *t = &setup->thresholds;
    args_text(args, "--gate", "MODE", &setup->gate,
              "What becomes of answers whose scores fall short: off, observe (let through, and "
              "said) or enforce (withheld). Default off.");
    args_float(args, "--gate-mean", "X", &t->geometric_mean, 0, 1,
               "The least geometric mean of the eight scores. Default 0.6.");
    args_float(args, "--gate-minimum", "X", &t->minimum, 0, 1,
               "The least score in each dimension. Default 0.5.");
    args_float(args, "--gate-belief", "X", &t->belief, 0, 1, "The least belief. Default 0.6.");
    args_float(args, "--gate-federation-belief", "X", &t->federation_belief, 0, 1,
               "The least belief of an answer that is to be shared. Default 0.95.");
    args_float(args, "--gate-entropy", "X", &t->entropy, 0, 5, "The most entropy. Default 5: any.");
    args_float(args, "--gate-potential", "X", &t->potential, -1, 1,
               "The least potential. Default -1: any.");
    args_float(args, "--stop-belief", "X", &setup->stop_belief, 0, 1,
               "A thought with this belief is the last one before the answer; 0: none is because "
               "of it. Default 0.9.");
    args_text(
        args, "--rubric", "FILE", &setup->rubric,
        "The questions by which thoughts and answers are scored, as JSON. Default: built in.");
    args_text(args, "--ihsan-weights", "FILE", &setup->weights,
              "The weights from eight scores to belief, entropy and potential, as JSON. Default: "
              "built in.");
}

int cli_query_setup_prepare(struct cli_query_setup *setup, const char *command, enum kern_isa isa)
{
    struct sov_errbuf err = {""};
    struct query_config *c = &setup->config;
    if (!gate_mode_parse(setup->gate, &c->gate))
        return cli_usage_error(command, "--gate %s: must be off, observe or enforce", setup->gate);
    if (setup->gate_all && c->gate == GATE_OFF)
        return cli_usage_error(command, "--gate-all needs --gate observe or enforce");
    c->thresholds = setup->thresholds;
    c->gate_all = setup->gate_all;
    c->stop_belief = setup->stop_belief;
    setup->questions = sov_alloc(1, sizeof *setup->questions);
    if (setup->questions == NULL) return cli_error("no memory for the rubric");
    enum sov_error rc = SOV_OK;
    if (setup->rubric != NULL)
        rc = rubric_load(setup->questions, setup->rubric, &err);
    else
        rubric_default(setup->questions);
    if (rc != SOV_OK) return cli_error("--rubric %s", err.message);
    if (setup->weights != NULL)
        rc = projector_load(&c->projector, isa, setup->weights, &err);
    else
        projector_init(&c->projector, isa);
    if (rc != SOV_OK) return cli_error("--ihsan-weights: %s", err.message);
    if (!query_rubric_digest(setup->questions, c->rubric_digest))
        return cli_error("no memory for the rubric");
    return CLI_OK;
}

int cli_query_setup_open(struct cli_query_setup *setup, const struct cli_runtime *rt,
                         const struct identity *identity, struct model_digest *digest)
{
    struct query_config *c = &setup->config;
    struct sov_errbuf err = {""};
    c->engine = rt->engine;
    c->tokenizer = rt->tokenizer;
    c->chat_template = rt->chat_template;
    c->kv_type = rt->kv_type;
    c->guide = rt->builtin;
    c->identity = identity;
    c->digest = digest;
    struct evaluator_options options = {.engine = rt->engine,
                                        .tokenizer = rt->tokenizer,
                                        .chat_template = rt->chat_template,
                                        .rubric = setup->questions};
    enum sov_error rc = evaluator_create(&options, &setup->evaluator, &err);
    c->evaluator = setup->evaluator;
    if (rc == SOV_OK) return CLI_OK;
    /* A vocabulary without the words answers all the same, unless somebody relies on scores. */
    if (rc == SOV_ERR_UNSUPPORTED && setup->rubric == NULL && c->gate != GATE_OFF)
        return cli_error("--gate %s needs scores, which this model cannot give: %s",
                         gate_mode_name(c->gate), err.message);
    if (rc != SOV_ERR_UNSUPPORTED || setup->rubric != NULL) return cli_error("%s", err.message);
    log_warn("queries are answered without scores: %s", err.message);
    return CLI_OK;
}

void cli_query_setup_close(struct cli_query_setup *setup)
{
    evaluator_free(setup->evaluator);
    sov_free(setup->questions);
    setup->evaluator = NULL;
    setup->questions = NULL;
}
