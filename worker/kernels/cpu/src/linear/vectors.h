// The packed product on vectors.
#pragma once

#include <algorithm>
#include <vector>

#include "../simd/row_groups.h"
#include "edges.h"
#include "../simd/vec.h"

namespace {

// Input rows in the dtype in which they are multiplied.
template <class Element>
struct Inputs {
    const Element* x;
    int64_t stride;
};

// Multiplies a word of inputs (one float, or two neighbouring bfloat16) by words of LANES columns.
template <class T>
struct Words;

template <>
struct Words<float> {
    typedef float Input;
    static constexpr int64_t SIZE = 1;     // elements of a word
    static constexpr int STEPS = 1;        // multiplications per word
    static constexpr int64_t BLOCK = 256;  // inputs with a sum of their own, as long sums lose precision

    template <int>
    static Vec columns_of(IVec words) {
        return (Vec)words;
    }

    template <int>
    static Vec factor_of(const Input* x) {
        return splat(*x);
    }

    static Vec add(Vec sums, Vec columns, Vec factor) { return multiply_add(sums, columns, factor); }

    static Inputs<Input> inputs(const float* x, int64_t stride, int64_t, int64_t) { return {x, stride}; }
};

// AVX512_BF16 multiplies both elements of a pair at once. Other CPUs widen one after the other by a
// shift or a mask, as a bfloat16 is the upper half of a float.
template <>
struct Words<bf16> {
    static constexpr int64_t SIZE = 2;
    static constexpr int64_t BLOCK = INT64_MAX;  // an fp32 sum keeps more digits than bfloat16 has

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

    static Inputs<Input> inputs(const bf16* x, int64_t stride, int64_t, int64_t) { return {x, stride}; }
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

    // Widens the rows once, as every block of columns reads them again.
    static Inputs<Input> inputs(const bf16* x, int64_t stride, int64_t rows, int64_t k) {
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
        return {wide, k};
    }
#endif
};

template <class T>
struct VectorLinear {
    using W = Words<T>;
    using Input = typename W::Input;

#if defined(__AVX512F__)
    static constexpr int64_t VECS = 3;
    static constexpr int ROWS = 8;
    // Vectors of columns in a tile. Its rows times its vectors fill most of the 32 registers.
    static constexpr int64_t vecs_by(int64_t) { return VECS; }
#else
    static constexpr int64_t VECS = 4;
    static constexpr int ROWS = 6;
    // Vectors of columns in a tile of `rows` rows. Two columns and a factor leave 12 of 16 registers
    // for sums. With fewer sums, each addition would wait for the previous one.
    static constexpr int64_t vecs_by(int64_t rows) { return rows > 2 ? 2 : 4; }
#endif

    static constexpr int64_t COLUMNS = VECS * LANES;
    static constexpr int64_t WIDTH = COLUMNS;  // contiguous columns of the packed layout
    static constexpr int64_t WORD = W::SIZE;
    static constexpr int64_t DEPTH = WORD;  // contiguous inputs of the packed layout

    struct ThreadState {};

    static Inputs<Input> inputs(const T* x, int64_t stride, int64_t rows, int64_t k) {
        return W::inputs(x, stride, rows, k);
    }

    template <int R, int V, int STEP = 0>
    static void add_word(Vec (&sums)[R][V], const IVec (&words)[V], const Input* x, int64_t x_stride) {
        decltype(W::template columns_of<STEP>(words[0])) columns[V];
        for (int v = 0; v < V; v++) columns[v] = W::template columns_of<STEP>(words[v]);
        for (int r = 0; r < R; r++) {
            auto factor = W::template factor_of<STEP>(x + r * x_stride);
            for (int v = 0; v < V; v++) sums[r][v] = W::add(sums[r][v], columns[v], factor);
        }
        if constexpr (STEP + 1 < W::STEPS) add_word<R, V, STEP + 1>(sums, words, x, x_stride);
    }

    // Prefetches weights that this tile or the next one reads. Measured on an EPYC with four and eight
    // rows: with L2 and a larger distance, the product takes 0.7 to 0.9 of the time. With one row, L1 is
    // as fast or faster.
    template <int R>
    static void prefetch_ahead(const char* weights) {
        if (R < 4)
            __builtin_prefetch(weights + 4096);
        else
            __builtin_prefetch(weights + 16384, 0, 2);
    }

    // Multiplies R rows by V vectors of columns. Each word also prefetches `prefetch_bytes` of
    // `next_block`, which a later tile reads.
    template <int R, int V>
    static void tile(const Input* x, int64_t x_stride, const T* w, int64_t k, const float* start,
                     float* out, const char*& next_block, int64_t prefetch_bytes) {
        Vec sums[R][V];
        for (int r = 0; r < R; r++)
            for (int v = 0; v < V; v++) sums[r][v] = load(start + v * LANES);
        const char* weights = (const char*)w;
        for (int64_t i = 0; i < k; i += WORD, weights += COLUMNS * 4, next_block += prefetch_bytes) {
            for (int64_t line = 0; line < prefetch_bytes; line += 64)
                __builtin_prefetch(next_block + line, 0, 2);
            IVec words[V];
            for (int v = 0; v < V; v++) {
                std::memcpy(&words[v], weights + v * sizeof(IVec), sizeof(IVec));
                prefetch_ahead<R>(weights + v * sizeof(IVec));
            }
            add_word<R, V>(sums, words, x + i, x_stride);
        }
        for (int r = 0; r < R; r++)
            for (int v = 0; v < V; v++) store(out + r * COLUMNS + v * LANES, sums[r][v]);
    }

    // Computes R rows of a block of columns.
    template <int R>
    static void rows_of(const Input* x, int64_t x_stride, const T* w, const T* bias, T* y,
                        int64_t y_stride, int64_t num_columns, int64_t k, const char* next_block,
                        int64_t prefetch_bytes) {
        constexpr int V = vecs_by(R);
        const InitialSums<COLUMNS> start(bias, num_columns);
        float sums[R][COLUMNS];
        for (int64_t column = 0; column < COLUMNS; column += V * LANES) {
            const T* from = w + column * WORD;
            int64_t size = std::min(k, W::BLOCK);
            tile<R, V>(x, x_stride, from, size, start.sums + column, sums[0] + column, next_block,
                       prefetch_bytes);
            for (int64_t first = size; first < k; first += size) {
                size = std::min(k - first, W::BLOCK);
                add_tile<R, V>(x + first, x_stride, from + first * COLUMNS, size, sums[0] + column, next_block,
                               prefetch_bytes);
            }
        }
        for (int r = 0; r < R; r++) store_columns<COLUMNS>(sums[r], y + r * y_stride, num_columns);
    }

    // Computes a tile and adds it to `out`.
    template <int R, int V>
    static void add_tile(const Input* x, int64_t x_stride, const T* w, int64_t k, float* out,
                         const char*& next_block, int64_t prefetch_bytes) {
        constexpr float ZEROS[V * LANES] = {};
        float part[R * COLUMNS];
        tile<R, V>(x, x_stride, w, k, ZEROS, part, next_block, prefetch_bytes);
        for (int r = 0; r < R; r++)
            for (int64_t n = r * COLUMNS; n < r * COLUMNS + V * LANES; n += LANES)
                store(out + n, load(out + n) + load(part + n));
    }

    // While further rows are multiplied by a block that is in L2, the next block is prefetched.
    static void rows_of_block(int64_t rows, Inputs<Input> inputs, const T* w, const T* bias, T* y,
                              int64_t y_stride, int64_t num_columns, int64_t k, bool has_next) {
        constexpr int64_t TILES = VECS / vecs_by(ROWS);
        const char* next = (const char*)(w + COLUMNS * k);
        int64_t step = has_next && rows >= 2 * ROWS ? COLUMNS * 4 * ROWS / rows / TILES : 0;
        in_groups<ROWS, 4, 2, 1>(rows, [&](auto height, int64_t row) {
            rows_of<height>(inputs.x + row * inputs.stride, inputs.stride, w, bias, y + row * y_stride,
                            y_stride, num_columns, k, next, step);
            next += TILES * step * k / WORD;
        });
    }
};

}  // namespace
