/* SPDX-License-Identifier: Apache-2.0 */
/* The planted faults by name: of build/simulate-mutants. build/simulate, which has the production core, has none. */
#ifndef SOV_SIM_MUTANTS_H
#define SOV_SIM_MUTANTS_H

#include <stdbool.h>

int sim_mutant_count(void);
/* 1 .. count. */
const char *sim_mutant_name(int index);
const char *sim_mutant_story(int index);
/* "" is none. False: no such fault. */
bool sim_mutant_plant(const char *name);

#endif
