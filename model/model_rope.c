/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rotary frequencies and angles, in float64 by the arithmetic's own functions, rounded to float32
 * once at the end. The scalings are those that model files mean: linear divides positions; YaRN
 * (Peng et al., arXiv 2309.00071) blends, per dimension, between dividing and not, and lengthens
 * the vectors a little; frequency factors (Llama 3) divide each frequency by a number from the
 * file. Frequencies combine all of it, so that an angle is one product.
 */
#include "model/model_internal.h"

static const double TWO_PI = 0x1.921fb54442d18p+2;

/* Largest integer not above x and smallest not below it; |x| is far below 2^62. */
static double floor_of(double x)
{
    double n = (double)(int64_t)x;
    return n > x ? n - 1.0 : n;
}
static double ceiling_of(double x)
{
    return -floor_of(-x);
}

/* The dimension at which a pair turns `turns` times within the original context. */
static double yarn_dimension(const struct model_config *c, const struct model_rope *rope,
                             double turns)
{
    double ratio = (double)rope->original_context / (turns * TWO_PI);
    return (double)c->rope_dims * vec_ln(ratio) / (2.0 * vec_ln((double)c->rope_base));
}

/*
 * 1 where a pair turns fast enough to be left alone, 0 where its positions are divided, a ramp
 * between.
 */
static double yarn_blend(double low, double high, int pair)
{
    double width = high - low;
    double y = ((double)pair - low) / (width > 0.001 ? width : 0.001);
    y = y > 0.0 ? y : 0.0;
    return 1.0 - (y < 1.0 ? y : 1.0);
}

enum sov_error model_rope_frequencies(const struct model_config *c, const struct model_rope *rope,
                                      const float *factors, double *frequency, float *scale,
                                      struct sov_errbuf *err)
{
    double shrink = 1.0 / (double)rope->factor, low = 0.0, high = 0.0, length = 1.0;
    if (rope->scaling == ROPE_YARN) {
        double start = floor_of(yarn_dimension(c, rope, (double)rope->beta_fast));
        double end = ceiling_of(yarn_dimension(c, rope, (double)rope->beta_slow));
        low = start > 0.0 ? start : 0.0;
        high = end < (double)(c->rope_dims - 1) ? end : (double)(c->rope_dims - 1);
        if (rope->factor > 1.0f) length = 0.1 * vec_ln((double)rope->factor) + 1.0;
    }
    *scale = (float)(length * (double)rope->attention_factor);
    double ln_base = vec_ln((double)c->rope_base);
    for (int i = 0; i < c->rope_dims / 2; i++) {
        double f = vec_exp64(-((double)(2 * i) / (double)c->rope_dims) * ln_base);
        if (factors != NULL) f = f / (double)factors[i];
        double blend = rope->scaling == ROPE_YARN ? yarn_blend(low, high, i) : 0.0;
        f = f * (shrink * (1.0 - blend) + blend);
        if (!(f >= 0.0 && f <= MODEL_ROPE_FREQUENCY_MAX))
            return sov_fail(err, SOV_ERR_FORMAT,
                            "rotary frequency %d is %g, expected 0 to %d: check rope.scaling.* and "
                            "rope_freqs.weight",
                            i, f, MODEL_ROPE_FREQUENCY_MAX);
        frequency[i] = f;
    }
    return SOV_OK;
}

void model_rope_angles(const struct model *model, int position, float *cos_sin)
{
    for (int i = 0; i < model->config.rope_dims / 2; i++) {
        double sine, cosine;
        vec_sincos((double)position * model->rope_frequency[i], &sine, &cosine);
        cos_sin[2 * i] = (float)cosine * model->rope_scale;
        cos_sin[2 * i + 1] = (float)sine * model->rope_scale;
    }
}
