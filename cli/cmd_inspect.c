/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is in a GGUF file, and what Sovereign will do with it. Reads the metadata and checks every
 * tensor as loading would, but packs nothing, so that it is quick for a file of any size. The file
 * is not trusted: its texts reach the terminal with their control characters pictured.
 *
 * A file that can be read is a success even if Sovereign cannot run it: the answer is in the output
 * ("supported" in the JSON).
 */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/strbuf.h"
#include "base/utf8.h"
#include "cli/args.h"
#include "cli/cli.h"
#include "cli/guide.h"
#include "cli/runtime_load.h"
#include "cli/text.h"
#include "model/model.h"
#include "tokenizer/chat_template.h"
#include "tokenizer/tokenizer.h"

enum {
    TEXT_BYTES_SHOWN = 72,    /* of a string, without --json */
    ARRAY_ELEMENTS_SHOWN = 8, /* of an array, with and without --json */
    NAME_WIDTH_MAX = 48,      /* columns wider than this are not lined up */
    NAME_BYTES_SHOWN = 128,
    KV_ELEMENT_BYTES = 2,      /* keys and values are kept as IEEE halves (kernels/vec.h) */
    DIMS_TEXT_MAX = 4 * 21 + 4 /* four 64-bit numbers */
};

struct inspection {
    const char *path; /* NULL: the built-in guide */
    bool json;
    const struct gguf *gguf;
    bool model_ok, tokenizer_ok;
    struct model_config config;
    struct sov_errbuf model_why, tokenizer_why;
    char tokenizer[128]; /* its description */
    int32_t tokens;
    const char *chat_template;
    bool chat_template_known, chat_template_there;
};

static const struct {
    const char *name;
    size_t bytes; /* of one, where that is fixed */
} VALUE_TYPES[GGUF_VALUE_TYPES] = {
    [GGUF_U8] = {"u8", 1},       [GGUF_I8] = {"i8", 1},     [GGUF_U16] = {"u16", 2},
    [GGUF_I16] = {"i16", 2},     [GGUF_U32] = {"u32", 4},   [GGUF_I32] = {"i32", 4},
    [GGUF_F32] = {"f32", 4},     [GGUF_BOOL] = {"bool", 1}, [GGUF_U64] = {"u64", 8},
    [GGUF_I64] = {"i64", 8},     [GGUF_F64] = {"f64", 8},   [GGUF_STRING] = {"string", 0},
    [GGUF_ARRAY] = {"array", 0},
};

/* As a JSON string of at most `shown` bytes of the text, with an ellipsis where it is cut. */
static void put_text(struct strbuf *out, const struct gguf_str *text, uint64_t shown)
{
    if (text->length <= shown) {
        strbuf_put_json_string(out, text->data, (size_t)text->length);
        return;
    }
    size_t length = (size_t)shown - utf8_incomplete_tail(text->data, (size_t)shown);
    strbuf_put_json_string(out, text->data, length);
    strbuf_puts(out, "...");
}

static void put_float(struct strbuf *out, double value, int digits)
{
    if (isfinite(value)) {
        strbuf_printf(out, "%.*g", digits, value);
    } else {
        strbuf_puts(out, "null"); /* JSON has no such number */
    }
}

static void put_scalar(struct strbuf *out, const struct gguf_kv *kv, uint64_t shown)
{
    switch (kv->type) {
    case GGUF_STRING: put_text(out, &kv->value.str, shown); break;
    case GGUF_BOOL: strbuf_puts(out, kv->value.u != 0 ? "true" : "false"); break;
    case GGUF_F32: put_float(out, kv->value.f, 9); break;
    case GGUF_F64: put_float(out, kv->value.f, 17); break;
    case GGUF_I8:
    case GGUF_I16:
    case GGUF_I32:
    case GGUF_I64: strbuf_printf(out, "%" PRId64, kv->value.i); break;
    default: strbuf_printf(out, "%" PRIu64, kv->value.u); break;
    }
}

/* Element i of an array as a value of its own. */
static struct gguf_kv array_element(const struct gguf_array *array, uint64_t i)
{
    struct gguf_kv kv = {.type = array->type};
    if (array->type == GGUF_STRING) {
        kv.value.str = array->strings[i];
        return kv;
    }
    size_t size = VALUE_TYPES[array->type].bytes;
    const unsigned char *at = (const unsigned char *)array->data + size * i;
    float narrow;
    switch (array->type) {
    case GGUF_F32:
        memcpy(&narrow, at, sizeof narrow);
        kv.value.f = (double)narrow;
        break;
    case GGUF_I8:
    case GGUF_I16:
    case GGUF_I32:
        memcpy(&kv.value.u, at, size); /* little-endian: the low bytes; then the sign goes up */
        kv.value.i = (int64_t)(kv.value.u << (64 - 8 * size)) >> (64 - 8 * size);
        break;
    default: memcpy(&kv.value, at, size); break;
    }
    return kv;
}

/* The first elements, in brackets. */
static void put_array(struct strbuf *out, const struct gguf_array *array, uint64_t shown)
{
    strbuf_putc(out, '[');
    for (uint64_t i = 0; i < array->count && i < ARRAY_ELEMENTS_SHOWN; i++) {
        struct gguf_kv kv = array_element(array, i);
        if (i > 0) strbuf_putc(out, ',');
        put_scalar(out, &kv, shown);
    }
}

static void inspect_examine(struct inspection *in)
{
    struct tokenizer *tok = NULL;
    struct gguf_str text;
    in->model_ok = model_config_read(in->gguf, &in->config, &in->model_why) == SOV_OK;
    in->tokenizer_ok = tokenizer_create(in->gguf, &tok, &in->tokenizer_why) == SOV_OK;
    if (in->tokenizer_ok) {
        snprintf(in->tokenizer, sizeof in->tokenizer, "%s", tokenizer_description(tok));
        in->tokens = tokenizer_vocab_size(tok);
        tokenizer_free(tok);
    }
    in->chat_template_there =
        gguf_get_str(in->gguf, "tokenizer.chat_template", &text, NULL) == SOV_OK;
    in->chat_template =
        chat_template_name(chat_template_detect(in->gguf, &in->chat_template_known));
}

static bool inspect_supported(const struct inspection *in)
{
    return in->model_ok && in->tokenizer_ok;
}

static uint64_t kv_bytes_per_token(const struct model_config *c)
{
    return (uint64_t)c->layers * (uint64_t)c->kv_heads * (uint64_t)c->head_dim * 2 *
           KV_ELEMENT_BYTES;
}

/* What the tensors of one type come to. */
struct type_total {
    uint64_t tensors, elements, bytes;
};

static void sum_by_type(const struct gguf *gguf, struct type_total totals[GGUF_TYPE_LIMIT])
{
    memset(totals, 0, GGUF_TYPE_LIMIT * sizeof *totals);
    for (size_t i = 0; i < gguf_tensor_count(gguf); i++) {
        const struct gguf_tensor *t = gguf_tensor_at(gguf, i);
        struct type_total *total = &totals[t->type];
        total->tensors++;
        total->elements += t->dims[0] * t->dims[1] * t->dims[2] * t->dims[3];
        total->bytes += t->bytes;
    }
}

static void dims_text(const struct gguf_tensor *t, const char *between, char out[DIMS_TEXT_MAX])
{
    size_t used = 0;
    for (uint32_t i = 0; i < t->n_dims; i++) {
        used += (size_t)snprintf(out + used, DIMS_TEXT_MAX - used, "%s%" PRIu64,
                                 i > 0 ? between : "", t->dims[i]);
    }
}

/* A key or tensor name on a line of its own: cut, and without the newlines that could forge one. */
static void put_name(struct strbuf *out, const char *name, uint64_t length, int width)
{
    size_t shown = length < NAME_BYTES_SHOWN ? (size_t)length : NAME_BYTES_SHOWN;
    for (size_t i = 0; i < shown; i++) {
        strbuf_putc(out, name[i] == '\n' || name[i] == '\t' ? '?' : name[i]);
    }
    if (shown < length) strbuf_puts(out, "...");
    for (size_t i = shown; i < (size_t)width; i++) strbuf_putc(out, ' ');
}

/* "1100.0 million", or the number itself where it is small. */
static void put_count(struct strbuf *out, uint64_t count)
{
    if (count < 1000000) {
        strbuf_printf(out, "%" PRIu64, count);
    } else {
        strbuf_printf(out, "%.1f million", (double)count / 1e6);
    }
}

static void text_metadata(const struct inspection *in, struct strbuf *out)
{
    int width = 0;
    size_t count = gguf_kv_count(in->gguf);
    for (size_t i = 0; i < count; i++) {
        uint64_t length = gguf_kv_at(in->gguf, i)->key.length;
        if (length <= NAME_WIDTH_MAX && (int)length > width) width = (int)length;
    }
    strbuf_printf(out, "\nMetadata, %zu keys\n", count);
    for (size_t i = 0; i < count; i++) {
        const struct gguf_kv *kv = gguf_kv_at(in->gguf, i);
        const struct gguf_array *array = &kv->value.array;
        char type[48];
        snprintf(type, sizeof type, "%s", VALUE_TYPES[kv->type].name);
        if (kv->type == GGUF_ARRAY) {
            snprintf(type, sizeof type, "%s[%" PRIu64 "]", VALUE_TYPES[array->type].name,
                     array->count);
        }
        strbuf_puts(out, "  ");
        put_name(out, kv->key.data, kv->key.length, width);
        strbuf_printf(out, "  %-14s  ", type);
        if (kv->type != GGUF_ARRAY) {
            put_scalar(out, kv, TEXT_BYTES_SHOWN);
        } else {
            put_array(out, array, TEXT_BYTES_SHOWN / 4);
            strbuf_puts(out, array->count > ARRAY_ELEMENTS_SHOWN ? ",...]" : "]");
        }
        strbuf_putc(out, '\n');
    }
}

static void text_tensors(const struct inspection *in, struct strbuf *out)
{
    char dims[DIMS_TEXT_MAX], bytes[CLI_BYTES_TEXT_MAX];
    struct type_total totals[GGUF_TYPE_LIMIT];
    int width = 0;
    size_t count = gguf_tensor_count(in->gguf);
    for (size_t i = 0; i < count; i++) {
        size_t length = strlen(gguf_tensor_at(in->gguf, i)->name);
        if (length <= NAME_WIDTH_MAX && (int)length > width) width = (int)length;
    }
    strbuf_printf(out, "\nTensors, %zu\n", count);
    for (size_t i = 0; i < count; i++) {
        const struct gguf_tensor *t = gguf_tensor_at(in->gguf, i);
        dims_text(t, " x ", dims);
        strbuf_puts(out, "  ");
        put_name(out, t->name, strlen(t->name), width);
        strbuf_printf(out, "  %-5s  %-14s  %s\n", gguf_type_info(t->type)->name, dims,
                      cli_bytes_text((double)t->bytes, bytes));
    }
    sum_by_type(in->gguf, totals);
    if (count > 0) strbuf_puts(out, "\nBy type\n");
    for (uint32_t type = 0; type < GGUF_TYPE_LIMIT; type++) {
        const struct type_total *total = &totals[type];
        if (total->tensors == 0) continue;
        strbuf_printf(out, "  %-5s  %" PRIu64 " tensor%s, ", gguf_type_info(type)->name,
                      total->tensors, total->tensors == 1 ? "" : "s");
        put_count(out, total->elements);
        strbuf_printf(out, " elements, %s\n", cli_bytes_text((double)total->bytes, bytes));
    }
}

static void text_verdict(const struct inspection *in, struct strbuf *out)
{
    const struct model_config *c = &in->config;
    char weights[CLI_BYTES_TEXT_MAX], kv[CLI_BYTES_TEXT_MAX], all[CLI_BYTES_TEXT_MAX];
    strbuf_puts(out, "\nSovereign\n");
    if (in->model_ok) {
        cli_bytes_text((double)c->weight_bytes, weights);
        cli_bytes_text((double)kv_bytes_per_token(c), kv);
        cli_bytes_text((double)kv_bytes_per_token(c) * c->context_train, all);
        strbuf_printf(out,
                      "  model      %s: %d layers of width %d, %d heads of %d (%d for keys and "
                      "values), feed-forward %d; ",
                      c->arch_name, c->layers, c->embedding, c->heads, c->head_dim, c->kv_heads,
                      c->ffn);
        put_count(out, c->parameters);
        strbuf_puts(out, " parameters\n");
        strbuf_printf(out,
                      "  memory     %s for weights; %s for each token of context, %s for all %d\n",
                      weights, kv, all, c->context_train);
    } else {
        strbuf_printf(out, "  model      not supported: %s\n", in->model_why.message);
    }
    if (in->tokenizer_ok) {
        strbuf_printf(out, "  tokenizer  %s, %d tokens\n", in->tokenizer, in->tokens);
        const char *why = in->chat_template_known   ? ""
                          : in->chat_template_there ? " (the file's own template is not known)"
                                                    : " (the file has no template)";
        strbuf_printf(out, "  chat       %s%s\n", in->chat_template, why);
    } else {
        strbuf_printf(out, "  tokenizer  not supported: %s\n", in->tokenizer_why.message);
    }
    strbuf_printf(out, "  verdict    %s\n",
                  inspect_supported(in) ? "runs" : "Sovereign does not run this file");
}

static void json_metadata(const struct inspection *in, struct strbuf *out)
{
    strbuf_puts(out, ",\"metadata\":[");
    for (size_t i = 0; i < gguf_kv_count(in->gguf); i++) {
        const struct gguf_kv *kv = gguf_kv_at(in->gguf, i);
        strbuf_puts(out, i > 0 ? ",{\"key\":" : "{\"key\":");
        strbuf_put_json_string(out, kv->key.data, (size_t)kv->key.length);
        strbuf_printf(out, ",\"type\":\"%s\"", VALUE_TYPES[kv->type].name);
        if (kv->type == GGUF_ARRAY) {
            const struct gguf_array *array = &kv->value.array;
            strbuf_printf(out, ",\"element_type\":\"%s\",\"count\":%" PRIu64 ",\"first\":",
                          VALUE_TYPES[array->type].name, array->count);
            put_array(out, array, UINT64_MAX);
            strbuf_putc(out, ']');
        } else {
            strbuf_puts(out, ",\"value\":");
            put_scalar(out, kv, UINT64_MAX);
        }
        strbuf_putc(out, '}');
    }
    strbuf_putc(out, ']');
}

static void json_tensors(const struct inspection *in, struct strbuf *out)
{
    char dims[DIMS_TEXT_MAX];
    struct type_total totals[GGUF_TYPE_LIMIT];
    strbuf_puts(out, ",\"tensors\":[");
    for (size_t i = 0; i < gguf_tensor_count(in->gguf); i++) {
        const struct gguf_tensor *t = gguf_tensor_at(in->gguf, i);
        dims_text(t, ",", dims);
        strbuf_puts(out, i > 0 ? ",{\"name\":" : "{\"name\":");
        strbuf_put_json_string(out, t->name, strlen(t->name));
        strbuf_printf(
            out, ",\"type\":\"%s\",\"dims\":[%s],\"bytes\":%" PRIu64 ",\"offset\":%" PRIu64 "}",
            gguf_type_info(t->type)->name, dims, t->bytes, t->file_offset);
    }
    strbuf_puts(out, "],\"by_type\":{");
    sum_by_type(in->gguf, totals);
    const char *comma = "";
    for (uint32_t type = 0; type < GGUF_TYPE_LIMIT; type++) {
        const struct type_total *total = &totals[type];
        if (total->tensors == 0) continue;
        strbuf_printf(
            out,
            "%s\"%s\":{\"tensors\":%" PRIu64 ",\"elements\":%" PRIu64 ",\"bytes\":%" PRIu64 "}",
            comma, gguf_type_info(type)->name, total->tensors, total->elements, total->bytes);
        comma = ",";
    }
    strbuf_putc(out, '}');
}

static void json_verdict(const struct inspection *in, struct strbuf *out)
{
    const struct model_config *c = &in->config;
    strbuf_printf(out, ",\"supported\":%s", inspect_supported(in) ? "true" : "false");
    if (in->model_ok) {
        strbuf_puts(out, ",\"model\":{\"architecture\":");
        strbuf_put_json_string(out, c->arch_name, strlen(c->arch_name));
        strbuf_printf(
            out,
            ",\"layers\":%d,\"embedding\":%d,\"heads\":%d,\"kv_heads\":%d,\"head_dim\":%d,"
            "\"ffn\":%d,\"vocab\":%d,\"context\":%d,\"parameters\":%" PRIu64
            ",\"weight_bytes\":%" PRIu64 ",\"kv_bytes_per_token\":%" PRIu64 "}",
            c->layers, c->embedding, c->heads, c->kv_heads, c->head_dim, c->ffn, c->vocab,
            c->context_train, c->parameters, c->weight_bytes, kv_bytes_per_token(c));
    } else {
        strbuf_puts(out, ",\"model_error\":");
        strbuf_put_json_string(out, in->model_why.message, strlen(in->model_why.message));
    }
    if (in->tokenizer_ok) {
        strbuf_puts(out, ",\"tokenizer\":{\"description\":");
        strbuf_put_json_string(out, in->tokenizer, strlen(in->tokenizer));
        strbuf_printf(out, ",\"tokens\":%d},\"chat_template\":\"%s\",\"chat_template_known\":%s",
                      in->tokens, in->chat_template, in->chat_template_known ? "true" : "false");
    } else {
        strbuf_puts(out, ",\"tokenizer_error\":");
        strbuf_put_json_string(out, in->tokenizer_why.message, strlen(in->tokenizer_why.message));
    }
}

static int inspect_print(const struct inspection *in)
{
    struct strbuf out = {0};
    char bytes[CLI_BYTES_TEXT_MAX];
    const char *name = in->path != NULL ? in->path : "the built-in guide";
    uint64_t size = gguf_file_bytes(in->gguf);
    if (in->json) {
        strbuf_puts(&out, "{\"file\":");
        strbuf_put_json_string(&out, name, strlen(name));
        strbuf_printf(&out, ",\"bytes\":%" PRIu64 ",\"version\":%u,\"alignment\":%u", size,
                      gguf_version(in->gguf), gguf_alignment(in->gguf));
        json_metadata(in, &out);
        json_tensors(in, &out);
        json_verdict(in, &out);
        strbuf_puts(&out, "}\n");
    } else {
        strbuf_printf(&out, "%s: GGUF version %u, %s, alignment %u\n", name, gguf_version(in->gguf),
                      cli_bytes_text((double)size, bytes), gguf_alignment(in->gguf));
        text_metadata(in, &out);
        text_tensors(in, &out);
        text_verdict(in, &out);
    }
    int status = CLI_OK;
    if (strbuf_failed(&out)) {
        status = cli_error("%s: no memory to describe it", name);
    } else {
        /* Pictured in any case: no answer to a question about a file needs its control bytes. */
        cli_put_text(stdout, !in->json, strbuf_text(&out), out.length);
        status = cli_flush_output();
    }
    strbuf_free(&out);
    return status;
}

static enum sov_error inspect_open(const char *path, struct gguf **gguf, struct sov_errbuf *err)
{
    if (path != NULL) return gguf_open(path, gguf, err);
    if (guide_bytes() == 0) {
        return sov_fail(err, SOV_ERR_NOT_FOUND,
                        "this program was built without the built-in guide; give a GGUF file");
    }
    return gguf_open_memory(sov_guide_start, guide_bytes(), gguf, err);
}

int cmd_inspect(int argc, char **argv)
{
    struct inspection in = {0};
    struct args args;
    struct gguf *gguf = NULL;
    struct sov_errbuf err = {{0}};
    int status = CLI_OK;
    args_init(
        &args, "inspect", "[FILE] [--json]",
        "Shows what is in a GGUF file: metadata, tensors with their types and sizes, and what "
        "Sovereign will do with it. Without a file: the built-in guide.");
    args.operand = "FILE";
    args.operand_out = &in.path;
    args_switch(&args, "--json", &in.json,
                "Print one JSON object. Strings are whole; of arrays the first 8 elements.");
    args.examples = "  sovereign inspect tinyllama.gguf\n"
                    "  sovereign inspect --json tinyllama.gguf | jq .supported\n";
    if (!args_parse(&args, argc, argv, &status)) return status;
    if (inspect_open(in.path, &gguf, &err) != SOV_OK) return cli_error("%s", err.message);
    in.gguf = gguf;
    inspect_examine(&in);
    status = inspect_print(&in);
    gguf_close(gguf);
    return status;
}
