/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/isa.h"

#include <string.h>
#if defined(__x86_64__)
#include <cpuid.h>
#endif

static const char *const ISA_NAMES[KERN_ISAS] = {"scalar", "avx2", "avx512", "neon"};

#if defined(__x86_64__)
/* clang's __builtin_cpu_supports does not know "f16c" before version 16. */
static bool isa_has_f16c(void)
{
    unsigned eax, ebx, ecx, edx;
    return __get_cpuid(1, &eax, &ebx, &ecx, &edx) != 0 && (ecx & bit_F16C) != 0;
}
#endif

bool kern_isa_available(enum kern_isa isa)
{
    switch (isa) {
    case KERN_ISA_SCALAR: return true;
#if defined(__x86_64__)
    case KERN_ISA_AVX2:
        return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && isa_has_f16c() &&
               __builtin_cpu_supports("bmi2");
    case KERN_ISA_AVX512:
        return kern_isa_available(KERN_ISA_AVX2) && __builtin_cpu_supports("avx512f") &&
               __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
               __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vbmi") &&
               __builtin_cpu_supports("avx512vnni");
#elif defined(__aarch64__)
    case KERN_ISA_NEON: return true;
#endif
    default: return false;
    }
}

enum kern_isa kern_isa_best(void)
{
    enum kern_isa best = KERN_ISA_SCALAR;
    for (int isa = 0; isa < KERN_ISAS; isa++)
        if (kern_isa_available((enum kern_isa)isa)) best = (enum kern_isa)isa;
    return best;
}

const char *kern_isa_name(enum kern_isa isa)
{
    return isa < KERN_ISAS ? ISA_NAMES[isa] : "unknown";
}

enum sov_error kern_isa_parse(const char *name, enum kern_isa *out, struct sov_errbuf *err)
{
    if (strcmp(name, "auto") == 0) {
        *out = kern_isa_best();
        return SOV_OK;
    }
    char have[64] = "";
    bool known = strcmp(name, "amx") ==
                 0; /* a name of the command line whose kernels this version does not have */
    for (int isa = 0; isa < KERN_ISAS; isa++) {
        bool match = strcmp(name, ISA_NAMES[isa]) == 0;
        known = known || match;
        if (!kern_isa_available((enum kern_isa)isa)) continue;
        if (match) {
            *out = (enum kern_isa)isa;
            return SOV_OK;
        }
        if (have[0] != '\0') strcat(have, ", ");
        strcat(have, ISA_NAMES[isa]);
    }
    if (known)
        return sov_fail(err, SOV_ERR_UNSUPPORTED,
                        "isa '%s' is not available here; this CPU and build have: auto, %s", name,
                        have);
    return sov_fail(err, SOV_ERR_INVALID, "unknown isa '%s'; this CPU and build have: auto, %s",
                    name, have);
}
