/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/conversation.h"

#include <string.h>

#include "base/mem.h"

bool conversation_set_system(struct conversation *c, const char *text)
{
    char *copy = NULL;
    if (text != NULL && text[0] != '\0') {
        copy = sov_strdup(text);
        if (copy == NULL) return false;
    }
    sov_free(c->system);
    c->system = copy;
    return true;
}

bool conversation_add(struct conversation *c, bool assistant, const char *text, size_t length)
{
    if (c->count == c->capacity) {
        size_t capacity = c->capacity > 0 ? c->capacity * 2 : 16;
        struct conversation_turn *turns = sov_realloc(c->turns, capacity, sizeof *turns);
        if (turns == NULL) return false;
        c->turns = turns;
        c->capacity = capacity;
    }
    char *copy = sov_strndup(text, length);
    if (copy == NULL) return false;
    c->turns[c->count++] = (struct conversation_turn){assistant, copy, length};
    return true;
}

void conversation_drop_last(struct conversation *c)
{
    if (c->count > 0) sov_free(c->turns[--c->count].text);
}

static void conversation_drop_first(struct conversation *c, size_t turns)
{
    for (size_t i = 0; i < turns; i++) sov_free(c->turns[i].text);
    memmove(c->turns, c->turns + turns, (c->count - turns) * sizeof *c->turns);
    c->count -= turns;
}

void conversation_clear(struct conversation *c)
{
    while (c->count > 0) conversation_drop_last(c);
}

void conversation_free(struct conversation *c)
{
    conversation_clear(c);
    sov_free(c->turns);
    sov_free(c->system);
    memset(c, 0, sizeof *c);
}

static enum sov_error conversation_encode_all(const struct conversation *c,
                                              enum chat_template template,
                                              const struct tokenizer *tok, struct token_list *out,
                                              struct sov_errbuf *err)
{
    struct chat_message *messages = sov_alloc(c->count + 1, sizeof *messages);
    if (messages == NULL)
        return sov_fail(err, SOV_ERR_NOMEM, "no memory for %zu messages", c->count);
    size_t count = 0;
    size_t first = c->single ? c->count - 1 : 0;
    if (!c->single && c->system != NULL)
        messages[count++] = (struct chat_message){"system", c->system, strlen(c->system)};
    for (size_t i = first; i < c->count; i++) {
        const struct conversation_turn *turn = &c->turns[i];
        messages[count++] =
            (struct chat_message){turn->assistant ? "assistant" : "user", turn->text, turn->length};
    }
    out->count = 0;
    enum sov_error rc = chat_template_encode(template, tok, messages, count, true, out, err);
    sov_free(messages);
    return rc;
}

enum sov_error conversation_encode(struct conversation *c, enum chat_template template,
                                   const struct tokenizer *tok, int context, int reserve,
                                   struct token_list *out, int *dropped, struct sov_errbuf *err)
{
    *dropped = 0;
    for (;;) {
        enum sov_error rc = conversation_encode_all(c, template, tok, out, err);
        if (rc != SOV_OK) return rc;
        if (out->count + (size_t)reserve <= (size_t)context) return SOV_OK;
        if (c->count < 3 || c->single) {
            if (out->count < (size_t)context) return SOV_OK;
            return sov_fail(
                err, SOV_ERR_LIMIT,
                "this message makes a prompt of %zu tokens; the context holds %d (--ctx)",
                out->count, context);
        }
        conversation_drop_first(c, 2);
        *dropped += 2;
    }
}

bool conversation_put_json(const struct conversation *c, const char *model, struct strbuf *out)
{
    strbuf_puts(out, "{\"model\": ");
    strbuf_put_json_string(out, model, strlen(model));
    strbuf_puts(out, ", \"messages\": [");
    const char *separator = "\n  ";
    if (c->system != NULL) {
        strbuf_printf(out, "%s{\"role\": \"system\", \"content\": ", separator);
        strbuf_put_json_string(out, c->system, strlen(c->system));
        strbuf_putc(out, '}');
        separator = ",\n  ";
    }
    for (size_t i = 0; i < c->count; i++) {
        strbuf_printf(out, "%s{\"role\": \"%s\", \"content\": ", separator,
                      c->turns[i].assistant ? "assistant" : "user");
        strbuf_put_json_string(out, c->turns[i].text, c->turns[i].length);
        strbuf_putc(out, '}');
        separator = ",\n  ";
    }
    strbuf_puts(out, "\n]}\n");
    return !strbuf_failed(out);
}
