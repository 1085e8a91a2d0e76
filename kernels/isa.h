/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Instruction sets. All of them give the same bits (docs/arithmetic.md); they differ in speed only. The choice is made
 * once at start: the best the CPU has, or what --isa says. Each ISA is a folder of kernels/ compiled with its own
 * flags, and a row in the tables of matmul.c and vec.c.
 */
#ifndef SOV_KERNELS_ISA_H
#define SOV_KERNELS_ISA_H

#include <stdbool.h>

#include "base/error.h"

enum kern_isa {
    KERN_ISA_SCALAR,
    KERN_ISA_AVX2,
    KERN_ISA_AVX512,
    KERN_ISA_AMX,
    KERN_ISA_NEON,
    KERN_ISAS
};

/* Arithmetic version of docs/arithmetic.md: it changes when any result changes. */
enum { SOV_ARITHMETIC_VERSION = 1 };

/*
 * AVX2: AVX2, FMA, F16C. AVX512: F, BW, DQ, VL, VBMI, VNNI. AMX: the same, AMX-TILE and AMX-INT8, and the system's
 * permission to use tiles, which is asked for once per process, by the first call: make it before threads start.
 * NEON: every aarch64 CPU; SDOT where it is there.
 */
bool kern_isa_available(enum kern_isa isa);
enum kern_isa kern_isa_best(void);
const char *kern_isa_name(enum kern_isa isa);
/* "auto" or a name; an unknown or unavailable one is an error that lists what this CPU has. */
enum sov_error kern_isa_parse(const char *name, enum kern_isa *out, struct sov_errbuf *err);

#endif
