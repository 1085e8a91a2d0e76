/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/projection_step.h"

static bool scalar_one(const struct projection *p, const float *in, float *out)
{
    return projection_step(p, in, out);
}

static size_t scalar_batch(const struct projection *p, const float *const *in, size_t count,
                           float *const *out)
{
    return projection_steps(p, in, 0, count, out);
}

const struct projection_kernels projection_kernels_scalar = {
    .one = scalar_one,
    .batch = scalar_batch,
};
