/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/runtime_load.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/utf8.h"
#include "cli/cli.h"
#include "cli/guide.h"
#include "kernels/tuning_measure.h"

void cli_runtime_flags_init(struct cli_runtime_flags *flags, int parallel)
{
    *flags = (struct cli_runtime_flags){
        .isa = "auto",
        .tune = "auto",
        .kv_type = vec_kv_type_name(KV_TYPE_F16),
        .parallel = parallel,
        .queue = ENGINE_QUEUE_DEFAULT,
        .prefill_chunk = ENGINE_CHUNK_DEFAULT,
    };
}

void cli_runtime_flags_add_model(struct args *args, struct cli_runtime_flags *flags)
{
    args_text(
        args, "--model", "FILE", &flags->model,
        "The GGUF file. Without it: the built-in guide, which answers questions about Sovereign.");
    args_alias(args, "-m");
}

void cli_runtime_flags_add_cpu(struct args *args, struct cli_runtime_flags *flags)
{
    args_int(
        args, "--threads", "N", &flags->threads, 1, POOL_THREADS_MAX,
        "Threads that compute. Default: one for each physical core that this process may use. The "
        "answers do not depend on it.");
    args_alias(args, "-t");
    args_text(args, "--isa", "NAME", &flags->isa,
              "Instruction set: auto, scalar, avx2, avx512, amx, neon. Default auto: the best this "
              "CPU has. "
              "The answers do not "
              "depend on it.");
    args_text(args, "--tune", "WHEN", &flags->tune,
              "When the kernels are measured at load, in less than a second, to choose among them: "
              "auto, always, never. Default auto: on a CPU without a measured table, for models of "
              "64 MiB or more. The answers do not depend on it.");
}

void cli_runtime_flags_add_engine(struct args *args, struct cli_runtime_flags *flags)
{
    cli_runtime_flags_add_cpu(args, flags);
    args_int(args, "--ctx", "N", &flags->context, 2, ENGINE_CONTEXT_MAX,
             "Tokens of one conversation, prompt and answer together. Default: what the model was "
             "trained for, at "
             "most 4096.");
    args_alias(args, "-c");
    args_int(args, "--prefill-chunk", "N", &flags->prefill_chunk, 1, ENGINE_CHUNK_MAX,
             "Prompt tokens read in one step, beside the answers being written. Default 256.");
    args_bytes(args, "--kv-memory", "SIZE", &flags->kv_bytes, 1,
               "Memory for attention keys and values (500M, 2G, 2GiB). Default: enough for every "
               "sequence to use "
               "its whole context.");
    args_text(
        args, "--kv-type", "NAME", &flags->kv_type,
        "How attention keys and values are held: f16, or q8_0 with a little more than half of "
        "the memory. Default f16. The answers depend on it.");
}

void cli_runtime_flags_add_parallel(struct args *args, struct cli_runtime_flags *flags)
{
    args_int(args, "--parallel", "N", &flags->parallel, 1, ENGINE_PARALLEL_MAX,
             "Sequences computed at once, in one batch. Default 8; 16 in bench.");
}

void cli_runtime_flags_add_template(struct args *args, struct cli_runtime_flags *flags)
{
    args_text(args, "--chat-template", "NAME", &flags->chat_template,
              "How a conversation becomes a prompt: chatml, llama2, llama3, mistral, zephyr, "
              "gemma, phi3, deepseek. "
              "Default: as the file says.");
}

/* A model that small is loaded, and answers, sooner than its kernels are measured. */
static const uint64_t TUNE_FILE_BYTES_MIN = (uint64_t)64 << 20;

enum tune_when { TUNE_AUTO, TUNE_ALWAYS, TUNE_NEVER, TUNE_UNKNOWN };

static enum tune_when runtime_tune_when(const struct cli_runtime_flags *flags)
{
    static const char *const NAMES[] = {"auto", "always", "never"};
    int when = TUNE_AUTO;
    while (when < TUNE_UNKNOWN && strcmp(flags->tune, NAMES[when]) != 0) when++;
    return (enum tune_when)when;
}

int cli_runtime_prepare(struct cli_runtime *rt, const struct cli_runtime_flags *flags,
                        const char *command)
{
    memset(rt, 0, sizeof *rt);
    struct sov_errbuf err;
    if (kern_isa_parse(flags->isa, &rt->isa, &err) != SOV_OK) {
        return cli_usage_error(command, "--isa: %s", err.message);
    }
    if (runtime_tune_when(flags) == TUNE_UNKNOWN) {
        return cli_usage_error(command, "--tune %s: must be auto, always or never", flags->tune);
    }
    if (!vec_kv_type_parse(flags->kv_type, &rt->kv_type)) {
        return cli_usage_error(command, "--kv-type %s: must be f16 or q8_0", flags->kv_type);
    }
    if (flags->chat_template == NULL) return CLI_OK;
    rt->chat_template_known = true;
    if (chat_template_by_name(flags->chat_template, &rt->chat_template)) return CLI_OK;
    char names[CLI_MODEL_NAME_MAX] = "";
    for (int i = 0; i < CHAT_TEMPLATES; i++) {
        size_t used = strlen(names);
        snprintf(names + used, sizeof names - used, "%s%s", i > 0 ? ", " : "",
                 chat_template_name((enum chat_template)i));
    }
    return cli_usage_error(command, "--chat-template %s: must be one of %s", flags->chat_template,
                           names);
}

const char *cli_bytes_text(double bytes, char out[CLI_BYTES_TEXT_MAX])
{
    static const char *const UNITS[] = {"bytes", "kB", "MB", "GB", "TB"};
    int unit = 0;
    while (bytes >= 1000.0 && unit < 4) {
        bytes /= 1000.0;
        unit++;
    }
    snprintf(out, CLI_BYTES_TEXT_MAX, "%.*f %s", unit > 0 && bytes < 10.0 ? 1 : 0, bytes,
             UNITS[unit]);
    return out;
}

/* general.name where it is fit to print and to be an id of the API; else the file's name. */
static void runtime_name(struct cli_runtime *rt, const char *path)
{
    struct gguf_str name;
    struct sov_errbuf err;
    if (gguf_get_str(rt->gguf, "general.name", &name, &err) == SOV_OK && name.length > 0 &&
        name.length < sizeof rt->name && utf8_valid(name.data, (size_t)name.length)) {
        bool printable = true;
        for (uint64_t i = 0; i < name.length; i++) {
            unsigned char c = (unsigned char)name.data[i];
            if (c < 0x20 || c == 0x7f) printable = false;
        }
        if (printable) {
            memcpy(rt->name, name.data, (size_t)name.length);
            rt->name[name.length] = '\0';
            return;
        }
    }
    const char *slash = path != NULL ? strrchr(path, '/') : NULL;
    snprintf(rt->name, sizeof rt->name, "%s",
             path == NULL    ? "guide"
             : slash != NULL ? slash + 1
                             : path);
    size_t length = strlen(rt->name);
    if (length > 5 && strcmp(rt->name + length - 5, ".gguf") == 0) rt->name[length - 5] = '\0';
}

static enum sov_error runtime_open_gguf(struct cli_runtime *rt,
                                        const struct cli_runtime_flags *flags,
                                        struct sov_errbuf *err)
{
    if (flags->model != NULL) return gguf_open(flags->model, &rt->gguf, err);
    rt->builtin = true;
    if (guide_bytes() == 0) {
        return sov_fail(err, SOV_ERR_NOT_FOUND,
                        "this program was built without the built-in guide; "
                        "give a model with --model FILE.gguf");
    }
    return gguf_open_memory(sov_guide_start, guide_bytes(), &rt->gguf, err);
}

/* A model may be cut into files; one of them alone would only be said to lack tensors. */
static enum sov_error runtime_check_whole(const struct gguf *gguf, struct sov_errbuf *err)
{
    uint32_t parts = 1;
    enum sov_error rc = gguf_get_u32(gguf, "split.count", &parts, err);
    if (rc != SOV_OK && rc != SOV_ERR_NOT_FOUND) return rc;
    if (parts <= 1) return SOV_OK;
    return sov_fail(err, SOV_ERR_UNSUPPORTED,
                    "is one of %u parts of a model; Sovereign reads models in one file "
                    "(llama.cpp's llama-gguf-split --merge joins them)",
                    parts);
}

int cli_runtime_open(struct cli_runtime *rt, const struct cli_runtime_flags *flags)
{
    struct sov_errbuf err = {{0}};
    enum sov_error rc = runtime_open_gguf(rt, flags, &err);
    if (rc == SOV_OK) rc = runtime_check_whole(rt->gguf, &err);
    if (rc == SOV_OK) rc = tokenizer_create(rt->gguf, &rt->tokenizer, &err);
    if (rc != SOV_OK) {
        if (flags->model == NULL) return cli_error("%s", err.message);
        /* Some messages of the reader begin with the path already. */
        bool named = strncmp(err.message, flags->model, strlen(flags->model)) == 0;
        return cli_error("%s%s%s", named ? "" : flags->model, named ? "" : ": ", err.message);
    }
    runtime_name(rt, flags->model);
    if (rt->builtin && !flags->quiet) {
        log_info("no --model given: this is the built-in guide, which answers questions about "
                 "Sovereign only");
        log_info("to use a real model: --model FILE.gguf");
    }
    if (!rt->chat_template_known)
        rt->chat_template = chat_template_detect(rt->gguf, &rt->chat_template_known);
    return CLI_OK;
}

void cli_runtime_warn_template(const struct cli_runtime *rt, const struct cli_runtime_flags *flags)
{
    if (rt->chat_template_known || flags->quiet) return;
    log_warn("%s: no chat template that Sovereign knows is in the file; chats are written as %s "
             "(--chat-template changes it)",
             rt->name, chat_template_name(rt->chat_template));
}

/* What the progress line needs between calls. */
struct runtime_progress {
    const struct cli_runtime_flags *flags;
    const char *name;
    bool terminal;
    int percent;
};

static void runtime_progress(void *user, double fraction)
{
    struct runtime_progress *progress = user;
    int percent = (int)(fraction * 100.0);
    if (progress->flags->progress != NULL)
        progress->flags->progress(progress->flags->progress_user, fraction);
    if (!progress->terminal || percent == progress->percent) return;
    progress->percent = percent;
    fprintf(stderr, "\rloading %s %d%%", progress->name, percent);
    fflush(stderr);
}

static enum sov_error runtime_load_model(struct cli_runtime *rt,
                                         const struct cli_runtime_flags *flags,
                                         struct sov_errbuf *err)
{
    bool shown = !flags->quiet && log_enabled(LOG_LEVEL_INFO);
    struct runtime_progress progress = {.flags = flags, .name = rt->name, .percent = -1};
    progress.terminal = shown && log_current_format() == LOG_FORMAT_TEXT && isatty(STDERR_FILENO);
    if (shown && !progress.terminal) {
        char size[CLI_BYTES_TEXT_MAX];
        log_info("loading %s (%s)", rt->name,
                 cli_bytes_text((double)gguf_file_bytes(rt->gguf), size));
    }
    struct model_load_options options = {
        .isa = rt->isa,
        .kv_type = rt->kv_type,
        .pool = rt->pool,
        .progress = runtime_progress,
        .user = &progress,
    };
    enum sov_error rc = model_load(rt->gguf, &options, &rt->model, err);
    if (progress.terminal) fputs("\r\033[K", stderr);
    return rc;
}

/* A choice of kernels that is not the best is no reason to fail. */
static void runtime_tune(struct cli_runtime *rt, const struct cli_runtime_flags *flags)
{
    struct sov_errbuf err = {{0}};
    enum tune_when when = runtime_tune_when(flags);
    tuning_weigh_for(rt->gguf);
    if (when == TUNE_NEVER) return;
    if (when == TUNE_AUTO &&
        (tuning_is_measured(rt->isa) || gguf_file_bytes(rt->gguf) < TUNE_FILE_BYTES_MIN))
        return;
    int64_t begin_ns = clock_monotonic_ns();
    if (tuning_measure_at_load(rt->gguf, rt->isa, rt->pool, &err) != SOV_OK) {
        log_warn("kernels were not measured: %s", err.message);
        return;
    }
    if (!flags->quiet)
        log_info("kernels of %s measured on this CPU in %.1f s", kern_isa_name(rt->isa),
                 (double)(clock_monotonic_ns() - begin_ns) / 1e9);
}

static enum sov_error runtime_check_model(struct cli_runtime *rt,
                                          const struct cli_runtime_flags *flags,
                                          struct sov_errbuf *err)
{
    const struct model_config *config = model_config(rt->model);
    if (tokenizer_vocab_size(rt->tokenizer) > config->vocab) {
        return sov_fail(err, SOV_ERR_FORMAT,
                        "the tokenizer has %d tokens and the model's output only %d",
                        (int)tokenizer_vocab_size(rt->tokenizer), config->vocab);
    }
    rt->context = flags->context;
    if (rt->context == 0) {
        rt->context = config->context_train < CLI_CONTEXT_DEFAULT ? config->context_train
                                                                  : CLI_CONTEXT_DEFAULT;
    }
    if (rt->context > config->context_train && !flags->quiet) {
        log_warn("--ctx %d: the model was trained for %d tokens; what it says beyond them may make "
                 "no sense",
                 rt->context, config->context_train);
    }
    return SOV_OK;
}

static enum sov_error runtime_start_engine(struct cli_runtime *rt,
                                           const struct cli_runtime_flags *flags,
                                           struct sov_errbuf *err)
{
    struct engine_options options = {
        .model = rt->model,
        .tokenizer = rt->tokenizer,
        .pool = rt->pool,
        .parallel = flags->parallel,
        .context = rt->context,
        .queue_max = flags->queue,
        .prefill_chunk = flags->prefill_chunk,
        .tpot_target_ns = (int64_t)flags->tpot_target_ms * 1000000,
        .kv_bytes_max = flags->kv_bytes,
        .prefix_reuse = !flags->no_prefix_reuse,
    };
    return engine_create(&options, &rt->engine, err);
}

int cli_runtime_load(struct cli_runtime *rt, const struct cli_runtime_flags *flags)
{
    int64_t begin_ns = clock_monotonic_ns();
    struct sov_errbuf err = {{0}};
    int threads = flags->threads > 0 ? flags->threads : pool_default_threads();
    enum sov_error rc = pool_create(threads, &rt->pool, &err);
    if (rc == SOV_OK) runtime_tune(rt, flags);
    if (rc == SOV_OK) rc = runtime_load_model(rt, flags, &err);
    if (rc == SOV_OK) rc = runtime_check_model(rt, flags, &err);
    if (rc == SOV_OK) rc = runtime_start_engine(rt, flags, &err);
    if (rc != SOV_OK) return cli_error("%s: %s", rt->name, err.message);
    rt->load_seconds = (double)(clock_monotonic_ns() - begin_ns) / 1e9;
    return CLI_OK;
}

void cli_runtime_log_summary(const struct cli_runtime *rt, const struct cli_runtime_flags *flags)
{
    const struct model_config *config = model_config(rt->model);
    char bytes[CLI_BYTES_TEXT_MAX];
    log_info("%s: %s, %.*f million parameters, %s, %s of weights; %s, %d thread%s, arithmetic "
             "version %d; loaded in "
             "%.1f s",
             rt->name, config->arch_name, config->parameters < 10000000 ? 1 : 0,
             (double)config->parameters / 1e6, config->file_type,
             cli_bytes_text((double)config->weight_bytes, bytes), kern_isa_name(rt->isa),
             pool_threads(rt->pool), pool_threads(rt->pool) == 1 ? "" : "s", SOV_ARITHMETIC_VERSION,
             rt->load_seconds);
    struct engine_stats stats;
    engine_stats_read(rt->engine, &stats);
    const char *kv_type = vec_kv_type_name(rt->kv_type);
    size_t tokens = stats.kv_pages_total * (size_t)model_kv_page_positions(rt->model);
    cli_bytes_text((double)stats.kv_pages_total * (double)stats.kv_page_bytes, bytes);
    if (tokens >= (size_t)flags->parallel * (size_t)rt->context) {
        log_info("KV budget %s of %s: %d sequence%s x %d tokens", bytes, kv_type, flags->parallel,
                 flags->parallel == 1 ? "" : "s", rt->context);
    } else {
        log_info(
            "KV budget %s of %s: %zu tokens shared by %d sequences of at most %d (--kv-memory, "
            "--parallel, --ctx)",
            bytes, kv_type, tokens, flags->parallel, rt->context);
    }
}

void cli_runtime_close(struct cli_runtime *rt)
{
    if (rt->engine != NULL) engine_free(rt->engine);
    if (rt->model != NULL) model_free(rt->model);
    if (rt->pool != NULL) pool_free(rt->pool);
    if (rt->tokenizer != NULL) tokenizer_free(rt->tokenizer);
    if (rt->gguf != NULL) gguf_close(rt->gguf);
    memset(rt, 0, sizeof *rt);
}
