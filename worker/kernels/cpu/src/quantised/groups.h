// Quantisation in groups of neighbouring inputs of a row, which share a scale.
#pragma once

#include <cmath>
#include <cstdint>

#include "../simd/vec.h"

namespace {

// Number of inputs in a group. worker/kernels/cpu/quantised.py mirrors it.
constexpr int64_t GROUP = 32;
constexpr int32_t LARGEST = 127;  // magnitude of a multiple of a scale

typedef int8_t Int8Vec __attribute__((vector_size(LANES)));
typedef int16_t Int16Vec __attribute__((vector_size(2 * LANES)));

static inline void store_bytes(int8_t* p, IVec v) {
    Int8Vec bytes = __builtin_convertvector(v, Int8Vec);
    std::memcpy(p, &bytes, sizeof bytes);
}

static inline void store_bytes(int16_t* p, IVec v) {
    Int16Vec words = __builtin_convertvector(v, Int16Vec);
    std::memcpy(p, &words, sizeof words);
}

// Rounds to the nearest integer, and to even where two are equally near.
static inline IVec nearest(Vec v) {
#if defined(__AVX512F__)
    return (IVec)_mm512_cvtps_epi32((__m512)v);
#elif defined(__AVX2__)
    return (IVec)_mm256_cvtps_epi32((__m256)v);
#else
    IVec result;
    for (int64_t i = 0; i < LANES; i++) result[i] = (int32_t)std::nearbyint(v[i]);
    return result;
#endif
}

template <int S = LANES / 2>
static inline int32_t maximum(IVec v) {
    IVec other = __builtin_shuffle(v, LaneExchange<S>::SWAP);
    v = v > other ? v : other;
    if constexpr (S > 1) return maximum<S / 2>(v);
    return v[0];
}

template <int S = LANES / 2>
static inline int32_t sum(IVec v) {
    v += __builtin_shuffle(v, LaneExchange<S>::SWAP);
    if constexpr (S > 1) return sum<S / 2>(v);
    return v[0];
}

// A group of inputs as floats, padded with zeros.
struct Group {
    static constexpr int64_t VECS = GROUP / LANES;
    Vec vecs[VECS];

    template <class T>
    Group(const T* x, int64_t size) {
        for (int64_t i = 0; i < VECS; i++) {
            int64_t left = size - i * LANES;
            vecs[i] = left >= LANES ? load(x + i * LANES) : load_part(x + i * LANES, left > 0 ? left : 0);
        }
    }

    // Largest magnitude. It is compared by its bits, so NaN and infinity count as the largest.
    float largest() const {
        IVec bits{};
        for (Vec v : vecs) {
            IVec magnitude = (IVec)v & 0x7fffffff;
            bits = magnitude > bits ? magnitude : bits;
        }
        int32_t most = maximum(bits);
        float value;
        std::memcpy(&value, &most, sizeof value);
        return value;
    }

    // Writes the inputs as multiples of 1 / `factor`, and returns the sum of the multiples.
    template <class Int>
    int32_t quantise(float factor, Int* to) const {
        IVec total{};
        for (int64_t i = 0; i < VECS; i++) {
            IVec multiples = nearest(vecs[i] * factor);
            multiples = multiples > LARGEST ? LARGEST - IVec{} : multiples;
            multiples = multiples < -LARGEST ? -LARGEST - IVec{} : multiples;
            store_bytes(to + i * LANES, multiples);
            total += multiples;
        }
        return sum(total);
    }
};

// Factor by which a group is multiplied whose values are multiples of `scale`. A scale that is too
// small for a finite factor stands for a group of zeros.
static inline float factor_of(float scale) { return scale < 1e-37f ? 0.0f : 1.0f / scale; }

}  // namespace
