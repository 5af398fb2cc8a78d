// LoRA terms of bfloat16 on AMX tiles. They compute any number of tokens, so that a token's bits do not
// depend on the others.
#pragma once

#include <algorithm>

#include "task.h"
#include "../simd/tiles.h"

#if HAS_TILES

namespace {

constexpr int64_t TOKENS = 16;  // tokens of a tile
constexpr int64_t INPUTS = 32;  // inputs of a shrink's tile
constexpr int64_t RANKS = 16;   // rows of b in an expand's tile

// Runs one thread's tasks on tiles. In a shrink, tiles 0 and 1 hold sums, 2 rows of a, 3 tokens. In an
// expand, tiles 4 and 5 hold sums, 6 tokens, 7 rows of b.
class LoRATiles {
public:
    explicit LoRATiles(const LoRAArgs& args) : args(args) {
        sizes.set(2, PAGE_ROWS, 64);
        sizes.set(7, RANKS / 2, 64);
    }

    void shrink(const Task& task, const bf16* next_rows) {
        if (task.tokens != packed_tokens) pack(task);
        const bf16 *a = a_of<bf16>(task, task.first), *x = buffers.packed.data();
        int64_t stride = args.in_features;
        store_before_tiles();
        _tile_zero(0);
        _tile_zero(1);
        for (int64_t k = 0; k < stride; k += INPUTS, x += INPUTS * width) {
            for (int64_t r = 0; r < PAGE_ROWS; r++) __builtin_prefetch(next_rows + r * stride + k, 0, 2);
            _tile_loadd(2, a + k, stride * sizeof(bf16));
            _tile_loadd(3, x, width * 2 * sizeof(bf16));
            if (k / INPUTS % 2)  // two sums hide the latency of a product
                _tile_dpbf16ps(1, 2, 3);
            else
                _tile_dpbf16ps(0, 2, 3);
        }
        alignas(64) float odd[PAGE_ROWS * TOKENS];
        float* out = task.shrunk + task.first * PAGE_ROWS * width;
        _tile_stored(0, out, width * sizeof(float));
        _tile_stored(1, odd, width * sizeof(float));
        for (int64_t i = 0; i < PAGE_ROWS * width; i += LANES) {
            bf16 rounded[LANES];
            store(rounded, load(out + i) + load(odd + i));
            store(out + i, load(rounded));
        }
    }

    void expand(const Task& task, const bf16* next_rows) {
        int64_t steps = round_up(task.num_rows(), RANKS) / RANKS;
        int64_t num_columns = task.width;
        set_height(std::min(TOKENS, task.num_tokens));
        if (task.shrunk != taken_shrunk) take_shrunk(task, steps);
        pair_rows(task, steps, num_columns, next_rows);
        for (int64_t token = 0; token < task.num_tokens; token += TOKENS)
            for (int64_t column = 0; column < num_columns; column += 2 * LANES)
                add_product(task, token, column, std::min(2 * LANES, num_columns - column), steps);
    }

private:
    struct Buffers {
        TileBuffer packed, tokens, columns;
    };

    static Buffers& thread_buffers() {
        static thread_local Buffers buffers;
        return buffers;
    }

    const LoRAArgs& args;
    Buffers& buffers = thread_buffers();
    TileSizes sizes;
    int64_t width = 0;   // tokens of a shrink's tile; 0: its size is not set yet
    int64_t height = 0;  // the same of an expand's tile
    const int32_t* packed_tokens = nullptr;  // tokens whose inputs are in buffers.packed
    const float* taken_shrunk = nullptr;     // sums that are in buffers.tokens

    void set_width(int64_t wanted) {
        if (width == wanted) return;
        width = wanted;
        for (int tile : {0, 1}) sizes.set(tile, PAGE_ROWS, width * sizeof(float));
        sizes.set(3, INPUTS / 2, width * 2 * sizeof(bf16));
        sizes.use();
    }

    void set_height(int64_t wanted) {
        if (height == wanted) return;
        height = wanted;
        for (int tile : {4, 5}) sizes.set(tile, height, 64);
        sizes.set(6, height, RANKS * sizeof(bf16));
        sizes.use();
    }

    // Packs the inputs of a task's tokens to [in / 32][16 pairs][width][2]; width is a multiple of 4.
    void pack(const Task& task) {
        packed_tokens = task.tokens;
        set_width(round_up(task.num_tokens, 4));
        bf16* start = buffers.packed.fit(args.in_features * width);
        for (int64_t first = 0; first < width; first += 4) {
            const bf16* x[4];
            for (int64_t i = 0; i < 4; i++) {  // padding repeats the last token
                int32_t token = task.tokens[std::min(first + i, task.num_tokens - 1)];
                x[i] = (const bf16*)args.x + token * args.x_stride;
            }
            bf16* to = start + first * 2;
            for (int64_t k = 0; k < args.in_features; k += 8, to += 4 * width * 2) pack_pairs(x, k, to);
        }
    }

    // Transposes four pairs of four tokens from token-major to pair-major order.
    void pack_pairs(const bf16* const* x, int64_t k, bf16* to) {
        __m128i from[4];
        for (int i = 0; i < 4; i++) from[i] = _mm_loadu_si128((const __m128i*)(x[i] + k));
        __m128i low01 = _mm_unpacklo_epi32(from[0], from[1]), low23 = _mm_unpacklo_epi32(from[2], from[3]);
        __m128i high01 = _mm_unpackhi_epi32(from[0], from[1]), high23 = _mm_unpackhi_epi32(from[2], from[3]);
        __m128i pairs[4] = {_mm_unpacklo_epi64(low01, low23), _mm_unpackhi_epi64(low01, low23),
                            _mm_unpacklo_epi64(high01, high23), _mm_unpackhi_epi64(high01, high23)};
        for (int i = 0; i < 4; i++) _mm_storeu_si128((__m128i*)(to + i * width * 2), pairs[i]);
    }

    // Packs the sums of a task's shrinks to [tokens / 16][steps][16 tokens][16 rows]. Rows are padded with
    // zeros. Tokens are not padded.
    void take_shrunk(const Task& task, int64_t steps) {
        taken_shrunk = task.shrunk;
        int64_t num_rows = task.num_rows();
        bf16* to = buffers.tokens.fit(round_up(task.num_tokens, TOKENS) * steps * RANKS);
        for (int64_t token = 0; token < task.num_tokens; token += TOKENS) {
            int64_t stride = std::min(TOKENS, round_up(task.num_tokens - token, 4));
            const float* from = task.shrunk + token * num_rows;
            for (int64_t row = 0; row < steps * RANKS; row++, from += stride)
                for (int64_t i = 0; i < stride; i++)
                    from_float(to + row / RANKS * TOKENS * RANKS + i * RANKS + row % RANKS,
                               row < num_rows ? from[i] : 0.0f);
            to += steps * TOKENS * RANKS;
        }
    }

    // Packs rows of b to [columns / 16][steps][8 pairs][16 columns][2], padded to an even number of tiles.
    // Reads two rows at once from left to right, which hardware prefetchers follow, and prefetches the
    // same rows of the next page.
    void pair_rows(const Task& task, int64_t steps, int64_t num_columns, const bf16* next_rows) {
        int64_t padded = round_up(num_columns, 2 * LANES), stride = task.site->out_features;
        bf16* start = buffers.columns.fit(padded * steps * RANKS);
        for (int64_t row = 0; row < steps * RANKS; row += 2) {
            bf16* to = start + row * LANES;
            if (row >= task.num_rows()) {
                for (int64_t column = 0; column < padded; column += LANES, to += steps * RANKS * LANES)
                    std::memset(to, 0, 64);
                continue;
            }
            int64_t page = row / PAGE_ROWS, skipped = row % PAGE_ROWS * stride;
            const bf16* b = b_of<bf16>(task, page) + skipped;
            const bf16* next = (page + 1 < task.num_pages ? b_of<bf16>(task, page + 1) : next_rows) + skipped;
            for (int64_t column = 0; column < padded; column += LANES, to += steps * RANKS * LANES) {
                for (int64_t r : {0, 1}) __builtin_prefetch(next + r * stride + column, 0, 2);
                int64_t width = std::clamp<int64_t>(num_columns - column, 0, LANES);
                __mmask16 mask = (__mmask16)((1 << width) - 1);
                __m512i even = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, b + column));
                __m512i odd = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, b + stride + column));
                __m512i pairs = _mm512_or_si512(even, _mm512_slli_epi32(odd, 16));
                std::memcpy(to, &pairs, sizeof pairs);
            }
        }
    }

    void add_product(const Task& task, int64_t token, int64_t column, int64_t num_columns, int64_t steps) {
        constexpr int64_t TILE = RANKS * LANES;
        alignas(64) float sums[TOKENS][2 * LANES];
        const bf16* shrunk = buffers.tokens.data() + token * steps * RANKS;
        const bf16* b = buffers.columns.data() + column * steps * RANKS;
        store_before_tiles();
        _tile_zero(4);
        _tile_zero(5);
        for (int64_t step = 0; step < steps; step++, shrunk += TOKENS * RANKS, b += TILE) {
            _tile_loadd(6, shrunk, RANKS * sizeof(bf16));
            _tile_loadd(7, b, 64);
            _tile_dpbf16ps(4, 6, 7);
            _tile_loadd(7, b + steps * TILE, 64);
            _tile_dpbf16ps(5, 6, 7);
        }
        _tile_stored(4, sums[0], sizeof sums[0]);
        _tile_stored(5, sums[0] + LANES, sizeof sums[0]);
        for (int64_t i = 0; i < std::min(TOKENS, task.num_tokens - token); i++)
            add_sums(y_of<bf16>(task, args, token + i) + column, sums[i], num_columns);
    }
};

}  // namespace

#endif
