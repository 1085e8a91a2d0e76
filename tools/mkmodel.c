/* SPDX-License-Identifier: Apache-2.0 */
/*
 * mkmodel's command line, and the making: metadata, then one tensor after the other in pieces, so
 * that memory stays small whatever the size of the model.
 */
#include "tools/mkmodel/mkmodel.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "gguf/quant.h"

enum {
    DIM_MAX = 1 << 17,
    LAYERS_MAX = 1024,
    HEADS_MAX = 1024,
    FFN_MAX = 1 << 19,
    CONTEXT_MAX = 1 << 24,
    HEAD_DIM_MAX = 1024,
    CHUNK_ELEMENTS =
        1 << 16, /* a multiple of every block size; floats and blocks fit the second-level cache */
};

static const char usage[] =
    "Usage: mkmodel --arch llama|qwen2|qwen3 --dim D --layers L --heads H --ffn F --type TYPE "
    "[options] OUT.gguf\n"
    "Makes a model with random weights. The same options make the same file on every machine.\n"
    "\n"
    "  --arch A              llama, qwen2 (biases) or qwen3 (q and k norms)\n"
    "  --dim D               width of the residual stream\n"
    "  --layers L, --heads H, --ffn F\n"
    "  --kv-heads K          default: heads\n"
    "  --head-dim N          default: dim / heads\n"
    "  --type T              f32 f16 bf16 q8_0 q4_0 q4_1 q5_0 q5_1 q2_k q3_k q4_k q5_k q6_k: all "
    "matrices alike;\n"
    "                        q2_k_m q3_k_m q4_k_m q5_k_m: mixed as llama.cpp mixes Q2_K, Q3_K_M, "
    "Q4_K_M, Q5_K_M\n"
    "  --seed S              default 1\n"
    "  --vocab-from G.gguf   take the tokenizer of this file\n"
    "  --vocab-bytes N       without --vocab-from: a built-in byte-level vocabulary of N tokens "
    "(259 or more,\n"
    "                        default 512)\n"
    "  --ctx N               training context length, default 2048\n"
    "  --rope-base B         default 10000, qwen 1000000\n"
    "  --rope-scaling S      linear or yarn, with --rope-factor F (default 4) and --rope-orig-ctx "
    "N\n"
    "                        (default ctx / factor)\n"
    "  --rope-freqs          add the frequency factors of Llama 3.1\n"
    "  --rms-eps E           default 1e-5, qwen 1e-6\n"
    "  --tied                no output matrix: the embedding is used\n"
    "  --name TEXT           general.name\n";

enum option_key {
    OPT_ARCH = 1,
    OPT_DIM,
    OPT_LAYERS,
    OPT_HEADS,
    OPT_KV_HEADS,
    OPT_HEAD_DIM,
    OPT_FFN,
    OPT_TYPE,
    OPT_SEED,
    OPT_VOCAB_FROM,
    OPT_VOCAB_BYTES,
    OPT_CTX,
    OPT_ROPE_BASE,
    OPT_ROPE_SCALING,
    OPT_ROPE_FACTOR,
    OPT_ROPE_ORIG_CTX,
    OPT_ROPE_FREQS,
    OPT_RMS_EPS,
    OPT_TIED,
    OPT_NAME,
    OPT_HELP,
};

static const struct option long_options[] = {
    {"arch", required_argument, NULL, OPT_ARCH},
    {"dim", required_argument, NULL, OPT_DIM},
    {"layers", required_argument, NULL, OPT_LAYERS},
    {"heads", required_argument, NULL, OPT_HEADS},
    {"kv-heads", required_argument, NULL, OPT_KV_HEADS},
    {"head-dim", required_argument, NULL, OPT_HEAD_DIM},
    {"ffn", required_argument, NULL, OPT_FFN},
    {"type", required_argument, NULL, OPT_TYPE},
    {"seed", required_argument, NULL, OPT_SEED},
    {"vocab-from", required_argument, NULL, OPT_VOCAB_FROM},
    {"vocab-bytes", required_argument, NULL, OPT_VOCAB_BYTES},
    {"ctx", required_argument, NULL, OPT_CTX},
    {"rope-base", required_argument, NULL, OPT_ROPE_BASE},
    {"rope-scaling", required_argument, NULL, OPT_ROPE_SCALING},
    {"rope-factor", required_argument, NULL, OPT_ROPE_FACTOR},
    {"rope-orig-ctx", required_argument, NULL, OPT_ROPE_ORIG_CTX},
    {"rope-freqs", no_argument, NULL, OPT_ROPE_FREQS},
    {"rms-eps", required_argument, NULL, OPT_RMS_EPS},
    {"tied", no_argument, NULL, OPT_TIED},
    {"name", required_argument, NULL, OPT_NAME},
    {"help", no_argument, NULL, OPT_HELP},
    {NULL, 0, NULL, 0},
};

static bool parse_u64(const char *text, uint64_t low, uint64_t high, uint64_t *out)
{
    char *end;
    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    if (errno != 0 || end == text || *end != '\0' || text[0] == '-' || value < low || value > high)
        return false;
    *out = value;
    return true;
}

static bool parse_u32(const char *text, uint32_t low, uint32_t high, uint32_t *out)
{
    uint64_t value;
    if (!parse_u64(text, low, high, &value)) return false;
    *out = (uint32_t)value;
    return true;
}

static bool parse_f32(const char *text, float low, float high, float *out)
{
    char *end;
    float value = strtof(text, &end);
    if (end == text || *end != '\0' || !(value >= low && value <= high)) return false;
    *out = value;
    return true;
}

static bool parse_arch(const char *text, struct mk_options *o)
{
    static const char *const names[] = {
        [MK_LLAMA] = "llama", [MK_QWEN2] = "qwen2", [MK_QWEN3] = "qwen3"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (strcmp(names[i], text) != 0) continue;
        o->arch = (enum mk_arch)i;
        o->arch_name = names[i];
        return true;
    }
    return false;
}

static bool parse_option(int key, const char *text, struct mk_options *o)
{
    switch (key) {
    case OPT_ARCH: return parse_arch(text, o);
    case OPT_DIM: return parse_u32(text, 1, DIM_MAX, &o->dim);
    case OPT_LAYERS: return parse_u32(text, 1, LAYERS_MAX, &o->layers);
    case OPT_HEADS: return parse_u32(text, 1, HEADS_MAX, &o->heads);
    case OPT_KV_HEADS: return parse_u32(text, 1, HEADS_MAX, &o->kv_heads);
    case OPT_HEAD_DIM: return parse_u32(text, 2, HEAD_DIM_MAX, &o->head_dim);
    case OPT_FFN: return parse_u32(text, 1, FFN_MAX, &o->ffn);
    case OPT_TYPE: return mk_type_parse(text, o);
    case OPT_SEED: return parse_u64(text, 0, UINT64_MAX, &o->seed);
    case OPT_VOCAB_FROM: o->vocab_from = text; return true;
    case OPT_VOCAB_BYTES:
        return parse_u32(text, MK_VOCAB_BYTES_MIN, MK_VOCAB_BYTES_MAX, &o->vocab_bytes);
    case OPT_CTX: return parse_u32(text, 1, CONTEXT_MAX, &o->context);
    case OPT_ROPE_BASE: return parse_f32(text, 2, 1e12f, &o->rope_base);
    case OPT_ROPE_SCALING:
        o->rope_scaling = text;
        return strcmp(text, "linear") == 0 || strcmp(text, "yarn") == 0;
    case OPT_ROPE_FACTOR: return parse_f32(text, 1, 1e6f, &o->rope_factor);
    case OPT_ROPE_ORIG_CTX: return parse_u32(text, 1, CONTEXT_MAX, &o->rope_original_context);
    case OPT_ROPE_FREQS: o->rope_freqs = true; return true;
    case OPT_RMS_EPS: return parse_f32(text, 0, 1, &o->rms_eps);
    case OPT_TIED: o->tied = true; return true;
    default: o->name = text; return true;
    }
}

static bool complain(const char *format, const char *detail)
{
    fputs("mkmodel: ", stderr);
    fprintf(stderr, format, detail);
    fputs("; see mkmodel --help\n", stderr);
    return false;
}

static bool fill_defaults(struct mk_options *o)
{
    if (o->arch_name == NULL || o->type_name == NULL || o->dim == 0 || o->layers == 0 ||
        o->heads == 0 || o->ffn == 0) {
        return complain("%s", "--arch, --dim, --layers, --heads, --ffn and --type are needed");
    }
    if (o->kv_heads == 0) o->kv_heads = o->heads;
    if (o->heads % o->kv_heads != 0)
        return complain("%s", "--heads must be a multiple of --kv-heads");
    if (o->head_dim == 0) {
        if (o->dim % o->heads != 0)
            return complain("%s", "--dim must be a multiple of --heads, or give --head-dim");
        o->head_dim = o->dim / o->heads;
    }
    if (o->head_dim < 2 || o->head_dim % 2 != 0 || o->head_dim > HEAD_DIM_MAX) {
        return complain("%s", "the head dimension must be even, 2 to 1024");
    }
    if (o->rope_scaling == NULL && (o->rope_factor != 0 || o->rope_original_context != 0)) {
        return complain("%s", "--rope-factor and --rope-orig-ctx go with --rope-scaling");
    }
    bool qwen = o->arch != MK_LLAMA;
    if (o->rope_base == 0) o->rope_base = qwen ? 1e6f : 1e4f;
    if (o->rms_eps < 0) o->rms_eps = qwen ? 1e-6f : 1e-5f;
    if (o->rope_factor == 0) o->rope_factor = 4;
    if (o->rope_original_context == 0)
        o->rope_original_context = (uint32_t)((float)o->context / o->rope_factor);
    return true;
}

/* false: *status says how to leave. */
static bool parse_arguments(int argc, char **argv, struct mk_options *o, int *status)
{
    int key;
    *status = 2;
    while ((key = getopt_long(argc, argv, "", long_options, NULL)) != -1) {
        if (key == '?') return false;
        if (key == OPT_HELP) {
            *status = fputs(usage, stdout) < 0 || fflush(stdout) != 0;
            return false;
        }
        if (!parse_option(key, optarg, o))
            return complain("\"%s\" is not a value that its option takes", optarg);
    }
    if (argc - optind != 1) return complain("%s", "expected one output file");
    o->out = argv[optind];
    return fill_defaults(o);
}

static void put_u32(struct gguf_writer *writer, const char *arch, const char *key, uint32_t value)
{
    char full[96];
    snprintf(full, sizeof full, "%s.%s", arch, key);
    gguf_writer_kv_u32(writer, full, value);
}

static void put_f32(struct gguf_writer *writer, const char *arch, const char *key, float value)
{
    char full[96];
    snprintf(full, sizeof full, "%s.%s", arch, key);
    gguf_writer_kv_f32(writer, full, value);
}

/* Errors of the writer stick; the caller sees them at the close. */
static void write_metadata(struct gguf_writer *writer, const struct mk_options *o)
{
    const char *arch = o->arch_name;
    gguf_writer_kv_str(writer, "general.architecture", arch);
    gguf_writer_kv_str(writer, "general.name", o->name);
    gguf_writer_kv_u32(writer, "general.file_type", o->file_type);
    gguf_writer_kv_u32(writer, "general.quantization_version", 2);
    put_u32(writer, arch, "context_length", o->context);
    put_u32(writer, arch, "embedding_length", o->dim);
    put_u32(writer, arch, "block_count", o->layers);
    put_u32(writer, arch, "feed_forward_length", o->ffn);
    put_u32(writer, arch, "attention.head_count", o->heads);
    put_u32(writer, arch, "attention.head_count_kv", o->kv_heads);
    put_u32(writer, arch, "attention.key_length", o->head_dim);
    put_u32(writer, arch, "attention.value_length", o->head_dim);
    put_f32(writer, arch, "attention.layer_norm_rms_epsilon", o->rms_eps);
    put_u32(writer, arch, "rope.dimension_count", o->head_dim);
    put_f32(writer, arch, "rope.freq_base", o->rope_base);
    if (o->rope_scaling != NULL) {
        char full[96];
        snprintf(full, sizeof full, "%s.rope.scaling.type", arch);
        gguf_writer_kv_str(writer, full, o->rope_scaling);
        put_f32(writer, arch, "rope.scaling.factor", o->rope_factor);
        put_u32(writer, arch, "rope.scaling.original_context_length", o->rope_original_context);
    }
}

static enum sov_error write_vocab(struct gguf_writer *writer, const struct mk_options *o,
                                  uint64_t *tokens, struct sov_errbuf *err)
{
    if (o->vocab_from == NULL) {
        *tokens = o->vocab_bytes;
        return mk_vocab_make(writer, o->vocab_bytes, err);
    }
    struct gguf *from;
    enum sov_error code = gguf_open(o->vocab_from, &from, err);
    if (code != SOV_OK) return code;
    code = mk_vocab_copy(writer, from, tokens, err);
    gguf_close(from);
    return code;
}

/* false: the writer has failed, and says why when it is closed. */
static bool write_tensor(struct gguf_writer *writer, const struct mk_options *o,
                         const struct mk_tensor *tensor, float *values, unsigned char *blocks)
{
    const struct gguf_type_info *info = gguf_type_info(tensor->type);
    uint64_t elements = tensor->dims[0] * tensor->dims[1],
             key = mk_weights_key(o->seed, tensor->name);
    for (uint64_t first = 0; first < elements; first += CHUNK_ELEMENTS) {
        size_t n = elements - first < CHUNK_ELEMENTS ? (size_t)(elements - first) : CHUNK_ELEMENTS;
        if (tensor->rope_factors) {
            mk_rope_factors(o->rope_base, o->head_dim, values);
        } else {
            mk_weights_fill(key, first, n, tensor->mean, tensor->deviation, values);
        }
        quant_quantize(tensor->type, values, blocks, n);
        if (gguf_writer_data(writer, blocks, n / info->block_elems * info->block_bytes) != SOV_OK)
            return false;
    }
    return true;
}

static enum sov_error write_tensors(struct gguf_writer *writer, const struct mk_options *o,
                                    const struct mk_plan *plan, struct sov_errbuf *err)
{
    float *values = sov_alloc(CHUNK_ELEMENTS, sizeof *values);
    unsigned char *blocks = sov_alloc(CHUNK_ELEMENTS, sizeof(float)); /* no type is wider */
    enum sov_error code = SOV_OK;
    if (values == NULL || blocks == NULL) {
        code = sov_fail(err, SOV_ERR_NOMEM, "no memory for tensor data");
    } else {
        for (size_t i = 0; i < plan->count; i++) {
            const struct mk_tensor *tensor = &plan->tensors[i];
            gguf_writer_tensor(writer, tensor->name, tensor->type, tensor->n_dims, tensor->dims);
        }
        bool writing = gguf_writer_begin_data(writer) == SOV_OK;
        for (size_t i = 0; i < plan->count && writing; i++) {
            writing = write_tensor(writer, o, &plan->tensors[i], values, blocks);
        }
    }
    sov_free(blocks);
    sov_free(values);
    return code;
}

static enum sov_error make_model(const struct mk_options *o, struct sov_errbuf *err)
{
    struct gguf_writer *writer;
    struct mk_plan plan = {0};
    uint64_t vocab = 0;
    enum sov_error code = gguf_writer_create(o->out, &writer, err);
    if (code != SOV_OK) return code;
    write_metadata(writer, o);
    code = write_vocab(writer, o, &vocab, err);
    if (code == SOV_OK && o->arch == MK_LLAMA)
        put_u32(writer, o->arch_name, "vocab_size", (uint32_t)vocab);
    if (code == SOV_OK) code = mk_plan_make(o, vocab, &plan, err);
    if (code == SOV_OK) code = write_tensors(writer, o, &plan, err);
    mk_plan_free(&plan);
    if (code != SOV_OK) {
        gguf_writer_discard(writer);
        return code;
    }
    return gguf_writer_close(writer, err);
}

int main(int argc, char **argv)
{
    struct mk_options options = {
        .seed = 1, .context = 2048, .rms_eps = -1, .vocab_bytes = 512, .name = "random"};
    struct sov_errbuf err = {.message = ""};
    int status;
    if (!parse_arguments(argc, argv, &options, &status)) return status;
    if (make_model(&options, &err) != SOV_OK) {
        fprintf(stderr, "mkmodel: %s\n", err.message);
        return 1;
    }
    return 0;
}
