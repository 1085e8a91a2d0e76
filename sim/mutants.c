/* SPDX-License-Identifier: Apache-2.0 */
#include "sim/mutants.h"

#include <stddef.h>
#include <string.h>

#include "federation/pbft_mutation.h"

#ifdef PBFT_MUTATIONS

enum pbft_mutation pbft_mutation_planted = PBFT_MUTATION_none;

static const struct {
    const char *name, *story;
} mutants[PBFT_MUTATION_COUNT] = {{"", "none"},
#define X(name, what) {#name, what},
                                  PBFT_MUTATION_LIST(X)
#undef X
};

int sim_mutant_count(void)
{
    return PBFT_MUTATION_COUNT - 1;
}

const char *sim_mutant_name(int index)
{
    return mutants[index].name;
}

const char *sim_mutant_story(int index)
{
    return mutants[index].story;
}

bool sim_mutant_plant(const char *name)
{
    for (int i = 0; i < PBFT_MUTATION_COUNT; i++) {
        if (strcmp(mutants[i].name, name) != 0) continue;
        pbft_mutation_planted = (enum pbft_mutation)i;
        return true;
    }
    return false;
}

#else

int sim_mutant_count(void)
{
    return 0;
}

const char *sim_mutant_name(int index)
{
    (void)index;
    return "";
}

const char *sim_mutant_story(int index)
{
    (void)index;
    return "";
}

bool sim_mutant_plant(const char *name)
{
    return name[0] == '\0';
}

#endif
