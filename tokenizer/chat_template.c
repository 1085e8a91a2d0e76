/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rendering: one function per family, writing through a prompt that knows which stretches are
 * message contents, so that chat_template_encode can keep special tokens out of them.
 */
#include "tokenizer/chat_template.h"

#include <string.h>

#include "base/mem.h"
#include "base/utf8.h"
#include "tokenizer/tokenizer.h"
#include "tokenizer/unicode_class.h"

/* Stands for an answer whose tokens are known; it begins and ends without what is stripped. */
static const char CHAT_TEMPLATE_MARK[] = "@@answer@@";

struct prompt {
    struct strbuf *out;
    const struct chat_message *messages;
    size_t count;
    bool add_generation_prompt;
    struct tokenizer_span *spans; /* of contents; NULL when nobody asks */
    size_t span_count, span_capacity;
    bool want_spans, failed;
    struct sov_errbuf *err;
};

struct slice {
    const char *data;
    size_t length;
};

static void put(struct prompt *p, const char *text)
{
    strbuf_puts(p->out, text);
}

static void put_content(struct prompt *p, struct slice content)
{
    size_t start = p->out->length;
    strbuf_append(p->out, content.data, content.length);
    if (!p->want_spans || content.length == 0) return;
    if (p->span_count == p->span_capacity) {
        size_t capacity = p->span_capacity == 0 ? 16 : p->span_capacity * 2;
        struct tokenizer_span *spans = sov_realloc(p->spans, capacity, sizeof *spans);
        if (spans == NULL) {
            p->failed = true;
            return;
        }
        p->spans = spans;
        p->span_capacity = capacity;
    }
    p->spans[p->span_count++] = (struct tokenizer_span){start, start + content.length};
}

static struct slice content_of(const struct prompt *p, size_t i)
{
    return (struct slice){p->messages[i].content, p->messages[i].content_length};
}

static bool is_role(const struct prompt *p, size_t i, const char *role)
{
    return i < p->count && strcmp(p->messages[i].role, role) == 0;
}

/* What Python's str.strip takes away. */
static bool is_python_space(uint32_t c)
{
    return unicode_is_space(c) || (c >= 0x1C && c <= 0x1F);
}

static struct slice strip_left(struct slice s)
{
    for (uint32_t c; s.length != 0;) {
        size_t n = utf8_decode(s.data, s.length, &c);
        if (n == 0 || !is_python_space(c)) break;
        s.data += n;
        s.length -= n;
    }
    return s;
}

static struct slice strip_right(struct slice s)
{
    while (s.length != 0) {
        size_t start = s.length - 1;
        while (start > 0 && s.length - start < 4 && ((unsigned char)s.data[start] & 0xC0) == 0x80)
            start--;
        uint32_t c;
        size_t n = utf8_decode(s.data + start, s.length - start, &c);
        if (n != s.length - start || !is_python_space(c)) break;
        s.length = start;
    }
    return s;
}

static struct slice strip(struct slice s)
{
    return strip_left(strip_right(s));
}

static struct slice strip_newlines(struct slice s, bool left, bool right)
{
    while (left && s.length != 0 && s.data[0] == '\n') {
        s.data++;
        s.length--;
    }
    while (right && s.length != 0 && s.data[s.length - 1] == '\n') s.length--;
    return s;
}

/*
 * The part after the last `mark` (all of it if there is none); *before is the part before the first
 * one.
 */
static struct slice after_last(struct slice s, const char *mark, struct slice *before, bool *found)
{
    struct slice rest = s;
    size_t length = strlen(mark);
    *found = false;
    for (const char *at; (at = memmem(rest.data, rest.length, mark, length)) != NULL;) {
        if (!*found && before != NULL) *before = (struct slice){s.data, (size_t)(at - s.data)};
        *found = true;
        rest.length -= (size_t)(at - rest.data) + length;
        rest.data = at + length;
    }
    return rest;
}

static enum sov_error check_roles(struct prompt *p)
{
    if (p->count == 0) return sov_fail(p->err, SOV_ERR_INVALID, "there are no messages");
    for (size_t i = 0; i < p->count; i++) {
        if (p->messages[i].role == NULL ||
            (!is_role(p, i, "system") && !is_role(p, i, "user") && !is_role(p, i, "assistant")))
            return sov_fail(
                p->err, SOV_ERR_INVALID,
                "message %zu: the role is \"%.32s\", expected system, user or assistant", i,
                p->messages[i].role == NULL ? "" : p->messages[i].role);
    }
    return SOV_OK;
}

/* For families that take turns: an optional system message, then user, assistant, user, ... */
static enum sov_error check_turns(struct prompt *p)
{
    size_t first = is_role(p, 0, "system");
    if (first == p->count) return sov_fail(p->err, SOV_ERR_INVALID, "there is no user message");
    for (size_t i = first; i < p->count; i++) {
        const char *expected = (i - first) % 2 == 0 ? "user" : "assistant";
        if (!is_role(p, i, expected))
            return sov_fail(p->err, SOV_ERR_INVALID,
                            "message %zu: the role is \"%s\", but this model's chat template takes "
                            "a system message at "
                            "the beginning only, then user and assistant in turns; expected \"%s\"",
                            i, p->messages[i].role, expected);
    }
    return SOV_OK;
}

static void chatml_message(struct prompt *p, const char *role, struct slice content)
{
    put(p, "<|im_start|>");
    put(p, role);
    put(p, "\n");
    put_content(p, content);
    put(p, "<|im_end|>\n");
}

static void render_chatml(struct prompt *p, const char *default_system)
{
    if (default_system != NULL && !is_role(p, 0, "system")) {
        put(p, "<|im_start|>system\n");
        put(p, default_system);
        put(p, "<|im_end|>\n");
    }
    for (size_t i = 0; i < p->count; i++) chatml_message(p, p->messages[i].role, content_of(p, i));
    if (p->add_generation_prompt) put(p, "<|im_start|>assistant\n");
}

static bool starts_with(struct slice s, const char *text)
{
    return s.length >= strlen(text) && memcmp(s.data, text, strlen(text)) == 0;
}

static bool ends_with(struct slice s, const char *text)
{
    return s.length >= strlen(text) &&
           memcmp(s.data + s.length - strlen(text), text, strlen(text)) == 0;
}

/*
 * Reasoning is kept in answers after the last question only, where the template also marks that
 * there was none.
 */
static void qwen3_answer(struct prompt *p, size_t i, bool after_last_question)
{
    struct slice before = {"", 0}, content = content_of(p, i), reasoning = {"", 0};
    bool found;
    struct slice after = after_last(content, "</think>", &before, &found);
    if (found) {
        content = strip_newlines(after, true, false);
        bool ignored;
        reasoning = after_last(strip_newlines(before, false, true), "<think>", NULL, &ignored);
        reasoning = strip_newlines(reasoning, true, false);
    }
    if (!after_last_question || (i + 1 < p->count && reasoning.length == 0)) {
        chatml_message(p, "assistant", content);
        return;
    }
    put(p, "<|im_start|>assistant\n<think>\n");
    put_content(p, strip_newlines(reasoning, true, true));
    put(p, "\n</think>\n\n");
    put_content(p, strip_newlines(content, true, false));
    put(p, "<|im_end|>\n");
}

static void render_qwen3(struct prompt *p, bool opens_thinking)
{
    size_t last_question = p->count - 1;
    for (size_t i = p->count; i-- > 0;) {
        struct slice content = content_of(p, i);
        bool is_tool =
            starts_with(content, "<tool_response>") && ends_with(content, "</tool_response>");
        if (!is_role(p, i, "user") || is_tool) continue;
        last_question = i;
        break;
    }
    for (size_t i = 0; i < p->count; i++) {
        if (is_role(p, i, "assistant"))
            qwen3_answer(p, i, i > last_question);
        else
            chatml_message(p, p->messages[i].role, content_of(p, i));
    }
    if (p->add_generation_prompt) put(p, "<|im_start|>assistant\n");
    if (p->add_generation_prompt && opens_thinking) put(p, "<think>\n");
}

static void render_qwq(struct prompt *p)
{
    for (size_t i = 0; i < p->count; i++) {
        struct slice content = content_of(p, i);
        bool found;
        if (is_role(p, i, "assistant") && i + 1 < p->count)
            content = strip_newlines(after_last(content, "</think>", NULL, &found), true, false);
        chatml_message(p, p->messages[i].role, content);
    }
    if (p->add_generation_prompt) put(p, "<|im_start|>assistant\n<think>\n");
}

static void llama3_header(struct prompt *p, const char *role)
{
    put(p, "<|start_header_id|>");
    put(p, role);
    put(p, "<|end_header_id|>\n\n");
}

static void render_llama3(struct prompt *p, bool dated)
{
    size_t first = 0;
    if (dated) {
        llama3_header(p, "system");
        put(p, "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n");
        if (is_role(p, 0, "system")) put_content(p, strip(content_of(p, first++)));
        put(p, "<|eot_id|>");
    }
    for (size_t i = first; i < p->count; i++) {
        llama3_header(p, p->messages[i].role);
        put_content(p, strip(content_of(p, i)));
        put(p, "<|eot_id|>");
    }
    if (p->add_generation_prompt) llama3_header(p, "assistant");
}

static enum sov_error render_llama2(struct prompt *p)
{
    enum sov_error rc = check_turns(p);
    if (rc != SOV_OK) return rc;
    size_t first = is_role(p, 0, "system");
    for (size_t i = first; i < p->count; i++) {
        if (is_role(p, i, "assistant")) {
            put(p, " ");
            put_content(p, strip(content_of(p, i)));
            put(p, " </s>");
            continue;
        }
        put(p, i == first ? "[INST] " : "<s>[INST] ");
        if (i == first && first == 1) {
            /* The template strips system and user text as one. */
            struct slice content = strip_right(content_of(p, i));
            put(p, "<<SYS>>\n");
            put_content(p, content_of(p, 0));
            put(p, content.length != 0 ? "\n<</SYS>>\n\n" : "\n<</SYS>>");
            put_content(p, content);
        } else {
            put_content(p, strip(content_of(p, i)));
        }
        put(p, " [/INST]");
    }
    return SOV_OK;
}

struct mistral_style {
    const char *before_user, *after_user, *before_assistant;
    bool strip_assistant;
    bool system_last; /* the system message goes to the last message, if that is the user's */
};

static enum sov_error render_mistral(struct prompt *p, struct mistral_style style)
{
    enum sov_error rc = check_turns(p);
    if (rc != SOV_OK) return rc;
    size_t first = is_role(p, 0, "system"), host = style.system_last ? p->count - 1 : first;
    for (size_t i = first; i < p->count; i++) {
        if (is_role(p, i, "assistant")) {
            put(p, style.before_assistant);
            put_content(p, style.strip_assistant ? strip(content_of(p, i)) : content_of(p, i));
            put(p, "</s>");
            continue;
        }
        put(p, style.before_user);
        if (first == 1 && i == host) {
            put_content(p, content_of(p, 0));
            put(p, "\n\n");
        }
        put_content(p, content_of(p, i));
        put(p, style.after_user);
    }
    return SOV_OK;
}

static void render_mistral_v7(struct prompt *p, const char *space)
{
    for (size_t i = 0; i < p->count; i++) {
        bool system = is_role(p, i, "system"), user = is_role(p, i, "user");
        put(p, system ? "[SYSTEM_PROMPT]" : user ? "[INST]" : "");
        put(p, space);
        put_content(p, content_of(p, i));
        put(p, system ? "[/SYSTEM_PROMPT]" : user ? "[/INST]" : "</s>");
    }
}

/* <|role|> on a line, then the content and an end token. */
static void render_tagged(struct prompt *p, const char *end)
{
    for (size_t i = 0; i < p->count; i++) {
        put(p, "<|");
        put(p, p->messages[i].role);
        put(p, "|>\n");
        put_content(p, content_of(p, i));
        put(p, end);
    }
    if (p->add_generation_prompt) put(p, "<|assistant|>\n");
}

static void render_phi3(struct prompt *p)
{
    for (size_t i = 0; i < p->count; i++) {
        struct slice content = content_of(p, i);
        if (is_role(p, i, "system") && content.length == 0) continue;
        put(p, "<|");
        put(p, p->messages[i].role);
        put(p, "|>\n");
        put_content(p, content);
        put(p, "<|end|>\n");
    }
    put(p, p->add_generation_prompt ? "<|assistant|>\n" : "<|endoftext|>");
}

static enum sov_error render_gemma(struct prompt *p)
{
    enum sov_error rc = check_turns(p);
    if (rc != SOV_OK) return rc;
    size_t first = is_role(p, 0, "system");
    for (size_t i = first; i < p->count; i++) {
        put(p, is_role(p, i, "user") ? "<start_of_turn>user\n" : "<start_of_turn>model\n");
        if (i == first && first == 1) {
            put_content(p, content_of(p, 0));
            put(p, "\n\n");
        }
        put_content(p, strip(content_of(p, i)));
        put(p, "<end_of_turn>\n");
    }
    if (p->add_generation_prompt) put(p, "<start_of_turn>model\n");
    return SOV_OK;
}

#define DEEPSEEK_EOS "<｜end▁of▁sentence｜>"

static void render_deepseek(struct prompt *p)
{
    for (size_t i = 0; i < p->count; i++) {
        bool assistant = is_role(p, i, "assistant");
        put(p, assistant ? "Assistant: " : is_role(p, i, "user") ? "User: " : "");
        put_content(p, content_of(p, i));
        put(p, assistant ? DEEPSEEK_EOS : "\n\n");
    }
    if (p->add_generation_prompt) put(p, "Assistant:");
}

static void render_deepseek_coder(struct prompt *p)
{
    bool has_system = false;
    for (size_t i = 0; i < p->count; i++) has_system = has_system || is_role(p, i, "system");
    if (!has_system)
        put(p, "You are an AI programming assistant, utilizing the Deepseek Coder model, developed "
               "by Deepseek Company, "
               "and you only answer questions related to computer science. For politically "
               "sensitive questions, "
               "security and privacy issues, and other non-computer science questions, you will "
               "refuse to answer\n");
    for (size_t i = 0; i < p->count; i++) {
        bool system = is_role(p, i, "system"), user = is_role(p, i, "user");
        put(p, system ? "" : user ? "### Instruction:\n" : "### Response:\n");
        put_content(p, content_of(p, i));
        put(p, system ? "" : user ? "\n" : "\n<|EOT|>\n");
    }
    if (p->add_generation_prompt) put(p, "### Response:\n");
}

/* The last system message counts, and comes first. */
static void render_deepseek_v3(struct prompt *p, bool drop_reasoning, const char *generation)
{
    size_t system = p->count;
    for (size_t i = 0; i < p->count; i++) {
        if (is_role(p, i, "system")) system = i;
    }
    if (system != p->count) put_content(p, content_of(p, system));
    for (size_t i = 0; i < p->count; i++) {
        if (is_role(p, i, "system")) continue;
        bool user = is_role(p, i, "user"), found;
        struct slice content = content_of(p, i);
        put(p, user ? "<｜User｜>" : "<｜Assistant｜>");
        if (drop_reasoning && !user) content = after_last(content, "</think>", NULL, &found);
        put_content(p, content);
        if (!user) put(p, DEEPSEEK_EOS);
    }
    if (p->add_generation_prompt) put(p, generation);
}

static enum sov_error render(enum chat_template t, struct prompt *p)
{
    enum sov_error rc = check_roles(p);
    if (rc != SOV_OK) return rc;
    switch (t) {
    case CHAT_TEMPLATE_CHATML: render_chatml(p, NULL); break;
    case CHAT_TEMPLATE_QWEN15: render_chatml(p, "You are a helpful assistant"); break;
    case CHAT_TEMPLATE_QWEN2: render_chatml(p, "You are a helpful assistant."); break;
    case CHAT_TEMPLATE_QWEN25:
        render_chatml(p, "You are Qwen, created by Alibaba Cloud. You are a helpful assistant.");
        break;
    case CHAT_TEMPLATE_SMOLLM2:
        render_chatml(p, "You are a helpful AI assistant named SmolLM, trained by Hugging Face");
        break;
    case CHAT_TEMPLATE_QWEN3: render_qwen3(p, false); break;
    case CHAT_TEMPLATE_QWEN3_THINKING: render_qwen3(p, true); break;
    case CHAT_TEMPLATE_QWQ: render_qwq(p); break;
    case CHAT_TEMPLATE_LLAMA2: rc = render_llama2(p); break;
    case CHAT_TEMPLATE_LLAMA3: render_llama3(p, false); break;
    case CHAT_TEMPLATE_LLAMA31: render_llama3(p, true); break;
    case CHAT_TEMPLATE_MISTRAL:
        rc = render_mistral(p, (struct mistral_style){"[INST] ", " [/INST]", "", false, false});
        break;
    case CHAT_TEMPLATE_MISTRAL_V1:
        rc = render_mistral(p, (struct mistral_style){" [INST] ", " [/INST]", " ", false, false});
        break;
    case CHAT_TEMPLATE_MISTRAL_V3:
        rc = render_mistral(p, (struct mistral_style){"[INST] ", "[/INST]", " ", true, true});
        break;
    case CHAT_TEMPLATE_MISTRAL_V3_TEKKEN:
        rc = render_mistral(p, (struct mistral_style){"[INST]", "[/INST]", "", false, true});
        break;
    case CHAT_TEMPLATE_MISTRAL_V7: render_mistral_v7(p, " "); break;
    case CHAT_TEMPLATE_MISTRAL_V7_TEKKEN: render_mistral_v7(p, ""); break;
    case CHAT_TEMPLATE_ZEPHYR: render_tagged(p, "</s>\n"); break;
    case CHAT_TEMPLATE_ZEPHYR_ENDOFTEXT: render_tagged(p, "<|endoftext|>\n"); break;
    case CHAT_TEMPLATE_GEMMA: rc = render_gemma(p); break;
    case CHAT_TEMPLATE_PHI3: render_phi3(p); break;
    case CHAT_TEMPLATE_DEEPSEEK: render_deepseek(p); break;
    case CHAT_TEMPLATE_DEEPSEEK_CODER: render_deepseek_coder(p); break;
    case CHAT_TEMPLATE_DEEPSEEK_V3: render_deepseek_v3(p, false, "<｜Assistant｜>"); break;
    case CHAT_TEMPLATE_DEEPSEEK_R1: render_deepseek_v3(p, true, "<｜Assistant｜>"); break;
    case CHAT_TEMPLATE_DEEPSEEK_R1_THINK:
        render_deepseek_v3(p, true, "<｜Assistant｜><think>\n");
        break;
    default:
        return sov_fail(p->err, SOV_ERR_INVALID, "there is no chat template number %d", (int)t);
    }
    if (rc == SOV_OK && (strbuf_failed(p->out) || p->failed))
        rc = sov_fail(p->err, SOV_ERR_NOMEM, "out of memory for the prompt");
    return rc;
}

enum sov_error chat_template_render(enum chat_template t, const struct chat_message *messages,
                                    size_t count, bool add_generation_prompt, struct strbuf *out,
                                    struct sov_errbuf *err)
{
    struct prompt p = {.out = out,
                       .messages = messages,
                       .count = count,
                       .add_generation_prompt = add_generation_prompt,
                       .err = err};
    return render(t, &p);
}

enum sov_error chat_template_encode(enum chat_template t, const struct tokenizer *tok,
                                    const struct chat_message *messages, size_t count,
                                    bool add_generation_prompt, struct token_list *out,
                                    struct sov_errbuf *err)
{
    struct strbuf text = {0};
    struct prompt p = {.out = &text,
                       .messages = messages,
                       .count = count,
                       .add_generation_prompt = add_generation_prompt,
                       .want_spans = true,
                       .err = err};
    enum sov_error rc = render(t, &p);
    if (rc == SOV_OK)
        rc = tokenizer_encode_guarded(tok, strbuf_text(&text), text.length,
                                      TOKENIZER_ADD_SPECIAL | TOKENIZER_PARSE_SPECIAL, p.spans,
                                      p.span_count, out, err);
    sov_free(p.spans);
    strbuf_free(&text);
    return rc;
}

/* What follows the answer in the rendered text; the spans in it are moved to its beginning. */
static const char *prompt_after_answer(struct prompt *p)
{
    const char *text = strbuf_text(p->out), *mark = strstr(text, CHAT_TEMPLATE_MARK);
    if (mark == NULL) return NULL;
    size_t begin = (size_t)(mark - text) + strlen(CHAT_TEMPLATE_MARK), kept = 0;
    for (size_t i = 0; i < p->span_count; i++)
        if (p->spans[i].start >= begin)
            p->spans[kept++] =
                (struct tokenizer_span){p->spans[i].start - begin, p->spans[i].end - begin};
    p->span_count = kept;
    return text + begin;
}

enum sov_error chat_template_encode_next(enum chat_template t, const struct tokenizer *tok,
                                         const char *message, size_t length, struct token_list *out,
                                         struct sov_errbuf *err)
{
    /* The mark comes before the message, so a message that has it, too, does no harm. */
    const struct chat_message messages[] = {
        {"user", "?", 1},
        {"assistant", CHAT_TEMPLATE_MARK, strlen(CHAT_TEMPLATE_MARK)},
        {"user", message, length},
    };
    struct strbuf text = {0};
    struct prompt p = {.out = &text,
                       .messages = messages,
                       .count = sizeof messages / sizeof messages[0],
                       .add_generation_prompt = true,
                       .want_spans = true,
                       .err = err};
    enum sov_error rc = render(t, &p);
    const char *tail = rc == SOV_OK ? prompt_after_answer(&p) : NULL;
    if (rc == SOV_OK && tail == NULL)
        rc = sov_fail(err, SOV_ERR_INTERNAL, "the chat template %s leaves answers out",
                      chat_template_name(t));
    if (rc == SOV_OK)
        rc = tokenizer_encode_guarded(tok, tail, text.length - (size_t)(tail - text.data),
                                      TOKENIZER_PARSE_SPECIAL, p.spans, p.span_count, out, err);
    sov_free(p.spans);
    strbuf_free(&text);
    return rc;
}
