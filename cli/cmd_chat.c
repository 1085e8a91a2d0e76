/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Talks with a person in a terminal, or answers the lines of a pipe. In a terminal Ctrl-C ends the
 * answer that is being written (what is there of it stays in the conversation) and Ctrl-D the
 * program.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "base/clock.h"
#include "cli/args.h"
#include "cli/cli.h"
#include "cli/conversation.h"
#include "cli/line_editor.h"
#include "cli/runtime_load.h"
#include "cli/sampling_args.h"
#include "cli/text.h"

enum {
    CHAT_TOKENS_MAX = 1 << 20,
    CHAT_RESERVE_MAX =
        256, /* tokens that the oldest turns make room for; a quarter of a small context */
    CHAT_POLL_MS = 50,   /* how soon Ctrl-C is noticed while nothing is generated */
    CHAT_SEED_BITS = 32, /* seeds drawn by chance are short enough to type again */
};

struct chat {
    struct cli_runtime_flags flags;
    struct cli_sampling sampling;
    struct cli_runtime rt;
    struct engine_request request;
    struct conversation conversation;
    const char *system;
    uint64_t seed;
    int tokens_max; /* 0: what the context holds */
    int retries;
    bool interactive;
    struct engine_usage usage; /* of the last answer */
    int context_used;
};

static volatile sig_atomic_t chat_interrupted;

static void chat_on_interrupt(int signal_number)
{
    (void)signal_number;
    chat_interrupted = 1;
}

/* What became of an answer. */
enum chat_outcome { CHAT_ANSWERED, CHAT_STOPPED, CHAT_ERROR };

static enum chat_outcome chat_follow(struct chat *chat, struct engine_job *job,
                                     struct strbuf *answer)
{
    enum chat_outcome outcome = CHAT_ANSWERED;
    bool cancelled = false;
    for (;;) {
        engine_job_wait(job, CHAT_POLL_MS);
        if (chat_interrupted && !cancelled) {
            engine_job_cancel(job);
            cancelled = true;
        }
        struct engine_event event;
        while (engine_job_next(job, &event)) {
            enum engine_finish finish = event.finish;
            if (event.text_length > 0 && !cancelled) {
                strbuf_append(answer, event.text, event.text_length);
                cli_put_text(stdout, chat->interactive, event.text, event.text_length);
                fflush(stdout);
            }
            if (finish != ENGINE_FINISH_NONE) chat->usage = event.usage;
            if (finish == ENGINE_FINISH_ERROR && event.error == SOV_ERR_CANCELLED && cancelled) {
                outcome = CHAT_STOPPED;
            } else if (finish == ENGINE_FINISH_ERROR) {
                cli_error("%s", event.message);
                outcome = CHAT_ERROR;
            }
            engine_event_free(&event);
            if (finish != ENGINE_FINISH_NONE) return outcome;
        }
    }
}

static int chat_reserve(const struct chat *chat)
{
    int quarter = chat->rt.context / 4;
    return quarter < CHAT_RESERVE_MAX ? quarter : CHAT_RESERVE_MAX;
}

/* Encodes the conversation and starts the answer. */
static enum sov_error chat_submit(struct chat *chat, struct engine_job **job,
                                  struct sov_errbuf *err)
{
    struct token_list prompt = {0};
    int dropped = 0;
    enum sov_error rc =
        conversation_encode(&chat->conversation, chat->rt.chat_template, chat->rt.tokenizer,
                            chat->rt.context, chat_reserve(chat), &prompt, &dropped, err);
    if (rc == SOV_OK && dropped > 0 && !chat->flags.quiet) {
        fprintf(stderr,
                "(the context of %d tokens is full: the oldest %d messages are forgotten)\n",
                chat->rt.context, dropped);
    }
    if (rc == SOV_OK) {
        struct engine_request request = chat->request;
        int room = chat->rt.context - (int)prompt.count;
        request.prompt = prompt.ids;
        request.prompt_count = (int)prompt.count;
        request.max_tokens =
            chat->tokens_max > 0 && chat->tokens_max < room ? chat->tokens_max : room;
        request.sampling.seed = chat->seed + (uint64_t)chat->retries;
        rc = engine_submit(chat->rt.engine, &request, NULL, NULL, job, err);
    }
    token_list_free(&prompt);
    return rc;
}

/* Answers the conversation, whose last turn is the user's. On an error that turn is taken back. */
static int chat_answer(struct chat *chat)
{
    struct engine_job *job = NULL;
    struct sov_errbuf err = {{0}};
    chat_interrupted = 0;
    if (chat_submit(chat, &job, &err) != SOV_OK) {
        conversation_drop_last(&chat->conversation);
        return cli_error("%s", err.message);
    }
    struct strbuf answer = {0};
    enum chat_outcome outcome = chat_follow(chat, job, &answer);
    engine_job_release(job);
    if (outcome == CHAT_STOPPED) fputs(" [stopped]", stdout);
    if (answer.length == 0 || answer.data[answer.length - 1] != '\n' || outcome == CHAT_STOPPED)
        putchar('\n');
    if (chat->interactive) putchar('\n');
    chat->context_used = chat->usage.prompt_tokens + chat->usage.completion_tokens;
    int status = cli_flush_output();
    bool kept = !strbuf_failed(&answer) && answer.length > 0;
    if (kept) kept = conversation_add(&chat->conversation, true, answer.data, answer.length);
    if (!kept) conversation_drop_last(&chat->conversation);
    strbuf_free(&answer);
    return outcome == CHAT_ERROR ? CLI_FAILED : status;
}

static void chat_help(void)
{
    fputs("/help          this list\n"
          "/clear         forget the conversation (the system message stays)\n"
          "/system TEXT   set the system message and begin anew; without TEXT, show it\n"
          "/retry         answer the last question again, with another seed\n"
          "/save FILE     write the conversation as JSON, in the form the API takes\n"
          "/stats         tokens and speed of the last answer\n"
          "/exit          leave (also Ctrl-D)\n"
          "A \\ at the end of a line continues it on the next. Ctrl-C stops an answer.\n"
          "The arrow keys and Ctrl-R find earlier lines.\n",
          stdout);
}

static void chat_stats(const struct chat *chat)
{
    const struct engine_usage *u = &chat->usage;
    if (u->prompt_tokens == 0) {
        puts("nothing was asked yet");
        return;
    }
    double prefill_s = (double)u->prefill_ns / 1e9;
    double decode_s = (double)u->decode_ns / 1e9;
    int decoded = u->completion_tokens > 1 ? u->completion_tokens - 1 : 0;
    int computed = u->prompt_tokens - u->cached_tokens;
    printf("prompt    %d tokens, %d of them from memory, %.0f ms (%.0f/s)\n", u->prompt_tokens,
           u->cached_tokens, prefill_s * 1e3, prefill_s > 0 ? computed / prefill_s : 0.0);
    printf("answer    %d tokens, %.0f ms (%.1f/s)\n", u->completion_tokens, decode_s * 1e3,
           decode_s > 0 ? decoded / decode_s : 0.0);
    printf("context   %d of %d tokens\n", chat->context_used, chat->rt.context);
    printf("seed      %llu, temperature %g\n",
           (unsigned long long)(chat->seed + (uint64_t)chat->retries),
           (double)chat->request.sampling.temperature);
    printf("computing %s, %d threads, arithmetic version %d, %s keys and values\n",
           kern_isa_name(chat->rt.isa), pool_threads(chat->rt.pool), SOV_ARITHMETIC_VERSION,
           vec_kv_type_name(chat->rt.kv_type));
}

static void chat_set_system(struct chat *chat, const char *text)
{
    if (chat->conversation.single) {
        puts("(the built-in guide takes no system message)");
    } else if (text[0] == '\0') {
        printf("system message: %s\n",
               chat->conversation.system != NULL ? chat->conversation.system : "none");
    } else if (!conversation_set_system(&chat->conversation, text)) {
        cli_error("no memory for the system message");
    } else {
        conversation_clear(&chat->conversation);
        puts("(set; the conversation begins anew)");
    }
}

static void chat_save(const struct chat *chat, const char *path)
{
    if (path[0] == '\0') {
        cli_error("/save: give a file's name");
        return;
    }
    struct strbuf json = {0};
    FILE *file = NULL;
    if (!conversation_put_json(&chat->conversation, chat->rt.name, &json)) {
        cli_error("/save %s: no memory", path);
    } else if ((file = fopen(path, "wbxe")) == NULL) {
        cli_error("/save %s: %s", path, strerror(errno));
    } else {
        bool written = fwrite(json.data, 1, json.length, file) == json.length;
        if (fclose(file) != 0) written = false;
        if (written)
            printf("(%zu messages in %s)\n", chat->conversation.count, path);
        else
            cli_error("/save %s: %s", path, strerror(errno));
    }
    strbuf_free(&json);
}

static int chat_retry(struct chat *chat)
{
    struct conversation *c = &chat->conversation;
    if (c->count < 2) {
        puts("nothing was asked yet");
        return CLI_OK;
    }
    if (chat->request.sampling.temperature == 0)
        puts("(the temperature is 0: the answer stays the same)");
    conversation_drop_last(c);
    chat->retries++;
    return chat_answer(chat);
}

/* A line beginning with a slash. False: the person wants to leave. */
static bool chat_command(struct chat *chat, const char *line, int *status)
{
    static const char *const NAMES[] = {"/help",  "/clear", "/system", "/retry", "/save",
                                        "/stats", "/exit",  "/quit",   "/bye"};
    enum { HELP, CLEAR, SYSTEM, RETRY, SAVE, STATS, EXIT, QUIT, BYE, COMMANDS };
    size_t length = strcspn(line, " \t");
    const char *rest = line + length + strspn(line + length, " \t");
    int which = 0;
    while (which < COMMANDS &&
           (strlen(NAMES[which]) != length || memcmp(NAMES[which], line, length) != 0))
        which++;
    switch (which) {
    case HELP: chat_help(); break;
    case CLEAR:
        conversation_clear(&chat->conversation);
        puts("(forgotten)");
        break;
    case SYSTEM: chat_set_system(chat, rest); break;
    case RETRY: *status = chat_retry(chat); break;
    case SAVE: chat_save(chat, rest); break;
    case STATS: chat_stats(chat); break;
    case EXIT:
    case QUIT:
    case BYE: return false;
    default: {
        char word[64];
        snprintf(word, sizeof word, "%.*s", (int)(length < sizeof word ? length : sizeof word - 1),
                 line);
        const char *near = cli_nearest(word, NAMES, COMMANDS);
        cli_error("%s: there is no such command%s%s; /help lists them", word,
                  near != NULL ? ", did you mean " : "", near != NULL ? near : "");
    }
    }
    fflush(stdout);
    return true;
}

/* One message, of several lines where they end in a backslash. */
static enum line_result chat_read(struct line_editor *editor, struct strbuf *message)
{
    strbuf_clear(message);
    const char *prompt = "> ";
    for (;;) {
        size_t begin = message->length;
        enum line_result result = line_editor_read(editor, prompt, message);
        if (result == LINE_END && begin > 0) return LINE_TEXT;
        if (result != LINE_TEXT) return result;
        if (message->length == begin || message->data[message->length - 1] != '\\')
            return LINE_TEXT;
        message->data[message->length - 1] = '\n';
        prompt = ". ";
    }
}

static int chat_loop(struct chat *chat, struct line_editor *editor)
{
    struct strbuf message = {0};
    int status = CLI_OK;
    for (;;) {
        enum line_result result = chat_read(editor, &message);
        if (result == LINE_END) break;
        if (result == LINE_GIVEN_UP) continue;
        const char *text = strbuf_text(&message);
        if (strspn(text, " \t\r\n") == message.length) continue;
        int turn = CLI_OK;
        if (text[0] == '/' && strchr(text, '\n') == NULL) {
            if (!chat_command(chat, text, &turn)) break;
        } else if (!conversation_add(&chat->conversation, false, text, message.length)) {
            turn = cli_error("no memory for the message");
        } else {
            turn = chat_answer(chat);
        }
        /* A person sees the error and goes on; a pipe's reader needs the exit status. */
        if (!chat->interactive && turn != CLI_OK) status = turn;
        if (ferror(stdout)) {
            status = CLI_FAILED;
            break;
        }
    }
    strbuf_free(&message);
    return status;
}

static int chat_run(struct chat *chat)
{
    struct line_editor *editor = line_editor_open(chat->interactive);
    if (editor == NULL)
        return cli_error("the line editor could not be started (memory, or an unknown TERM)");
    cli_runtime_warn_template(&chat->rt, &chat->flags);
    if (chat->interactive) {
        struct sigaction action = {.sa_handler = chat_on_interrupt};
        sigemptyset(&action.sa_mask);
        sigaction(SIGINT, &action, NULL);
        printf("%s, %d tokens of context. /help lists the commands, Ctrl-D leaves.\n",
               chat->rt.name, chat->rt.context);
        if (chat->conversation.single) {
            puts("It answers each question on its own and remembers none.");
        }
        putchar('\n');
    }
    int status = conversation_set_system(&chat->conversation, chat->system)
                     ? CLI_OK
                     : cli_error("no memory for the system message");
    if (status == CLI_OK) status = chat_loop(chat, editor);
    line_editor_close(editor);
    if (chat->interactive) putchar('\n');
    return status == CLI_OK ? cli_flush_output() : status;
}

static void chat_declare(struct args *args, struct chat *chat)
{
    args_init(args, "chat", "[--model FILE] [--system TEXT] [flags]",
              "Talks to a model in the terminal: answers appear as they are written, Ctrl-C stops "
              "an answer, Ctrl-D "
              "leaves, /help lists the commands. From a pipe every line is a question.");
    cli_runtime_flags_add_model(args, &chat->flags);
    args_text(args, "--system", "TEXT", &chat->system,
              "The system message: what the model should be or do.");
    cli_runtime_flags_add_template(args, &chat->flags);
    args_int(args, "--max-tokens", "N", &chat->tokens_max, 1, CHAT_TOKENS_MAX,
             "At most so many tokens per answer. Default: what the context holds.");
    args_alias(args, "-n");
    args_switch(args, "--quiet", &chat->flags.quiet, "No progress and no hints on standard error.");
    args_heading(args, "Sampling");
    cli_sampling_add(args, &chat->sampling,
                     "0 always takes the likeliest token; 1 samples as trained. Default 0.7, and 0 "
                     "for the guide.",
                     "Where the random numbers begin. Default: by chance; /stats shows it.");
    cli_sampling_add_stops(args, &chat->sampling);
    args_heading(args, "Computing");
    cli_runtime_flags_add_engine(args, &chat->flags);
    args->examples = "  sovereign chat\n"
                     "  sovereign chat --model qwen2.5-0.5b-instruct-q8_0.gguf --system 'Answer in "
                     "one sentence.'\n"
                     "  printf 'What is Sovereign?\\n' | sovereign chat --quiet\n";
}

int cmd_chat(int argc, char **argv)
{
    static const float TEMPERATURE_DEFAULT = 0.7f;
    struct chat chat = {0};
    struct args args;
    int status = CLI_OK;
    cli_runtime_flags_init(&chat.flags, 1);
    chat.sampling.params = sampling_params_default();
    chat.sampling.params.temperature = -1; /* not given */
    if (getrandom(&chat.seed, sizeof chat.seed, 0) != (ssize_t)sizeof chat.seed) {
        chat.seed = (uint64_t)clock_wall_ms();
    }
    chat.sampling.params.seed = chat.seed & ((1ull << CHAT_SEED_BITS) - 1);
    chat_declare(&args, &chat);
    if (!args_parse(&args, argc, argv, &status)) return status;
    if (chat.sampling.params.temperature < 0) {
        chat.sampling.params.temperature = chat.flags.model == NULL ? 0 : TEMPERATURE_DEFAULT;
    }
    if (chat.flags.model == NULL && chat.system != NULL) {
        return cli_usage_error("chat", "--system: the built-in guide takes no system message");
    }
    chat.conversation.single = chat.flags.model == NULL;
    chat.request.top_logprobs = -1;
    status = cli_sampling_apply(&chat.sampling, "chat", &chat.request);
    if (status != CLI_OK) return status;
    chat.seed = chat.sampling.params.seed;
    chat.interactive = isatty(STDIN_FILENO) && isatty(STDOUT_FILENO);
    status = cli_runtime_prepare(&chat.rt, &chat.flags, "chat");
    if (status == CLI_OK) status = cli_runtime_open(&chat.rt, &chat.flags);
    if (status == CLI_OK) status = cli_runtime_load(&chat.rt, &chat.flags);
    if (status == CLI_OK) status = chat_run(&chat);
    conversation_free(&chat.conversation);
    cli_runtime_close(&chat.rt);
    return status;
}
