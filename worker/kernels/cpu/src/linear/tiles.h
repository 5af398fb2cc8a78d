// The packed product on AMX tiles.
#pragma once

#include <algorithm>

#include "edges.h"
#include "../simd/tiles.h"
#include "../simd/vec.h"

#if HAS_TILES

namespace {

struct TileLinear {
    static constexpr int64_t VECS = 3;  // tiles of columns in a block; 6 of the 8 tiles hold sums
    static constexpr int64_t COLUMNS = VECS * LANES;
    static constexpr int64_t WIDTH = tile::WIDTH;  // columns of a packed tile
    static constexpr int64_t DEPTH = tile::DEPTH;  // inputs of a packed tile
    static constexpr int64_t WORD = 2;             // neighbouring inputs in a word

    struct ThreadState {
        ThreadState() { sizes.use(); }
        TileSizes sizes;
    };

    // Packs the rows into tiles [rows / HEIGHT][k / DEPTH][HEIGHT][DEPTH], padded with zeros.
    static const bf16* inputs(const bf16* x, int64_t stride, int64_t rows, int64_t k) {
        static thread_local TileBuffer buffer;
        int64_t depth = round_up(k, DEPTH), height = round_up(rows, HEIGHT);
        bf16* tiles = buffer.fit(height * depth);
#pragma omp parallel for if (rows * k > WORTH_THREADS)
        for (int64_t row = 0; row < height; row++) {
            bf16* to = tiles + row / HEIGHT * HEIGHT * depth + row % HEIGHT * DEPTH;
            for (int64_t i = 0; i < depth; i += DEPTH, to += TILE) {
                const bf16* from = x + row * stride + i;
                if (row < rows && i + DEPTH <= k) {
                    std::memcpy(to, from, DEPTH * sizeof(bf16));
                } else {
                    int64_t size = row < rows ? k - i : 0;
                    std::fill(std::copy(from, from + size, to), to + DEPTH, bf16{0});
                }
            }
        }
        return tiles;
    }

    // Multiplies NUM_ROWS tiles of rows (1 or 2) by a block of columns. Tiles 0 to 5 hold sums, tile 6
    // rows and tile 7 columns. The CPU renames tiles 6 and 7 on every load, as it does vector registers.
    template <int NUM_ROWS>
    static void multiply(const bf16* x, const bf16* w, int64_t k, const float* start, float* out) {
        const bf16* second = x + HEIGHT * k;
        store_before_tiles();
        _tile_loadd(0, start, 0);  // stride 0: every row starts from the same sums
        _tile_loadd(1, start + WIDTH, 0);
        _tile_loadd(2, start + 2 * WIDTH, 0);
        if (NUM_ROWS > 1) {
            _tile_loadd(3, start, 0);
            _tile_loadd(4, start + WIDTH, 0);
            _tile_loadd(5, start + 2 * WIDTH, 0);
        }
        for (int64_t i = 0; i < k; i += DEPTH, w += VECS * TILE, x += TILE, second += TILE) {
            for (int64_t line = 0; line < VECS * TILE * 2; line += 64)
                __builtin_prefetch((const char*)w + AHEAD + line);
            _tile_loadd(6, x, 64);
            _tile_loadd(7, w, 64);
            _tile_dpbf16ps(0, 6, 7);
            if (NUM_ROWS > 1) {
                _tile_loadd(6, second, 64);
                _tile_dpbf16ps(3, 6, 7);
                _tile_loadd(7, w + TILE, 64);
                _tile_dpbf16ps(4, 6, 7);
                _tile_loadd(6, x, 64);
            } else {
                _tile_loadd(7, w + TILE, 64);
            }
            _tile_dpbf16ps(1, 6, 7);
            _tile_loadd(7, w + 2 * TILE, 64);
            _tile_dpbf16ps(2, 6, 7);
            if (NUM_ROWS > 1) {
                _tile_loadd(6, second, 64);
                _tile_dpbf16ps(5, 6, 7);
            }
        }
        constexpr int64_t STRIDE = COLUMNS * sizeof(float);
        _tile_stored(0, out, STRIDE);
        _tile_stored(1, out + WIDTH, STRIDE);
        _tile_stored(2, out + 2 * WIDTH, STRIDE);
        if (NUM_ROWS == 1) return;
        out += HEIGHT * COLUMNS;
        _tile_stored(3, out, STRIDE);
        _tile_stored(4, out + WIDTH, STRIDE);
        _tile_stored(5, out + 2 * WIDTH, STRIDE);
    }

    static void rows_of_block(int64_t rows, const bf16* x, const bf16* w, const bf16* bias, bf16* y,
                              int64_t y_stride, int64_t num_columns, int64_t k, bool) {
        InitialSums<COLUMNS> start(bias, num_columns);
        alignas(64) float sums[2 * HEIGHT][COLUMNS];
        for (int64_t row = 0; row < rows; row += 2 * HEIGHT, x += 2 * HEIGHT * k) {
            int64_t height = std::min(2 * HEIGHT, rows - row);
            (height > HEIGHT ? multiply<2> : multiply<1>)(x, w, k, start.sums, sums[0]);
            for (int64_t r = 0; r < height; r++)
                store_columns<COLUMNS>(sums[r], y + (row + r) * y_stride, num_columns);
        }
    }

private:
    static constexpr int64_t AHEAD = 8192;  // bytes between the weight that is read and its prefetch
    static constexpr int64_t HEIGHT = tile::HEIGHT, TILE = tile::TILE;
};

}  // namespace

#endif
