// Products of one chunk on AMX tiles, with weights in bfloat16.
#pragma once

#include "sums.h"
#include "task.h"
#include "../simd/tiles.h"
#include "../simd/vec.h"

#if HAS_TILES

namespace {

using tile::DEPTH;
using tile::TILE;
using tile::WIDTH;
static_assert(HEIGHT == tile::HEIGHT, "padded rows must fill tiles");

// Keys and values are packed once for all rows of a task. Few rows are computed in the same way, with
// tiles of as few rows, because vectors would sum in another order.
// Tiles 0 to 3 hold sums, tile 4 rows of queries or weights, and tile 5 keys or values. The CPU renames
// tiles 4 and 5 on every load, as it does vector registers.
class TileProducts {
public:
    typedef bf16 Weight;

    struct Buffers {
        TileBuffer queries;  // [heads, rows, depth]
        TileBuffer keys;     // of one head: [keys / WIDTH][depth / DEPTH][DEPTH / 2][WIDTH][2]
        TileBuffer values;   // of one head: [keys / DEPTH][columns][DEPTH / 2][WIDTH][2]
    };

    TileProducts(Operands<bf16>& ops, Buffers& buffers) : ops(ops), buffers(buffers) {}

    void start_task() {
        key_dim = ops.rows.args->key_dim, value_dim = ops.rows.args->value_dim;
        depth = round_up(key_dim, DEPTH);
        for (int tile = 0; tile < 5; tile++) sizes.set(tile, std::min(HEIGHT, ops.rows.count), 64);
        sizes.use();
        bf16* queries = buffers.queries.fit(ops.rows.num_padded() * depth);
        ops.rows.copy_queries<bf16>(queries, depth, [](bf16 x) { return x; });
    }

    int64_t num_score_advances() const { return ops.num_heads() * num_padded_keys(); }
    int64_t num_value_advances() const { return ops.num_heads() * num_padded_keys() / 2; }

    // scores[h, r, k] = q[h, r] . key[h, k]; scores are `[heads, rows, SPAN]`.
    void score(float* scores) {
        const bf16* rows = buffers.queries.data();
        const int64_t padded = ops.rows.padded(), steps = depth / DEPTH;
        for (head = 0; head < ops.num_heads(); head++) {
            pack_keys();
            Product product{rows, depth, buffers.keys.data(), steps * TILE, TILE, steps, scores, SPAN};
            multiply<false>(product, num_padded_keys() / WIDTH);
            rows += padded * depth, scores += padded * SPAN;
        }
    }

    // out[h, r] += sum_k weights[h, r, k] * value[h, k]; weights are `[heads, rows, SPAN]`, out is
    // `[heads, rows, width]`.
    void add_values(const Weight* weights, float* out, int64_t width) {
        const int64_t padded = ops.rows.padded(), steps = num_padded_keys() / DEPTH;
        const int64_t columns = round_up(value_dim, PADDING) / WIDTH;
        for (head = 0; head < ops.num_heads(); head++) {
            pack_values(columns);
            Product product{weights, SPAN, buffers.values.data(), TILE, columns * TILE, steps, out, width};
            multiply<true>(product, columns);
            weights += padded * SPAN, out += padded * width;
        }
    }

    static void end_span(Sums&) {}

private:
    // A product of rows and packed tiles, summed over `steps` tiles.
    struct Product {
        const bf16* rows;
        int64_t row_stride;  // elements between rows
        const bf16* tiles;
        int64_t column_stride;  // elements between tiles of neighbouring columns
        int64_t step_stride;    // elements between tiles of consecutive steps
        int64_t steps;
        float* out;
        int64_t out_stride;
    };

    Operands<bf16>& ops;
    TileSizes sizes;
    Buffers& buffers;
    int64_t key_dim = 0, value_dim = 0, depth = 0;
    int64_t head = 0;  // the current key head

    int64_t num_padded_keys() const { return round_up(ops.num_keys(), PADDING); }

    // Packs keys for tiles: each pair of neighbouring elements of a key becomes one word of a column.
    void pack_keys() {
        bf16* to = buffers.keys.fit(CHUNK * depth);
        for (int64_t k = 0; k < num_padded_keys(); k += WIDTH)
            for (int64_t d = 0; d < key_dim; d += DEPTH, to += TILE) {
                Vec words[LANES];
                ops.get_transposed(words, head, k, d == 0, [&](const bf16* key) {
                    return (Vec)Dot<bf16>::get_of(key, d, key_dim);
                });
                for (int64_t i = 0; i < LANES; i++) std::memcpy(to + i * 2 * WIDTH, &words[i], 64);
            }
    }

    // Packs values for tiles: elements of two neighbouring values become pairs.
    void pack_values(int64_t columns) {
        static constexpr int64_t PAIR = 2 * WIDTH;
        bf16* to = buffers.values.fit(CHUNK * columns * WIDTH);
        alignas(64) uint16_t low[32], high[32];
        for (int i = 0; i < 32; i++) low[i] = i / 2 + i % 2 * 32, high[i] = low[i] + 16;
        const __m512i lows = _mm512_load_si512(low), highs = _mm512_load_si512(high);
        for (int64_t k = 0; k < num_padded_keys(); k += 2) {
            bf16* pair = to + k / DEPTH * columns * TILE + k % DEPTH / 2 * PAIR;
            const bf16 *even = ops.get(head, k), *odd = ops.get(head, k + 1);
            for (int64_t d = 0; d < value_dim; d += DEPTH, pair += 2 * TILE) {
                __m512i a = (__m512i)Dot<bf16>::get_of(even, d, value_dim);
                __m512i b = (__m512i)Dot<bf16>::get_of(odd, d, value_dim);
                _mm512_store_si512(pair, _mm512_permutex2var_epi16(a, lows, b));
                _mm512_store_si512(pair + TILE, _mm512_permutex2var_epi16(a, highs, b));
            }
            ops.prefetcher.advance();
        }
    }

    template <bool ADDS>
    void multiply(Product product, int64_t columns) const {
        for (; columns >= 4; columns -= 4) multiply_columns<ADDS, 4>(product);
        for (; columns >= 2; columns -= 2) multiply_columns<ADDS, 2>(product);
    }

    template <bool ADDS, int COLUMNS>
    void multiply_columns(Product& product) const {
        for (int64_t row = 0; row < ops.rows.count; row += HEIGHT)
            multiply_rows<ADDS, COLUMNS>(product, product.rows + row * product.row_stride,
                                         product.out + row * product.out_stride);
        product.tiles += COLUMNS * product.column_stride, product.out += COLUMNS * WIDTH;
    }

    template <bool ADDS, int COLUMNS>
    static void multiply_rows(const Product& product, const bf16* rows, float* out) {
        const int64_t out_bytes = product.out_stride * sizeof(float);
        const int64_t row_bytes = product.row_stride * sizeof(bf16);
        store_before_tiles();
        if (ADDS) {
            _tile_loadd(0, out, out_bytes);
            _tile_loadd(1, out + WIDTH, out_bytes);
            if (COLUMNS > 2) {
                _tile_loadd(2, out + 2 * WIDTH, out_bytes);
                _tile_loadd(3, out + 3 * WIDTH, out_bytes);
            }
        } else {
            _tile_zero(0);
            _tile_zero(1);
            if (COLUMNS > 2) {
                _tile_zero(2);
                _tile_zero(3);
            }
        }
        const bf16* tiles = product.tiles;
        const int64_t column = product.column_stride;
        for (int64_t i = 0; i < product.steps; i++, rows += DEPTH, tiles += product.step_stride) {
            _tile_loadd(4, rows, row_bytes);
            _tile_loadd(5, tiles, 64);
            _tile_dpbf16ps(0, 4, 5);
            _tile_loadd(5, tiles + column, 64);
            _tile_dpbf16ps(1, 4, 5);
            if (COLUMNS > 2) {
                _tile_loadd(5, tiles + 2 * column, 64);
                _tile_dpbf16ps(2, 4, 5);
                _tile_loadd(5, tiles + 3 * column, 64);
                _tile_dpbf16ps(3, 4, 5);
            }
        }
        _tile_stored(0, out, out_bytes);
        _tile_stored(1, out + WIDTH, out_bytes);
        if (COLUMNS > 2) {
            _tile_stored(2, out + 2 * WIDTH, out_bytes);
            _tile_stored(3, out + 3 * WIDTH, out_bytes);
        }
    }
};

}  // namespace

#endif
