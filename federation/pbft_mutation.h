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
#define PBFT_MUTATION_LIST(X)                                                                   \
    X(quorum_2f, "a quorum is 2 f")                                                             \
    X(quorum_2f1, "a quorum is 2 f + 1, whatever n is (the seed's rule: unsafe at n = 8)")      \
    X(votes_of_any_view, "votes count whatever view they are for")                              \
    X(sends_before_sync, "what depends on a record is sent before that is durable")             \
    X(watermark_off_by_one, "the window is one sequence too wide")                              \
    X(prepared_not_told, "a VIEW_CHANGE says nothing of what was prepared")                     \
    X(prepared_not_proven, "a VIEW_CHANGE's prepared certificates need no quorum")              \
    X(certified_with_f1, "f + 1 votes make a certificate")                                      \
    X(null_though_prepared, "a new view begins with null batches, whatever was prepared")       \
    X(new_view_of_few, "a NEW_VIEW may stand on less than a quorum")                            \
    X(no_join, "who wants a later view is neither joined nor counted")                          \
    X(no_back_off, "patience with primaries never grows")                                       \
    X(no_patience_for_requests, "patience runs only for proposals, not for requests that wait") \
    X(no_relay, "requests are sent once, and never relayed")                                    \
    X(out_of_order, "what is committed is executed before what comes before it")                \
    X(executes_again, "a number that was used may be used again")                               \
    X(numbers_lost, "a view change forgets which numbers were used")                            \
    X(second_pre_prepare, "a second proposal for the same place replaces the first")            \
    X(verdict_ignored, "PREPARE is sent without waiting for verdicts, and against them")        \
    X(stable_with_f1, "f + 1 CHECKPOINTs make a stable one")                                    \
    X(window_never_moves, "stable checkpoints are not adopted")                                 \
    X(forgets_accepted, "a restart forgets which proposals were accepted")                      \
    X(forgets_prepared, "a restart forgets what was prepared")                                  \
    X(forgets_view, "a restart forgets which view it was in or wanted")                         \
    X(forgets_numbers, "a restart forgets which request numbers were used")                     \
    X(votes_after_amnesia, "a replica that lost its records votes at once")                     \
    X(votes_in_left_view, "a replica that wants a view goes on voting in the one before")       \
    X(entries_not_proven, "fetched log entries need no certificate")                            \
    X(epoch_without_end, "proposals go on past the end of a configuration")                     \
    X(votes_in_forgotten_view, "who lost its records votes in a view that it may have left")    \
    X(nulls_for_ever, "null batches have no end while somebody says that it recovers")

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
