/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/isa.h"

#include <string.h>
#if defined(__x86_64__)
#include <cpuid.h>
#include <pthread.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

static const char *const ISA_NAMES[KERN_ISAS] = {
    [KERN_ISA_SCALAR] = "scalar", [KERN_ISA_AVX2] = "avx2", [KERN_ISA_AVX512] = "avx512",
    [KERN_ISA_AMX] = "amx",       [KERN_ISA_NEON] = "neon",
};

#if defined(__x86_64__)
/* clang's __builtin_cpu_supports does not know "f16c" before version 16. */
static bool isa_has_f16c(void)
{
    unsigned eax, ebx, ecx, edx;
    return __get_cpuid(1, &eax, &ebx, &ecx, &edx) != 0 && (ecx & bit_F16C) != 0;
}
#endif

#if defined(SOV_AMX_EMULATED)
static bool isa_amx_granted(void)
{
    return true;
}
#elif defined(SOV_AMX)
/* CPUID leaf 7, EDX; XCR0; and the arch_prctl of Linux 5.16 with the number of the tile data's state component. */
enum {
    ISA_BIT_OSXSAVE = 1 << 27,
    ISA_BIT_AMX_TILE = 1 << 24,
    ISA_BIT_AMX_INT8 = 1 << 25,
    ISA_XCR0_TILES = 3 << 17, /* configuration and data */
    ISA_LEAF_TILES = 0x1D,    /* subleaf 1 is palette 1 */
    ISA_PALETTE_TILES = 8,
    ISA_PALETTE_ROWS = 16,
    ISA_PALETTE_ROW_BYTES = 64,
    ISA_ARCH_GET_XCOMP_PERM = 0x1022,
    ISA_ARCH_REQ_XCOMP_PERM = 0x1023,
    ISA_XFEATURE_TILE_DATA = 18,
};

static bool amx_granted;
static pthread_once_t amx_once = PTHREAD_ONCE_INIT;

/* Tiles fault until the process has asked for them; threads share what it was granted. */
static void isa_amx_request(void)
{
    unsigned eax, ebx, ecx, edx, xcr0_low, xcr0_high;
    if (__get_cpuid(1, &eax, &ebx, &ecx, &edx) == 0 || (ecx & ISA_BIT_OSXSAVE) == 0) return;
    __asm__ volatile("xgetbv" : "=a"(xcr0_low), "=d"(xcr0_high) : "c"(0));
    if ((xcr0_low & ISA_XCR0_TILES) != ISA_XCR0_TILES) return;
    if (__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) == 0) return;
    if ((edx & ISA_BIT_AMX_TILE) == 0 || (edx & ISA_BIT_AMX_INT8) == 0) return;
    if (__get_cpuid_count(ISA_LEAF_TILES, 1, &eax, &ebx, &ecx, &edx) == 0) return;
    if (ebx >> 16 < ISA_PALETTE_TILES || (ebx & 0xFFFF) < ISA_PALETTE_ROW_BYTES ||
        (ecx & 0xFFFF) < ISA_PALETTE_ROWS)
        return;
    if (syscall(SYS_arch_prctl, ISA_ARCH_REQ_XCOMP_PERM, ISA_XFEATURE_TILE_DATA) != 0) return;
    unsigned long granted = 0;
    amx_granted = syscall(SYS_arch_prctl, ISA_ARCH_GET_XCOMP_PERM, &granted) == 0 &&
                  (granted >> ISA_XFEATURE_TILE_DATA & 1) != 0;
}

static bool isa_amx_granted(void)
{
    return pthread_once(&amx_once, isa_amx_request) == 0 && amx_granted;
}
#elif defined(__x86_64__)
/* The compiler that made this build does not know the instructions. */
static bool isa_amx_granted(void)
{
    return false;
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
    case KERN_ISA_AMX: return kern_isa_available(KERN_ISA_AVX512) && isa_amx_granted();
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
    bool known = false;
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
