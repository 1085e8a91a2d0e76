/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Chat templates: the family is recognised from the Jinja text in tokenizer.chat_template and
 * rendered by our own code, equal to what the family's template renders. No template, or an unknown
 * one, is chatml with one warning from the caller.
 *
 * Families have come in several forms; the first eight values are the usual ones, those after are
 * forms that render differently. Deliberately not as the Jinja does:
 *  - where a family's template only refuses a system message (gemma, mistral), it is put before the
 *    first user's message with an empty line between, as the later templates of those families do;
 *  - templates that print today's date print the date their text falls back to (llama3.1: 26 Jul
 *    2024), and Mistral's dated default system prompt is not added, so that the same request is
 *    always the same prompt;
 *  - phi3 is the form of June 2024, which has system messages;
 *  - a system message after the first is refused where Jinja would drop it silently.
 */
#ifndef SOV_TOKENIZER_CHAT_TEMPLATE_H
#define SOV_TOKENIZER_CHAT_TEMPLATE_H

#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"
#include "base/strbuf.h"
#include "gguf/gguf.h"

enum chat_template {
    CHAT_TEMPLATE_CHATML,
    CHAT_TEMPLATE_LLAMA2,
    CHAT_TEMPLATE_LLAMA3,
    CHAT_TEMPLATE_MISTRAL,
    CHAT_TEMPLATE_ZEPHYR,
    CHAT_TEMPLATE_GEMMA,
    CHAT_TEMPLATE_PHI3,
    CHAT_TEMPLATE_DEEPSEEK,
    /* chatml with a system message of its own, or with reasoning taken out of earlier answers */
    CHAT_TEMPLATE_QWEN15,
    CHAT_TEMPLATE_QWEN2,
    CHAT_TEMPLATE_QWEN25,
    CHAT_TEMPLATE_SMOLLM2,
    CHAT_TEMPLATE_QWEN3,
    CHAT_TEMPLATE_QWEN3_THINKING,
    CHAT_TEMPLATE_QWQ,
    CHAT_TEMPLATE_LLAMA31, /* with its dates: 3.1, 3.2, 3.3 */
    /* mistral is the first one; these are the official numbered ones */
    CHAT_TEMPLATE_MISTRAL_V1,
    CHAT_TEMPLATE_MISTRAL_V3,
    CHAT_TEMPLATE_MISTRAL_V3_TEKKEN,
    CHAT_TEMPLATE_MISTRAL_V7,
    CHAT_TEMPLATE_MISTRAL_V7_TEKKEN,
    CHAT_TEMPLATE_ZEPHYR_ENDOFTEXT, /* where the end token is <|endoftext|> */
    /* deepseek is LLM and V2; then Coder, V3, R1, and R1 that is made to begin with <think> */
    CHAT_TEMPLATE_DEEPSEEK_CODER,
    CHAT_TEMPLATE_DEEPSEEK_V3,
    CHAT_TEMPLATE_DEEPSEEK_R1,
    CHAT_TEMPLATE_DEEPSEEK_R1_THINK,
    CHAT_TEMPLATES
};

struct chat_message {
    const char *role; /* "system", "user" or "assistant"; others are refused */
    const char *content;
    size_t content_length;
};

/* *known is false when the file has no template or one we do not recognise. */
enum chat_template chat_template_detect(const struct gguf *gguf, bool *known);
/* From the template's text alone (length bytes). */
enum chat_template chat_template_detect_text(const char *text, size_t length, bool *known);
const char *chat_template_name(enum chat_template t);
bool chat_template_by_name(const char *name, enum chat_template *out);

/*
 * Appends the prompt for the messages, with the opening of the assistant's turn when
 * add_generation_prompt. The text is to be encoded with TOKENIZER_ADD_SPECIAL |
 * TOKENIZER_PARSE_SPECIAL (so BOS is not part of it). Message contents are data: to keep
 * special-token text inside them from becoming special tokens, use chat_template_encode.
 * SOV_ERR_INVALID names the message index and what is wrong (unknown role, no messages, system not
 * first or user and assistant not in turns where the family insists on it).
 */
struct tokenizer;
struct token_list;
enum sov_error chat_template_render(enum chat_template t, const struct chat_message *messages,
                                    size_t count, bool add_generation_prompt, struct strbuf *out,
                                    struct sov_errbuf *err);
/*
 * Renders and encodes: special tokens are recognised in the template's own text only, never in
 * message contents.
 */
enum sov_error chat_template_encode(enum chat_template t, const struct tokenizer *tok,
                                    const struct chat_message *messages, size_t count,
                                    bool add_generation_prompt, struct token_list *out,
                                    struct sov_errbuf *err);
/*
 * The tokens of the next turn of a conversation that is there as token ids already, up to an
 * answer's last token (without the one that ended it): the end of that answer, the user's message,
 * and the opening of the next answer. Appended to those ids it makes a prompt whose KV is known up
 * to here. The message is data, as in chat_template_encode. What a template would do to earlier
 * turns because of a later one (taking reasoning out) is not done: they stay as they were read.
 */
enum sov_error chat_template_encode_next(enum chat_template t, const struct tokenizer *tok,
                                         const char *message, size_t length, struct token_list *out,
                                         struct sov_errbuf *err);

#endif
