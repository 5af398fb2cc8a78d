// Emulates AVX512_BF16, for CPUs that have AVX-512 without it. It is included before the native kernels,
// and follows the pseudocode of Intel's manual (Instruction Set Reference, VCVTNEPS2BF16 and VDPBF16PS),
// except that denormals are not flushed to zero.
#pragma once

#include <immintrin.h>

static inline __m256bh emulated_cvtneps(__m512 x) {
    __m512i bits = (__m512i)x, half = _mm512_set1_epi32(0x7fff), quiet = _mm512_set1_epi32(0x400000);
    __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    __m512i nearest = _mm512_add_epi32(bits, _mm512_add_epi32(half, odd));
    __mmask16 is_nan = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
    nearest = _mm512_mask_or_epi32(nearest, is_nan, bits, quiet);
    return (__m256bh)_mm512_cvtepi32_epi16(_mm512_srli_epi32(nearest, 16));
}

static inline __m512 emulated_dpbf16(__m512 sum, __m512bh a, __m512bh b) {
    __m512i of_a = (__m512i)a, of_b = (__m512i)b, high = _mm512_set1_epi32(0xffff0000);
    __m512 odd_a = (__m512)_mm512_and_si512(of_a, high), odd_b = (__m512)_mm512_and_si512(of_b, high);
    __m512 even_a = (__m512)_mm512_slli_epi32(of_a, 16), even_b = (__m512)_mm512_slli_epi32(of_b, 16);
    return _mm512_fmadd_ps(even_a, even_b, _mm512_fmadd_ps(odd_a, odd_b, sum));
}

#undef _mm512_cvtneps_pbh
#undef _mm512_dpbf16_ps
#define _mm512_cvtneps_pbh(x) emulated_cvtneps(x)
#define _mm512_dpbf16_ps(sum, a, b) emulated_dpbf16(sum, a, b)
