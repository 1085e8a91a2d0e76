/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The messages of a chat and how they fit the model's context: when they no longer do, the oldest
 * exchange is left out of the prompt for good, and so on until it fits; the system message always
 * stays.
 */
#ifndef SOV_CLI_CONVERSATION_H
#define SOV_CLI_CONVERSATION_H

#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"
#include "tokenizer/chat_template.h"
#include "tokenizer/tokenizer.h"

struct conversation_turn {
    bool assistant;
    char *text;
    size_t length;
};

struct conversation {
    bool single;                     /* every question stands alone, without the system message */
    char *system;                    /* NULL: none */
    struct conversation_turn *turns; /* user and assistant by turns */
    size_t count;
    size_t capacity;
};

/* NULL or "" removes it. */
bool conversation_set_system(struct conversation *c, const char *text);
bool conversation_add(struct conversation *c, bool assistant, const char *text, size_t length);
/* Takes the last turn away. */
void conversation_drop_last(struct conversation *c);
/* Forgets the turns; the system message stays. */
void conversation_clear(struct conversation *c);
void conversation_free(struct conversation *c);

/*
 * The prompt for the next answer, leaving room for reserve tokens of it within context. *dropped
 * counts the turns that were forgotten to make it fit. SOV_ERR_LIMIT when the last message alone is
 * too long.
 */
enum sov_error conversation_encode(struct conversation *c, enum chat_template template,
                                   const struct tokenizer *tok, int context, int reserve,
                                   struct token_list *out, int *dropped, struct sov_errbuf *err);
/* {"model": ..., "messages": [...]}: what /v1/chat/completions takes. */
bool conversation_put_json(const struct conversation *c, const char *model, struct strbuf *out);

#endif
