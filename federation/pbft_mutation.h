/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Faults planted in the core to see that the simulator finds them (docs/federation.md, "Simulator"). In production
 * builds PBFT_MUTATION(name) is the constant false, and nothing of it is compiled; build/simulate-mutants compiles
 * the same files with PBFT_MUTATIONS, and then one of them can be chosen by name.
 */
#ifndef SOV_FEDERATION_PBFT_MUTATION_H
#define SOV_FEDERATION_PBFT_MUTATION_H

#ifdef PBFT_MUTATIONS

/* name, what is wrong with it */
#define PBFT_MUTATION_LIST(X)       \
    X(quorum_2f, "a quorum is 2 f") \
    X(quorum_2f1, "a quorum is 2 f + 1, whatever n is")

enum pbft_mutation {
    PBFT_MUTATION_none,
#define X(name, what) PBFT_MUTATION_##name,
    PBFT_MUTATION_LIST(X)
#undef X
        PBFT_MUTATION_COUNT
};
extern enum pbft_mutation pbft_mutation_planted;
#define PBFT_MUTATION(name) (pbft_mutation_planted == PBFT_MUTATION_##name)

#else

#define PBFT_MUTATION(name) 0

#endif
#endif
