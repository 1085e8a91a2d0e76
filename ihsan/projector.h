/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The projector: eight scores from 0 to 1 become an NTU state, by a linear map and the rules of
 * docs/ihsan.md. n = W x + b; belief is n1, multiplied by min / 0.5 where the smallest score is
 * below 0.5, and clipped to [0, 1]; entropy is 1 - n2 clipped to [0, 5]; potential is 2 n3 - 1
 * clipped to [-1, 1]. Everything is float32 in the order of docs/arithmetic.md, "Projection": the
 * same bits on every ISA, one at a time and in batches.
 *
 * Nothing is allocated: projectors, scores and results are the caller's. A projector is constant
 * after it was made and may be used by any number of threads.
 */
#ifndef SOV_IHSAN_PROJECTOR_H
#define SOV_IHSAN_PROJECTOR_H

#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"
#include "kernels/isa.h"
#include "kernels/projection.h"

enum ihsan_dimension {
    IHSAN_TRUTHFULNESS,
    IHSAN_TRUSTWORTHINESS,
    IHSAN_JUSTICE,
    IHSAN_EXCELLENCE,
    IHSAN_WISDOM,
    IHSAN_COMPASSION,
    IHSAN_PATIENCE,
    IHSAN_GRATITUDE,
    IHSAN_DIMENSIONS
};
_Static_assert((int)IHSAN_DIMENSIONS == (int)PROJECTION_INPUTS, "one input for each dimension");
/* "truthfulness", ... */
const char *ihsan_dimension_name(enum ihsan_dimension dimension);
/* -1 for a name that is none. */
int ihsan_dimension_find(const char *name);

struct ntu {
    float belief;    /* 0 to 1 */
    float entropy;   /* 0 to 5 */
    float potential; /* -1 to 1 */
};

/* Weights and biases beyond this are refused: sums stay finite. */
#define PROJECTOR_WEIGHT_MAX 1000.0f
enum { PROJECTOR_FILE_BYTES_MAX = 64 << 10 };

struct projector {
    struct projection weights;
    const struct projection_kernels *kernels;
};

/* The default weights. */
void projector_init(struct projector *p, enum kern_isa isa);
/* SOV_ERR_INVALID naming a weight that is not finite or too large. */
enum sov_error projector_init_weights(struct projector *p, enum kern_isa isa,
                                      const float weights[PROJECTION_OUTPUTS][IHSAN_DIMENSIONS],
                                      const float bias[PROJECTION_OUTPUTS], struct sov_errbuf *err);
/*
 * {"weights": [[8 numbers], [8 numbers], [8 numbers]], "bias": [3 numbers]}, rows in the order
 * belief, entropy, potential. SOV_ERR_FORMAT names what is missing, unknown or wrong.
 */
enum sov_error projector_parse(struct projector *p, enum kern_isa isa, const char *text,
                               size_t length, struct sov_errbuf *err);
/* The same from a file; the message begins with its path. */
enum sov_error projector_load(struct projector *p, enum kern_isa isa, const char *path,
                              struct sov_errbuf *err);

/* SOV_ERR_INVALID names the score that is not a number from 0 to 1; *out is then untouched. */
enum sov_error projector_project(const struct projector *p, const float scores[IHSAN_DIMENSIONS],
                                 struct ntu *out, struct sov_errbuf *err);
/*
 * count elements, as structure of arrays: scores[d][k] is dimension d of element k; belief, entropy
 * and potential of element k come to out[0][k], out[1][k] and out[2][k], which overlap no scores.
 * On SOV_ERR_INVALID, which names element and dimension, *bad is the element's number; the results
 * before it are written, those from it on are unspecified. Fastest when the outputs are aligned to
 * 64 bytes.
 */
enum sov_error projector_project_batch(const struct projector *p,
                                       const float *const scores[IHSAN_DIMENSIONS], size_t count,
                                       float *const out[PROJECTION_OUTPUTS], size_t *bad,
                                       struct sov_errbuf *err);

/*
 * For interpretation: the scores x with W x + b = n, where n is what the rules make of the state
 * read backwards (n1 = belief, n2 = 1 - entropy, n3 = (potential + 1) / 2). Of the many such x, the
 * one nearest to prior (in the Euclidean norm), or of least norm when prior is NULL:
 * x = prior + W' (W W')^-1 (n - b - W prior), in double, the 3 x 3 system by LDL' with diagonal
 * pivoting. The result may lie outside of [0, 1]: then no scores give that state. SOV_ERR_INVALID
 * for a state or prior that is not finite, and when the rows of W are linearly dependent, or so
 * nearly that the result would have fewer than about 3 digits.
 */
enum sov_error projector_invert(const struct projector *p, const struct ntu *state,
                                const double *prior, double scores[IHSAN_DIMENSIONS],
                                struct sov_errbuf *err);

#endif
