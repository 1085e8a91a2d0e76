/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/tuning.h"

#include <string.h>
#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include "kernels/tuning/sapphire_rapids.h"
#include "kernels/tuning/zen4.h"
#include "kernels/tuning/zen5.h"

/* The first with a table for an ISA stands in for CPUs that are not here. */
static const struct tuning_cpu *const TUNING_CPUS[] = {&TUNING_ZEN4, &TUNING_ZEN5,
                                                       &TUNING_SAPPHIRE_RAPIDS};
enum { TUNING_CPU_COUNT = sizeof TUNING_CPUS / sizeof TUNING_CPUS[0] };

static const struct tuning_isa *tuning_isa_of(const struct tuning_cpu *cpu, enum kern_isa isa)
{
    for (int i = 0; i < cpu->isa_count; i++)
        if (cpu->isas[i].isa == isa) return &cpu->isas[i];
    return NULL;
}

static bool tuning_cpu_matches(const struct tuning_cpu *cpu, const char *vendor, int family,
                               int model)
{
    if (strcmp(cpu->vendor, vendor) != 0 || cpu->family != family) return false;
    for (int i = 0; cpu->models[i].last != 0; i++)
        if (model >= cpu->models[i].first && model <= cpu->models[i].last) return true;
    return false;
}

const struct tuning_isa *tuning_for_cpu(enum kern_isa isa, const char *vendor, int family,
                                        int model)
{
    const struct tuning_isa *other = NULL;
    for (int i = 0; i < TUNING_CPU_COUNT; i++) {
        const struct tuning_isa *found = tuning_isa_of(TUNING_CPUS[i], isa);
        if (found != NULL && tuning_cpu_matches(TUNING_CPUS[i], vendor, family, model))
            return found;
        if (other == NULL) other = found;
    }
    return other;
}

bool tuning_is_measured_for_cpu(enum kern_isa isa, const char *vendor, int family, int model)
{
    for (int i = 0; i < TUNING_CPU_COUNT; i++)
        if (tuning_cpu_matches(TUNING_CPUS[i], vendor, family, model) &&
            tuning_isa_of(TUNING_CPUS[i], isa) != NULL)
            return !TUNING_CPUS[i]->derived;
    return false;
}

bool tuning_identify(char vendor[13], int *family, int *model)
{
    memset(vendor, 0, 13);
    *family = *model = 0;
#if defined(__x86_64__)
    unsigned eax, ebx, ecx, edx;
    if (__get_cpuid(0, &eax, &ebx, &ecx, &edx) == 0) return false;
    memcpy(vendor, &ebx, 4);
    memcpy(vendor + 4, &edx, 4);
    memcpy(vendor + 8, &ecx, 4);
    if (__get_cpuid(1, &eax, &ebx, &ecx, &edx) == 0) return false;
    /* The extended fields count from family 15 on, the extended model also in family 6. */
    *family = (int)(eax >> 8 & 15);
    *model = (int)(eax >> 4 & 15);
    if (*family == 6 || *family == 15) *model |= (int)(eax >> 16 & 15) << 4;
    if (*family == 15) *family += (int)(eax >> 20 & 255);
    return true;
#else
    return false;
#endif
}

const struct tuning_isa *tuning_for(enum kern_isa isa)
{
    char vendor[13];
    int family, model;
    (void)tuning_identify(vendor, &family, &model);
    return tuning_for_cpu(isa, vendor, family, model);
}

bool tuning_is_measured(enum kern_isa isa)
{
    char vendor[13];
    int family, model;
    return tuning_identify(vendor, &family, &model) &&
           tuning_is_measured_for_cpu(isa, vendor, family, model);
}

const struct tuning_cpu *tuning_cpu_known(void)
{
    char vendor[13];
    int family, model;
    if (!tuning_identify(vendor, &family, &model)) return NULL;
    for (int i = 0; i < TUNING_CPU_COUNT; i++)
        if (tuning_cpu_matches(TUNING_CPUS[i], vendor, family, model)) return TUNING_CPUS[i];
    return NULL;
}
