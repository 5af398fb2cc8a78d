// The product of int8 weights on AMX tiles. It reads the layout of vectors.h.
#pragma once

#include <algorithm>

#include "../simd/tiles.h"
#include "vectors.h"

#if HAS_INT8_TILES

namespace {

struct Int8Tiles {
    using Input = int8_t;
    static constexpr int64_t WORD = 4;
    static constexpr int64_t VECS = 3;    // tiles of columns in a block; 6 of the 8 tiles hold products
    static constexpr int64_t WIDTH = 16;  // int32 products in a row of a tile
    static constexpr int64_t COLUMNS = VECS * WIDTH;
    static constexpr int64_t HEIGHT = 32;  // rows of two tiles
    using Packed = Block<COLUMNS>;
    using Rows = QuantisedRows<Input>;

    struct ThreadState {
        ThreadState() {
            sizes.set(6, 16, GROUP);
            sizes.set(7, GROUP / WORD, 64);
            sizes.use();
        }
        TileSizes sizes;
    };

    template <class T>
    static void rows_of_block(int64_t rows, const Rows& inputs, const Packed& block, const T* bias, T* y,
                              int64_t y_stride, int64_t num_columns, bool) {
        const InitialSums<COLUMNS> start(bias, num_columns);
        float sums[HEIGHT][COLUMNS];
        for (int64_t row = 0; row < rows; row += HEIGHT) {
            int64_t height = std::min(HEIGHT, rows - row);
            for (int64_t r = 0; r < height; r++) std::copy(start.sums, start.sums + COLUMNS, sums[r]);
            for (int64_t group = 0; group < block.num_groups; group++)
                add_group(inputs, row, height, block, group, sums);
            for (int64_t r = 0; r < height; r++)
                store_columns<COLUMNS>(sums[r], y + (row + r) * y_stride, num_columns);
        }
    }

private:
    static constexpr int64_t TILE_ROWS = 16;
    static constexpr int64_t AHEAD = 4096;  // bytes between the weight that is read and its prefetch

    // A group fills half of the depth of a tile, as its sums need the scales.
    static void add_group(const Rows& inputs, int64_t row, int64_t height, const Packed& block,
                          int64_t group, float (&sums)[HEIGHT][COLUMNS]) {
        alignas(64) int32_t products[HEIGHT][COLUMNS];
        const int8_t* x = inputs.row(row) + group * GROUP;
        const uint8_t* weights = block.weights + group * Packed::GROUP_BYTES;
        for (int64_t line = 0; line < Packed::GROUP_BYTES; line += 64)
            __builtin_prefetch(weights + AHEAD + line);
        (height > TILE_ROWS ? multiply<2> : multiply<1>)(x, inputs.stride, weights, products[0]);
        const bf16* scales = block.scales + group * COLUMNS;
        Vec weight_scales[COLUMNS / LANES];
        for (int64_t v = 0; v < COLUMNS / LANES; v++) weight_scales[v] = load(scales + v * LANES);
        for (int64_t r = 0; r < height; r++) {
            float input_scale = inputs.scales_of(row + r)[group];
            int32_t first = inputs.starts_of(row + r)[group];
            for (int64_t v = 0; v < COLUMNS / LANES; v++) {
                IVec total;
                std::memcpy(&total, &products[r][v * LANES], sizeof total);
                float* to = &sums[r][v * LANES];
                store(to, Packed::add(load(to), total + first, input_scale, weight_scales[v]));
            }
        }
    }

    // Multiplies NUM_TILES tiles of rows by a group of the block's columns. Tiles 0 to 5 hold
    // products, tile 6 rows and tile 7 columns.
    template <int NUM_TILES>
    static void multiply(const int8_t* x, int64_t x_stride, const uint8_t* w, int32_t* out) {
        constexpr int64_t W_STRIDE = COLUMNS * WORD, TILE_BYTES = WIDTH * WORD;
        constexpr int64_t STRIDE = COLUMNS * sizeof(int32_t);
        const int8_t* second = x + TILE_ROWS * x_stride;
        store_before_tiles();
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        if (NUM_TILES > 1) {
            _tile_zero(3);
            _tile_zero(4);
            _tile_zero(5);
        }
        _tile_loadd(6, x, x_stride);
        _tile_loadd(7, w, W_STRIDE);
        _tile_dpbsud(0, 6, 7);
        if (NUM_TILES > 1) {
            _tile_loadd(6, second, x_stride);
            _tile_dpbsud(3, 6, 7);
            _tile_loadd(7, w + TILE_BYTES, W_STRIDE);
            _tile_dpbsud(4, 6, 7);
            _tile_loadd(6, x, x_stride);
        } else {
            _tile_loadd(7, w + TILE_BYTES, W_STRIDE);
        }
        _tile_dpbsud(1, 6, 7);
        _tile_loadd(7, w + 2 * TILE_BYTES, W_STRIDE);
        _tile_dpbsud(2, 6, 7);
        if (NUM_TILES > 1) {
            _tile_loadd(6, second, x_stride);
            _tile_dpbsud(5, 6, 7);
        }
        _tile_stored(0, out, STRIDE);
        _tile_stored(1, out + WIDTH, STRIDE);
        _tile_stored(2, out + 2 * WIDTH, STRIDE);
        store_before_tiles();
        if (NUM_TILES == 1) return;
        out += TILE_ROWS * COLUMNS;
        _tile_stored(3, out, STRIDE);
        _tile_stored(4, out + WIDTH, STRIDE);
        _tile_stored(5, out + 2 * WIDTH, STRIDE);
        store_before_tiles();
    }
};

}  // namespace

#endif
