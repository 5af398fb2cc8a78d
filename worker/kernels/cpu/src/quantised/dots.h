// Dot products of bytes: unsigned weights times signed inputs, summed in int32. The sums of a group are
// exact, so they have the same bits with every instruction set.
#pragma once

#include <cstdint>
#include <cstring>

#include "../simd/vec.h"

namespace {

static inline IVec splat_bytes(const void* p) {
    int32_t word;
    std::memcpy(&word, p, sizeof word);
    return word - IVec{};
}

#if defined(__AVX512VNNI__) || (defined(__AVXVNNI__) && !defined(__AVX512F__)) || !defined(__AVX2__)

// VNNI multiplies four neighbouring bytes and adds the products to an int32.
struct Dots {
    typedef int8_t Input;
    static constexpr int64_t WORD = 4;  // neighbouring inputs that are multiplied at once

    // A word of each of LANES columns.
    typedef IVec Bytes;

    static IVec widened(Bytes bytes) { return bytes; }

    static IVec add(IVec sums, IVec words, IVec inputs) {
#if defined(__AVX512VNNI__)
        return (IVec)_mm512_dpbusd_epi32((__m512i)sums, (__m512i)words, (__m512i)inputs);
#elif defined(__AVXVNNI__) && !defined(__AVX512F__)
        return (IVec)_mm256_dpbusd_avx_epi32((__m256i)sums, (__m256i)words, (__m256i)inputs);
#else
        for (int64_t lane = 0; lane < LANES; lane++)
            for (int64_t byte = 0; byte < WORD; byte++)
                sums[lane] += (uint8_t)(words[lane] >> 8 * byte) * (int8_t)(inputs[lane] >> 8 * byte);
        return sums;
#endif
    }
};

#else

// Other CPUs with AVX2 multiply pairs of 16-bit integers. Multiplying bytes would saturate at 16 bits.
struct Dots {
    typedef int16_t Input;
    static constexpr int64_t WORD = 2;

    typedef int32_t Bytes __attribute__((vector_size(2 * LANES)));

    static IVec widened(Bytes bytes) {
#if defined(__AVX512BW__)
        return (IVec)_mm512_cvtepu8_epi16((__m256i)bytes);
#else
        return (IVec)_mm256_cvtepu8_epi16((__m128i)bytes);
#endif
    }

    static IVec add(IVec sums, IVec words, IVec inputs) {
#if defined(__AVX512BW__)
        return sums + (IVec)_mm512_madd_epi16((__m512i)words, (__m512i)inputs);
#else
        return sums + (IVec)_mm256_madd_epi16((__m256i)words, (__m256i)inputs);
#endif
    }
};

#endif

// Loads a word of each of LANES columns.
static inline IVec load_words(const uint8_t* p) {
    Dots::Bytes bytes;
    std::memcpy(&bytes, p, sizeof bytes);
    return Dots::widened(bytes);
}

}  // namespace
