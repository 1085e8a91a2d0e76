/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Loading: each matrix is packed into panels by all workers of the pool, slice by slice, and a
 * packed slice's pages of the file are given back, so that memory peaks at one copy of the weights
 * and one slice of the mapping. The token embedding is not packed: rows are read from the mapping
 * as tokens ask for them.
 */
#include <math.h>
#include <stdint.h>

#include "base/mem.h"
#include "gguf/quant.h"
#include "model/model_internal.h"

/* Bytes of packed panels between two releases of the file's pages. */
enum { SLICE_BYTES = 16 << 20 };

struct loader {
    const struct gguf *gguf;
    const struct model_load_options *options;
    uint64_t bytes_done;
    uint64_t bytes_total;
    struct sov_errbuf *err;
};

struct pack_job {
    struct matmul_weights *weights;
    const void *rows;
    int begin; /* panels */
    int end;
};

static void pack_panels(void *arg, int worker, int workers)
{
    const struct pack_job *job = arg;
    int begin, end;
    pool_share(job->end - job->begin, worker, workers, &begin, &end);
    matmul_weights_pack(job->weights, job->rows, job->begin + begin, job->begin + end);
}

static void report(struct loader *l, uint64_t bytes)
{
    l->bytes_done += bytes;
    if (l->options->progress != NULL && l->bytes_done < l->bytes_total)
        l->options->progress(l->options->user, (double)l->bytes_done / (double)l->bytes_total);
}

static enum sov_error out_of_memory(struct loader *l, const struct gguf_tensor *t, size_t bytes)
{
    return sov_fail(
        l->err, SOV_ERR_NOMEM,
        "out of memory for the weights: %zu bytes for tensor %s (%llu of %llu bytes were loaded)",
        bytes, t->name, (unsigned long long)l->bytes_done, (unsigned long long)l->bytes_total);
}

/* A vector as float32; *out stays NULL for an absent tensor. */
static enum sov_error load_vector(struct loader *l, const struct gguf_tensor *t, float **out)
{
    if (t == NULL) return SOV_OK;
    size_t n = (size_t)t->dims[0];
    *out = sov_alloc_aligned(n * sizeof(float));
    if (*out == NULL) return out_of_memory(l, t, n * sizeof(float));
    quant_dequantize((enum gguf_type)t->type, t->data, *out, n);
    report(l, n * sizeof(float));
    return SOV_OK;
}

/* Gives back the file's pages of the rows that panels [begin, end) were packed from. */
static void release_rows(struct loader *l, const struct gguf_tensor *t, int begin, int end)
{
    uint64_t row_bytes = t->bytes / t->dims[1], first = (uint64_t)begin * MATMUL_PANEL;
    uint64_t last =
        (uint64_t)end * MATMUL_PANEL < t->dims[1] ? (uint64_t)end * MATMUL_PANEL : t->dims[1];
    struct gguf_tensor part = *t;
    part.data = (const unsigned char *)t->data + first * row_bytes;
    part.bytes = (last - first) * row_bytes;
    gguf_release_pages(l->gguf, &part);
}

static void pack_matrix(struct loader *l, const struct gguf_tensor *t, struct matmul_weights *w)
{
    int slice = (int)(SLICE_BYTES / w->panel_bytes) + 1;
    for (int begin = 0; begin < w->panels; begin += slice) {
        int end = w->panels - begin > slice ? begin + slice : w->panels;
        struct pack_job job = {.weights = w, .rows = t->data, .begin = begin, .end = end};
        pool_run(l->options->pool, pack_panels, &job);
        release_rows(l, t, begin, end);
        report(l, (uint64_t)(end - begin) * w->panel_bytes);
    }
}

/*
 * The pages between two slices or two tensors; and what the system mapped beside those that were asked for, which may
 * have been given back before.
 */
static void release_file(const struct gguf *gguf)
{
    for (size_t i = 0; i < gguf_tensor_count(gguf); i++)
        gguf_release_pages(gguf, gguf_tensor_at(gguf, i));
}

static enum sov_error load_linear(struct loader *l, const struct gguf_tensor *t,
                                  const struct gguf_tensor *bias, struct model_linear *out)
{
    enum sov_error error = matmul_weights_init(&out->w, (enum gguf_type)t->type,
                                               (int64_t)t->dims[1], (int64_t)t->dims[0], l->err);
    if (error != SOV_OK) return error;
    size_t bytes = matmul_weights_bytes(&out->w);
    out->w.data = sov_alloc_untouched(bytes); /* the packers write all of it */
    if (out->w.data == NULL) return out_of_memory(l, t, bytes);
    pack_matrix(l, t, &out->w);
    return load_vector(l, bias, &out->bias);
}

static enum sov_error load_layer(struct loader *l, const struct model_layer_plan *plan,
                                 struct model_layer *layer)
{
    const struct gguf_tensor *const *t = plan->tensors;
    const struct {
        const struct gguf_tensor *tensor;
        float **out;
    } vectors[] = {
        {t[TENSOR_ATTN_NORM], &layer->attn_norm},
        {t[TENSOR_FFN_NORM], &layer->ffn_norm},
        {t[TENSOR_ATTN_Q_NORM], &layer->q_norm},
        {t[TENSOR_ATTN_K_NORM], &layer->k_norm},
    };
    const struct {
        const struct gguf_tensor *tensor, *bias;
        struct model_linear *out;
    } linears[] = {
        {t[TENSOR_ATTN_Q], t[TENSOR_ATTN_Q_BIAS], &layer->q},
        {t[TENSOR_ATTN_K], t[TENSOR_ATTN_K_BIAS], &layer->k},
        {t[TENSOR_ATTN_V], t[TENSOR_ATTN_V_BIAS], &layer->v},
        {t[TENSOR_ATTN_OUTPUT], t[TENSOR_ATTN_OUTPUT_BIAS], &layer->o},
        {t[TENSOR_FFN_GATE], t[TENSOR_FFN_GATE_BIAS], &layer->gate},
        {t[TENSOR_FFN_UP], t[TENSOR_FFN_UP_BIAS], &layer->up},
        {t[TENSOR_FFN_DOWN], t[TENSOR_FFN_DOWN_BIAS], &layer->down},
    };
    enum sov_error error = SOV_OK;
    for (size_t i = 0; error == SOV_OK && i < sizeof vectors / sizeof *vectors; i++)
        error = load_vector(l, vectors[i].tensor, vectors[i].out);
    for (size_t i = 0; error == SOV_OK && i < sizeof linears / sizeof *linears; i++)
        error = load_linear(l, linears[i].tensor, linears[i].bias, linears[i].out);
    return error;
}

static enum sov_error load_rope(struct loader *l, const struct model_plan *plan,
                                struct model *model)
{
    float *factors = NULL;
    model->rope_frequency = sov_calloc((size_t)model->config.rope_dims / 2, sizeof(double));
    if (model->rope_frequency == NULL)
        return sov_fail(l->err, SOV_ERR_NOMEM, "out of memory for the frequencies");
    enum sov_error error = load_vector(l, plan->rope_freqs, &factors);
    if (error == SOV_OK)
        error = model_rope_frequencies(&plan->config, &plan->rope, factors, model->rope_frequency,
                                       &model->rope_scale, l->err);
    sov_free_aligned(factors);
    model->rope_interleaved = plan->config.arch == MODEL_ARCH_LLAMA;
    return error;
}

static enum sov_error load_model(struct loader *l, const struct model_plan *plan,
                                 struct model *model)
{
    const struct gguf_type_info *info = gguf_type_info(plan->token_embd->type);
    model->config = plan->config;
    model->isa = l->options->isa;
    model->kv_type = l->options->kv_type;
    model->vec = vec_kernels_for(model->isa);
    model->attention_scale = 1.0f / sqrtf((float)plan->config.head_dim);
    model->token_embd = plan->token_embd;
    model->token_row_bytes = (size_t)plan->config.embedding / info->block_elems * info->block_bytes;
    model->layers = sov_calloc((size_t)plan->config.layers, sizeof *model->layers);
    if (model->layers == NULL)
        return sov_fail(l->err, SOV_ERR_NOMEM, "out of memory for the layers");
    enum sov_error error = load_rope(l, plan, model);
    for (int i = 0; error == SOV_OK && i < plan->config.layers; i++)
        error = load_layer(l, &plan->layers[i], &model->layers[i]);
    if (error == SOV_OK) error = load_vector(l, plan->output_norm, &model->output_norm);
    if (error == SOV_OK) error = load_linear(l, plan->output, plan->output_bias, &model->output);
    return error;
}

enum sov_error model_load(const struct gguf *gguf, const struct model_load_options *options,
                          struct model **out, struct sov_errbuf *err)
{
    *out = NULL;
    if (!kern_isa_available(options->isa))
        return sov_fail(err, SOV_ERR_UNSUPPORTED, "this CPU has no %s",
                        kern_isa_name(options->isa));
    struct model_plan plan;
    enum sov_error error = model_plan_read(gguf, &plan, err);
    if (error != SOV_OK) return error;
    struct loader l = {
        .gguf = gguf, .options = options, .bytes_total = plan.config.weight_bytes, .err = err};
    struct model *model = sov_calloc(1, sizeof *model);
    if (model == NULL)
        error = sov_fail(err, SOV_ERR_NOMEM, "out of memory for the model");
    else
        error = load_model(&l, &plan, model);
    release_file(gguf);
    model_plan_free(&plan);
    if (error != SOV_OK) {
        model_free(model);
        return error;
    }
    if (options->progress != NULL) options->progress(options->user, 1.0);
    *out = model;
    return SOV_OK;
}

static void free_linear(struct model_linear *linear)
{
    sov_free_aligned(linear->w.data);
    sov_free_aligned(linear->bias);
}

void model_free(struct model *model)
{
    if (model == NULL) return;
    for (int i = 0; model->layers != NULL && i < model->config.layers; i++) {
        struct model_layer *layer = &model->layers[i];
        struct model_linear *linears[MODEL_LAYER_LINEARS] = {
            &layer->q, &layer->k, &layer->v, &layer->o, &layer->gate, &layer->up, &layer->down};
        for (int j = 0; j < MODEL_LAYER_LINEARS; j++) free_linear(linears[j]);
        sov_free_aligned(layer->attn_norm);
        sov_free_aligned(layer->ffn_norm);
        sov_free_aligned(layer->q_norm);
        sov_free_aligned(layer->k_norm);
    }
    free_linear(&model->output);
    sov_free_aligned(model->output_norm);
    sov_free(model->layers);
    sov_free(model->rope_frequency);
    sov_free(model);
}

const struct model_config *model_config(const struct model *model)
{
    return &model->config;
}
