// A chunk's products on tiles, with weights in bfloat16.
#pragma once

#include "attention_sums.h"
#include "attention_task.h"
#include "tiles.h"
#include "vec.h"

#if HAS_TILES

namespace {

using tile::DEPTH;
using tile::TILE;
using tile::WIDTH;
static_assert(HEIGHT == tile::HEIGHT, "else rows would not be whole tiles");

// For tasks of many rows, which have one key head: keys and values are packed once for all rows.
// Tiles 0 to 3 have sums, 4 rows of queries or weights, and 5 what they are multiplied with: the
// two are renamed with every load, as vectors are.
class TileProducts {
public:
    typedef bf16 Weight;

    struct Buffers {
        TileBuffer queries;  // [rows, depth]
        TileBuffer keys;     // [keys / WIDTH][depth / DEPTH][DEPTH / 2][WIDTH][2]
        TileBuffer values;   // [keys / DEPTH][columns][DEPTH / 2][WIDTH][2]
    };

    TileProducts(Operands<bf16>& of, Buffers& buffers) : of(of), buffers(buffers) {}

    void start_task() {
        key_dim = of.rows.args->key_dim, value_dim = of.rows.args->value_dim;
        depth = round_up(key_dim, DEPTH);
        for (int tile = 0; tile < 5; tile++) sizes.set(tile, std::min(HEIGHT, of.rows.count), 64);
        sizes.use();
        bf16* queries = buffers.queries.fit(of.rows.num_padded() * depth);
        of.rows.copy_queries<bf16>(queries, depth, [](bf16 x) { return x; });
    }

    int64_t num_score_asks() const { return round_up(of.num_keys(), WHOLE); }
    int64_t num_value_asks() const { return round_up(of.num_keys(), WHOLE) / 2; }

    // Queries with keys, `[rows, SPAN]`.
    void score(float* scores) {
        pack_keys();
        const bf16* rows = buffers.queries.data();
        int64_t steps = depth / DEPTH;
        Product product{rows, depth, buffers.keys.data(), steps * TILE, TILE, steps, scores, SPAN};
        multiply<false>(product, round_up(of.num_keys(), WHOLE) / WIDTH);
    }

    // Values times weights `[rows, SPAN]` to `[rows, width]`.
    void add_values(const Weight* weights, float* out, int64_t width) {
        int64_t columns = round_up(value_dim, WHOLE) / WIDTH;
        pack_values(columns);
        int64_t steps = round_up(of.num_keys(), WHOLE) / DEPTH;
        Product product{weights, SPAN, buffers.values.data(), TILE, columns * TILE, steps, out, width};
        multiply<true>(product, columns);
    }

    static void end_span(Sums&) {}

private:
    // Rows times packed tiles, summed over `steps` of them.
    struct Product {
        const bf16* rows;
        int64_t row_stride;  // elements
        const bf16* tiles;
        int64_t column_stride;  // elements between tiles
        int64_t step_stride;
        int64_t steps;
        float* out;
        int64_t out_stride;
    };

    Operands<bf16>& of;
    TileSizes sizes;
    Buffers& buffers;
    int64_t key_dim = 0, value_dim = 0, depth = 0;

    // Pairs of neighbours in a key are words, of which tiles have columns.
    void pack_keys() {
        bf16* to = buffers.keys.fit(CHUNK * depth);
        int64_t end = round_up(of.num_keys(), WHOLE);
        for (int64_t k = 0; k < end; k += WIDTH)
            for (int64_t d = 0; d < key_dim; d += DEPTH, to += TILE) {
                Vec words[LANES];
                of.get_transposed(words, 0, k, d == 0, [&](const bf16* key) {
                    return (Vec)Dot<bf16>::get_of(key, d, key_dim);
                });
                for (int64_t i = 0; i < LANES; i++) std::memcpy(to + i * 2 * WIDTH, &words[i], 64);
            }
    }

    // Neighbouring values' elements are paired.
    void pack_values(int64_t columns) {
        static constexpr int64_t PAIR = 2 * WIDTH;
        bf16* to = buffers.values.fit(CHUNK * columns * WIDTH);
        alignas(64) uint16_t low[32], high[32];
        for (int i = 0; i < 32; i++) low[i] = i / 2 + i % 2 * 32, high[i] = low[i] + 16;
        const __m512i lows = _mm512_load_si512(low), highs = _mm512_load_si512(high);
        int64_t end = round_up(of.num_keys(), WHOLE);
        for (int64_t k = 0; k < end; k += 2) {
            bf16* pair = to + k / DEPTH * columns * TILE + k % DEPTH / 2 * PAIR;
            const bf16 *even = of.get(0, k), *odd = of.get(0, k + 1);
            for (int64_t d = 0; d < value_dim; d += DEPTH, pair += 2 * TILE) {
                __m512i a = (__m512i)Dot<bf16>::get_of(even, d, value_dim);
                __m512i b = (__m512i)Dot<bf16>::get_of(odd, d, value_dim);
                _mm512_store_si512(pair, _mm512_permutex2var_epi16(a, lows, b));
                _mm512_store_si512(pair + TILE, _mm512_permutex2var_epi16(a, highs, b));
            }
            of.next.ask();
        }
    }

    template <bool ADDS>
    void multiply(Product product, int64_t columns) const {
        for (; columns >= 4; columns -= 4) multiply_columns<ADDS, 4>(product);
        for (; columns >= 2; columns -= 2) multiply_columns<ADDS, 2>(product);
    }

    template <bool ADDS, int COLUMNS>
    void multiply_columns(Product& product) const {
        for (int64_t row = 0; row < of.rows.count; row += HEIGHT)
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
