// The packed product on vectors.
#pragma once

#include <vector>

#include "groups.h"
#include "linear_edges.h"
#include "vec.h"

namespace {

// How a word of inputs is multiplied with those of LANES columns.
template <class T>
struct Words;

template <>
struct Words<float> {
    typedef float Input;
    static constexpr int64_t SIZE = 1;  // elements
    static constexpr int STEPS = 1;     // to multiply by a word

    template <int>
    static Vec columns_of(IVec words) {
        return (Vec)words;
    }

    template <int>
    static Vec factor_of(const Input* x) {
        return splat(*x);
    }

    static Vec add(Vec sums, Vec columns, Vec factor) { return multiply_add(sums, columns, factor); }

    static const Input* inputs(const float* x, int64_t&, int64_t, int64_t) { return x; }
};

// CPUs that multiply bfloat16 (AVX512_BF16) take both neighbours of a pair at once. Others widen them one
// after the other, which costs a shift or a mask: a bfloat16 is the upper half of a float.
template <>
struct Words<bf16> {
    static constexpr int64_t SIZE = 2;

#if defined(__AVX512BF16__)
    typedef bf16 Input;
    static constexpr int STEPS = 1;

    template <int>
    static IVec columns_of(IVec pairs) {
        return pairs;
    }

    template <int>
    static IVec factor_of(const Input* x) {
        return (IVec)Dot<bf16>::get_pair(x);
    }

    static Vec add(Vec sums, IVec columns, IVec factor) {
        return Dot<bf16>::add(sums, (__m512bh)columns, (__m512bh)factor);
    }

    static const Input* inputs(const bf16* x, int64_t&, int64_t, int64_t) { return x; }
#else
    typedef float Input;
    static constexpr int STEPS = 2;

    template <int STEP>
    static Vec columns_of(IVec pairs) {
        return (Vec)(STEP ? pairs & (int32_t)0xffff0000 : pairs << 16);
    }

    template <int STEP>
    static Vec factor_of(const Input* x) {
        return splat(x[STEP]);
    }

    static Vec add(Vec sums, Vec columns, Vec factor) { return multiply_add(sums, columns, factor); }

    // The rows widened: each is read once for every block of columns.
    static const Input* inputs(const bf16* x, int64_t& stride, int64_t rows, int64_t k) {
        static thread_local std::vector<Input> buffer;
        if ((int64_t)buffer.size() < rows * k) buffer.resize(rows * k);
        Input* wide = buffer.data();
#pragma omp parallel for if (rows * k > WORTH_THREADS)
        for (int64_t row = 0; row < rows; row++) {
            const bf16* from = x + row * stride;
            int64_t i = 0;
            for (; i + LANES <= k; i += LANES) store(wide + row * k + i, load(from + i));
            for (; i < k; i++) wide[row * k + i] = to_float(from[i]);
        }
        stride = k;
        return wide;
    }
#endif
};

template <class T>
struct VectorLinear {
    using Input = typename Words<T>::Input;

#if defined(__AVX512F__)
    static constexpr int64_t VECS = 3;
    static constexpr int ROWS = 8;
    // Vectors of columns that a tile of so many rows has: their product is most of the 32 registers.
    static constexpr int64_t vecs_by(int64_t) { return VECS; }
#else
    static constexpr int64_t VECS = 4;
    static constexpr int ROWS = 6;
    // Of 16 registers, two columns and a factor leave 12; with fewer sums, each would wait for itself.
    static constexpr int64_t vecs_by(int64_t rows) { return rows > 2 ? 2 : 4; }
#endif

    static constexpr int64_t COLUMNS = VECS * LANES;
    static constexpr int64_t WIDTH = COLUMNS;  // columns that lie together
    static constexpr int64_t WORD = Words<T>::SIZE;
    static constexpr int64_t DEPTH = WORD;  // inputs that lie together

    // Elsewhere torch is as fast.
    static bool is_supported() {
#if defined(__AVX512F__) || (defined(__AVX2__) && defined(__FMA__))
        return true;
#else
        return false;
#endif
    }

    struct Unit {};

    static const Input* inputs(const T* x, int64_t& stride, int64_t rows, int64_t k) {
        return Words<T>::inputs(x, stride, rows, k);
    }

    template <int R, int V, int STEP = 0>
    static void add_word(Vec (&sums)[R][V], const IVec (&words)[V], const Input* x, int64_t x_stride) {
        decltype(Words<T>::template columns_of<STEP>(words[0])) columns[V];
        for (int v = 0; v < V; v++) columns[v] = Words<T>::template columns_of<STEP>(words[v]);
        for (int r = 0; r < R; r++) {
            auto factor = Words<T>::template factor_of<STEP>(x + r * x_stride);
            for (int v = 0; v < V; v++) sums[r][v] = Words<T>::add(sums[r][v], columns[v], factor);
        }
        if constexpr (STEP + 1 < Words<T>::STEPS) add_word<R, V, STEP + 1>(sums, words, x, x_stride);
    }

    // R rows by V vectors of columns. `ahead` is what a later tile will read:
    // `ahead_step` bytes of it are asked for with every word.
    template <int R, int V>
    static void tile(const Input* x, int64_t x_stride, const T* w, int64_t k, const float* start,
                     float* out, const char* ahead, int64_t ahead_step) {
        Vec sums[R][V];
        for (int r = 0; r < R; r++)
            for (int v = 0; v < V; v++) sums[r][v] = load(start + v * LANES);
        const char* weights = (const char*)w;
        for (int64_t i = 0; i < k; i += WORD, weights += COLUMNS * 4, ahead += ahead_step) {
            for (int64_t line = 0; line < ahead_step; line += 64) __builtin_prefetch(ahead + line, 0, 2);
            IVec words[V];
            for (int v = 0; v < V; v++) {
                std::memcpy(&words[v], weights + v * sizeof(IVec), sizeof(IVec));
                __builtin_prefetch(weights + 4096 + v * sizeof(IVec));
            }
            add_word<R, V>(sums, words, x + i, x_stride);
        }
        for (int r = 0; r < R; r++)
            for (int v = 0; v < V; v++) store(out + r * COLUMNS + v * LANES, sums[r][v]);
    }

    // R rows of a block.
    template <int R>
    static void rows_of(const Input* x, int64_t x_stride, const T* w, const T* bias, T* y,
                        int64_t y_stride, int64_t num_columns, int64_t k, const char* ahead,
                        int64_t ahead_step) {
        constexpr int V = vecs_by(R);
        Start<COLUMNS> start(bias, num_columns);
        float sums[R][COLUMNS];
        for (int64_t v = 0; v < VECS; v += V) {
            int64_t column = v * LANES;
            tile<R, V>(x, x_stride, w + WORD * column, k, start.sums + column, sums[0] + column, ahead,
                       ahead_step);
            ahead += k / WORD * ahead_step;
        }
        for (int r = 0; r < R; r++) store_columns<COLUMNS>(sums[r], y + r * y_stride, num_columns);
    }

    // While a block that lies in L2 is multiplied by further rows, memory brings the next one.
    static void rows_of_block(int64_t rows, const Input* x, int64_t x_stride, const T* w, const T* bias,
                              T* y, int64_t y_stride, int64_t num_columns, int64_t k, bool has_next) {
        constexpr int64_t TILES = VECS / vecs_by(ROWS);
        const char* next = (const char*)(w + COLUMNS * k);
        int64_t step = has_next && rows >= 2 * ROWS ? COLUMNS * 4 * ROWS / rows / TILES : 0;
        in_groups<ROWS, 4, 2, 1>(rows, [&](auto height, int64_t row) {
            rows_of<height>(x + row * x_stride, x_stride, w, bias, y + row * y_stride, y_stride,
                            num_columns, k, next, step);
            next += TILES * step * k / WORD;
        });
    }
};

}  // namespace
