// The product of int8 weights on vectors.
#pragma once

#include <algorithm>

#include "../linear/edges.h"
#include "../simd/row_groups.h"
#include "block.h"
#include "dots.h"
#include "inputs.h"

namespace {

// Prefetches `bytes` from `start` on, spread evenly over `num_calls` calls.
class SteadyPrefetch {
public:
    SteadyPrefetch(const void* start, int64_t bytes, int64_t num_calls)
        : next((const char*)start), step((bytes + num_calls - 1) / num_calls) {}

    void advance() {
        for (due += step; due >= 64; due -= 64, next += 64) __builtin_prefetch(next, 0, 2);
    }

private:
    const char* next;
    int64_t step;
    int64_t due = 0;
};

struct Int8Vectors {
    using Input = Dots::Input;
    static constexpr int64_t WORD = Dots::WORD;

#if defined(__AVX512F__)
    static constexpr int64_t VECS = 3;
    static constexpr int ROWS = 4;  // the sums and the products of more rows don't fit into registers
    static constexpr int64_t vecs_by(int64_t) { return VECS; }
#else
    static constexpr int64_t VECS = 4;
    static constexpr int ROWS = 6;
    static constexpr int64_t vecs_by(int64_t rows) { return rows > 2 ? 2 : 4; }  // see linear/vectors.h
#endif

    static constexpr int64_t COLUMNS = VECS * LANES;
    static constexpr int64_t HEIGHT = 1;  // rows are read in multiples of it
    using Packed = Block<COLUMNS>;
    using Rows = QuantisedRows<Input>;

    struct ThreadState {};

    template <class T>
    static void rows_of_block(int64_t rows, const Rows& inputs, const Packed& block, const T* bias, T* y,
                              int64_t y_stride, int64_t num_columns, bool has_next) {
        int64_t block_bytes = Packed::num_bytes(block.num_groups);
        int64_t num_tiles = (rows + ROWS - 1) / ROWS * (VECS / vecs_by(std::min<int64_t>(rows, ROWS)));
        SteadyPrefetch next_block(block.weights + block_bytes, has_next ? block_bytes : 0,
                                  num_tiles * block.num_groups * (GROUP / WORD));
        const InitialSums<COLUMNS> start(bias, num_columns);
        in_groups<ROWS, 4, 2, 1>(rows, [&](auto height, int64_t row) {
            rows_of<height>(inputs, row, block, start.sums, y + row * y_stride, y_stride, num_columns,
                            next_block);
        });
    }

private:
    template <int R, class T>
    static void rows_of(const Rows& inputs, int64_t row, const Packed& block, const float* start, T* y,
                        int64_t y_stride, int64_t num_columns, SteadyPrefetch& next_block) {
        constexpr int V = vecs_by(R);
        float sums[R][COLUMNS];
        for (int64_t column = 0; column < COLUMNS; column += V * LANES)
            tile<R, V>(inputs, row, block, column, start + column, sums[0] + column, next_block);
        for (int r = 0; r < R; r++) store_columns<COLUMNS>(sums[r], y + r * y_stride, num_columns);
    }

    // Inlined, it would have too few registers for all pointers, and load the words again for each row.
    template <int R, int V>
    [[gnu::noinline]] static void tile(const Rows& inputs, int64_t row, const Packed& block, int64_t column,
                                       const float* start, float* out, SteadyPrefetch& next_block) {
        Vec sums[R][V];
        for (int r = 0; r < R; r++)
            for (int v = 0; v < V; v++) sums[r][v] = load(start + v * LANES);
        const Input* x = inputs.row(row);
        const float* input_scales = inputs.scales_of(row);
        const int32_t* starts = inputs.starts_of(row);
        const uint8_t* weights = block.weights + column * WORD;
        const bf16* scales = block.scales + column;
        for (int64_t group = 0; group < block.num_groups; group++, scales += COLUMNS) {
            IVec products[R][V];
            for (int r = 0; r < R; r++)
                for (int v = 0; v < V; v++) products[r][v] = starts[r * block.num_groups + group] - IVec{};
            for (int64_t i = 0; i < GROUP; i += WORD, weights += COLUMNS * WORD, x += WORD)
                add_words<R, V>(products, x, inputs.stride, weights, next_block);
            for (int v = 0; v < V; v++) {
                Vec weight_scales = load(scales + v * LANES);
                for (int r = 0; r < R; r++)
                    sums[r][v] = Packed::add(sums[r][v], products[r][v],
                                             input_scales[r * block.num_groups + group], weight_scales);
            }
        }
        for (int r = 0; r < R; r++)
            for (int v = 0; v < V; v++) store(out + r * COLUMNS + v * LANES, sums[r][v]);
    }

    template <int R, int V>
    static void add_words(IVec (&products)[R][V], const Input* x, int64_t x_stride,
                          const uint8_t* weights, SteadyPrefetch& next_block) {
        next_block.advance();
        IVec words[V];
        for (int v = 0; v < V; v++) words[v] = load_words(weights + v * LANES * WORD);
        for (int r = 0; r < R; r++) {
            IVec input = splat_bytes(x + r * x_stride);
            for (int v = 0; v < V; v++) products[r][v] = Dots::add(products[r][v], words[v], input);
        }
    }
};

}  // namespace
