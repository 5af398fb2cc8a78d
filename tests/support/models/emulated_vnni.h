// Emulates AVX-VNNI's product of bytes, for CPUs without it. It is included before the native kernels,
// and follows the pseudocode of Intel's manual (Instruction Set Reference, VPDPBUSD).
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

static inline __m256i emulated_dpbusd(__m256i sums, __m256i a, __m256i b) {
    int32_t totals[8];
    uint8_t of_a[32];
    int8_t of_b[32];
    std::memcpy(totals, &sums, sizeof sums);
    std::memcpy(of_a, &a, sizeof a);
    std::memcpy(of_b, &b, sizeof b);
    for (int i = 0; i < 32; i++) totals[i / 4] += of_a[i] * of_b[i];
    std::memcpy(&sums, totals, sizeof sums);
    return sums;
}

#undef _mm256_dpbusd_avx_epi32
#define _mm256_dpbusd_avx_epi32(sums, a, b) emulated_dpbusd(sums, a, b)
#define __AVXVNNI__ 1
