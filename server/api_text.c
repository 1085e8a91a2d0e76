/* SPDX-License-Identifier: Apache-2.0 */
/* /tokenize and /detokenize, in the shapes of llama.cpp's server. */
#include "base/mem.h"
#include "server/api_fields.h"

bool api_tokenize_parse(const char *body, size_t length, struct api_tokenize *out,
                        struct api_error *err)
{
    *out = (struct api_tokenize){.parse_special = true, .root = api_json_parse(body, length, err)};
    if (out->root == NULL) return false;
    const json_t *content = api_field(out->root, "content");
    bool ok = json_is_string(content);
    if (!ok)
        api_fail(err, "content", "'content' must be a string, not %s.",
                 content == NULL ? "missing or null" : json_type_name(content));
    ok = ok && api_read_bool(out->root, "add_special", &out->add_special, err) &&
         api_read_bool(out->root, "parse_special", &out->parse_special, err) &&
         api_read_bool(out->root, "with_pieces", &out->with_pieces, err);
    if (!ok) {
        api_tokenize_free(out);
        return false;
    }
    out->content = json_string_value(content);
    out->length = json_string_length(content);
    return true;
}

void api_tokenize_free(struct api_tokenize *request)
{
    json_decref(request->root);
    *request = (struct api_tokenize){0};
}

bool api_detokenize_parse(const char *body, size_t length, int vocab, struct api_detokenize *out,
                          struct api_error *err)
{
    *out = (struct api_detokenize){0};
    json_t *root = api_json_parse(body, length, err);
    if (root == NULL) return false;
    const json_t *tokens = api_field(root, "tokens");
    bool ok = json_is_array(tokens)
                  ? api_read_ids(tokens, vocab, "tokens", &out->ids, &out->count, err)
                  : api_fail(err, "tokens", "'tokens' must be an array of token ids, not %s.",
                             tokens == NULL ? "missing or null" : json_type_name(tokens));
    json_decref(root);
    return ok;
}

void api_detokenize_free(struct api_detokenize *request)
{
    sov_free(request->ids);
    *request = (struct api_detokenize){0};
}
