// A vector of floats in GCC's vector extension: one source for AVX2, AVX-512 and NEON.
#pragma once

#include <cstdint>
#include <cstring>
#include <utility>
#if defined(__AVX2__)
#include <immintrin.h>
#endif

// Vectors are as wide as the registers, as GCC keeps wider ones in memory.
#if defined(__AVX2__) && !defined(__AVX512F__)
constexpr int64_t LANES = 8;
constexpr int64_t REGISTERS = 16;
#else
constexpr int64_t LANES = 16;
constexpr int64_t REGISTERS = 32;
#endif

typedef float Vec __attribute__((vector_size(4 * LANES)));
typedef int32_t IVec __attribute__((vector_size(4 * LANES)));
typedef uint16_t HVec __attribute__((vector_size(2 * LANES)));

constexpr int64_t WORTH_THREADS = 1 << 14;  // elements from which on a loop runs on several threads

static inline int64_t round_up(int64_t size, int64_t to) { return (size + to - 1) / to * to; }

struct bf16 {
    uint16_t bits;
};

static inline Vec splat(float x) { return x - Vec{}; }  // adding 0 would turn -0 into 0

static inline Vec load(const float* p) {
    Vec v;
    std::memcpy(&v, p, sizeof v);
    return v;
}

static inline Vec load(const bf16* p) {
#if defined(__AVX512F__)  // GCC 12 compiles the generic version to six instructions
    __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)p));
    return (Vec)_mm512_slli_epi32(wide, 16);
#elif defined(__AVX2__)
    __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i*)p));
    return (Vec)_mm256_slli_epi32(wide, 16);
#else
    HVec half;
    std::memcpy(&half, p, sizeof half);
    return (Vec)(__builtin_convertvector(half, IVec) << 16);
#endif
}

static inline void store(float* p, Vec v) { std::memcpy(p, &v, sizeof v); }

static inline void store(bf16* p, Vec v) {
#if defined(__AVX512BF16__)
    __m256bh half = _mm512_cvtneps_pbh((__m512)v);
    std::memcpy(p, &half, sizeof half);
#else
    IVec bits = (IVec)v;
    IVec rounded = bits + 0x7fff + ((bits >> 16) & 1);
    IVec is_nan = v != v;
    rounded = is_nan ? (bits | 0x400000) : rounded;
    rounded = (rounded >> 16) & 0xffff;
#if defined(__AVX2__) && !defined(__AVX512F__)
    __m256i wide = (__m256i)rounded;
    __m128i half = _mm_packus_epi32(_mm256_castsi256_si128(wide), _mm256_extracti128_si256(wide, 1));
#else
    HVec half = __builtin_convertvector(rounded, HVec);
#endif
    std::memcpy(p, &half, sizeof half);
#endif
}

static inline float to_float(float x) { return x; }

static inline float to_float(bf16 x) {
    uint32_t bits = (uint32_t)x.bits << 16;
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

static inline void from_float(float* p, float x) { *p = x; }

static inline void from_float(bf16* p, float x) {
    bf16 lanes[LANES];
    store(lanes, splat(x));
    *p = lanes[0];
}

// `x` rounded to the dtype of the second argument, which is used for overloading only.
static inline float rounded(float x, const float*) { return x; }

static inline float rounded(float x, const bf16*) {
    bf16 half;
    from_float(&half, x);
    return to_float(half);
}

// Loads the first n lanes; the others are 0.
template <class T>
static inline Vec load_part(const T* p, int64_t n) {
    float lanes[LANES] = {};
    for (int64_t i = 0; i < n; i++) lanes[i] = to_float(p[i]);
    return load(lanes);
}

// Stores the first n lanes.
template <class T>
static inline void store_part(T* p, Vec v, int64_t n) {
    T lanes[LANES];
    store(lanes, v);
    std::memcpy(p, lanes, n * sizeof(T));
}

// sum + a * b, rounded once. For the plain expression GCC rounds once or twice, depending on the loop
// around it, so a sum's bits would depend on the number of sums computed at once.
static inline Vec multiply_add(Vec sum, Vec a, Vec b) {
#if defined(__AVX512F__)
    return (Vec)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)sum);
#elif defined(__AVX2__) && defined(__FMA__)
    return (Vec)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)sum);
#else
    return sum + a * b;
#endif
}

static inline float multiply_add(float sum, float a, float b) {
#if defined(__FP_FAST_FMAF)
    return __builtin_fmaf(a, b, sum);
#else
    return sum + a * b;
#endif
}

static inline Vec larger(Vec a, Vec b) { return a > b ? a : b; }

// Shuffle indices that exchange lanes of two vectors at distance S.
template <int S>
struct LaneExchange {
    static constexpr int low(int lane) { return lane & S ? (int)LANES + lane - S : lane; }
    static constexpr int high(int lane) { return lane & S ? (int)LANES + lane : lane + S; }
    static constexpr int kept(int lane) { return lane & S ? (int)LANES + lane : lane; }
    static constexpr int other(int lane) { return lane & S ? (int)LANES + lane - S : lane + S; }

    template <int... I>
    static constexpr IVec lows(std::integer_sequence<int, I...>) {
        return IVec{low(I)...};
    }

    template <int... I>
    static constexpr IVec highs(std::integer_sequence<int, I...>) {
        return IVec{high(I)...};
    }

    template <int... I>
    static constexpr IVec kepts(std::integer_sequence<int, I...>) {
        return IVec{kept(I)...};
    }

    template <int... I>
    static constexpr IVec others(std::integer_sequence<int, I...>) {
        return IVec{other(I)...};
    }

    template <int... I>
    static constexpr IVec swaps(std::integer_sequence<int, I...>) {
        return IVec{(I ^ S)...};
    }

    using Lanes = std::make_integer_sequence<int, (int)LANES>;
    static constexpr IVec LOW = lows(Lanes{}), HIGH = highs(Lanes{}), SWAP = swaps(Lanes{});
    static constexpr IVec KEPT = kepts(Lanes{}), OTHER = others(Lanes{});
};

// Sum of all lanes; each step adds the lanes at distance S.
template <int S = LANES / 2>
static inline float sum(Vec v) {
    v += __builtin_shuffle(v, LaneExchange<S>::SWAP);
    if constexpr (S > 1) return sum<S / 2>(v);
    return v[0];
}

// Maximum of all lanes.
template <int S = LANES / 2>
static inline float maximum(Vec v) {
    v = larger(v, __builtin_shuffle(v, LaneExchange<S>::SWAP));
    if constexpr (S > 1) return maximum<S / 2>(v);
    return v[0];
}

// e^x for x <= 0 with a relative error of 1e-7; 0 for x < -87. After expf of Cephes (Moshier): 2^n
// times a polynomial.
static inline Vec exp_negative(Vec x) {
#if defined(__AVX512F__)  // instructions for powers of two halve the time
    __mmask16 is_seen = _mm512_cmp_ps_mask((__m512)x, _mm512_set1_ps(-87.0f), _CMP_NLT_UQ);
    Vec n = (Vec)_mm512_roundscale_ps((__m512)(x * 1.44269504088896341f), _MM_FROUND_TO_NEAREST_INT);
#else
    IVec is_zero = x < -87.0f;
    x = is_zero ? splat(-87.0f) : x;
    IVec power = __builtin_convertvector(x * 1.44269504088896341f - 0.5f, IVec);
    Vec n = __builtin_convertvector(power, Vec);
#endif
    x -= n * 0.693359375f;
    x += n * 2.12194440e-4f;
    Vec p = splat(1.9875691500e-4f);
    p = p * x + 1.3981999507e-3f;
    p = p * x + 8.3334519073e-3f;
    p = p * x + 4.1665795894e-2f;
    p = p * x + 1.6666665459e-1f;
    p = p * x + 5.0000001201e-1f;
    p = p * x + 1.0f;
    p = p * x + 1.0f;
#if defined(__AVX512F__)
    return (Vec)_mm512_maskz_scalef_ps(is_seen, (__m512)p, (__m512)n);
#else
    return is_zero ? Vec{} : p * (Vec)((power + 127) << 23);
#endif
}

// One step of a dot product, as wide as the CPU multiplies the dtype. Sums are passed by value, as GCC
// keeps references in memory.
template <class T>
struct Dot {
    using V = Vec;
    static constexpr int64_t WIDTH = LANES;
    static V get(const T* p) { return load(p); }
    static V get_part(const T* p, int64_t n) { return load_part(p, n); }
    static Vec add(Vec sum, V a, V b) { return multiply_add(sum, a, b); }
};

#if defined(__AVX512BF16__)
template <>
struct Dot<bf16> {
    using V = __m512bh;
    static constexpr int64_t WIDTH = 32;
    static V get(const bf16* p) {
        V v;
        std::memcpy(&v, p, sizeof v);
        return v;
    }
    static V get_part(const bf16* p, int64_t n) {
        return (V)_mm512_maskz_loadu_epi16((1u << n) - 1, p);
    }
    // Loads WIDTH elements of a row of `size` elements from `first` on, padded with zeros.
    static V get_of(const bf16* row, int64_t first, int64_t size) {
        int64_t left = size - first;
        return left < WIDTH ? get_part(row + first, left) : get(row + first);
    }
    // Broadcasts a pair of neighbouring elements to all lanes.
    static V get_pair(const bf16* p) {
        int32_t bits;
        std::memcpy(&bits, p, sizeof bits);
        return (V)_mm512_set1_epi32(bits);
    }
    static Vec add(Vec sum, V a, V b) { return (Vec)_mm512_dpbf16_ps((__m512)sum, a, b); }
};
#endif

// Adds each lane and the lane at distance S: lanes of a where (lane & S) == 0, of b elsewhere.
template <int S>
static inline Vec fold(Vec a, Vec b) {
    return __builtin_shuffle(a, b, LaneExchange<S>::KEPT) + __builtin_shuffle(a, b, LaneExchange<S>::OTHER);
}

template <int S>
static inline void sums_step(Vec v[LANES]) {
    if constexpr (S > 0) {
#pragma GCC unroll 8
        for (int i = 0; i < S; i++) v[i] = fold<S>(v[i], v[i + S]);
        sums_step<S / 2>(v);
    }
}

// Returns a vector whose lane i is the sum of the lanes of v[i]. Overwrites v.
static inline Vec sums(Vec v[LANES]) {
    sums_step<LANES / 2>(v);
    return v[0];
}

template <int S>
static inline void transpose_step(Vec v[LANES]) {
    if constexpr (S < LANES) {
#pragma GCC unroll 16
        for (int i = 0; i < LANES; i++) {
            if (i & S) continue;
            Vec a = v[i], b = v[i | S];
            v[i] = __builtin_shuffle(a, b, LaneExchange<S>::LOW);
            v[i | S] = __builtin_shuffle(a, b, LaneExchange<S>::HIGH);
        }
        transpose_step<2 * S>(v);
    }
}

// Transposes in place: lane a of v[b] and lane b of v[a] are exchanged.
static inline void transpose(Vec v[LANES]) { transpose_step<1>(v); }
