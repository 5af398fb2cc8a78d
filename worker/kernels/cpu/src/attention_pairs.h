// A chunk's products on vectors of pairs of bfloat16, with weights in bfloat16.
#pragma once

#include "attention_task.h"
#include "groups.h"
#include "vec.h"

#if defined(__AVX512BF16__)

#include <vector>

#define ALWAYS_INLINE __attribute__((always_inline))

namespace {

// A multiplication takes pairs of neighbours: of a key's elements, and of two keys' values.
class PairProducts {
public:
    typedef bf16 Weight;

    struct Buffers {
        std::vector<bf16> queries;      // [heads, rows, depth]
        std::vector<float> transposed;  // [depth / 2, LANES], pairs
    };

    PairProducts(Operands<bf16>& of, Buffers& buffers)
        : of(of), queries(buffers.queries), transposed(buffers.transposed) {}

    // Few rows read keys where they lie, many rows have them transposed.
    void start_task() {
        is_few = of.rows.task.is_few;
        key_dim = of.rows.args->key_dim, value_dim = of.rows.args->value_dim;
        depth = round_up(key_dim, WORD);
        transposed.resize(depth / 2 * LANES);
        queries.resize(of.rows.task.num_heads * of.rows.count * depth);
        of.rows.copy_queries(queries.data(), depth);
    }

    int64_t num_asks() const { return of.rows.task.num_heads * of.num_keys() * 3 / 2; }

    // Queries with keys, `[heads, rows, CHUNK]`.
    void score(float* scores) {
        const bf16* rows = queries.data();
        const int64_t padded = of.rows.padded(), count = of.rows.count;
        for (head = 0; head < of.rows.task.num_heads; head++) {
            for (int64_t k = 0; k < of.num_keys(); k += LANES)
                is_few ? score_in_place(rows, k, scores + k) : score_transposed(rows, k, scores + k);
            rows += count * depth, scores += padded * CHUNK;
        }
    }

    // Values times weights `[heads, rows, CHUNK]` to `[heads, rows, width]`.
    void add_values(const Weight* weights, float* out, int64_t width) {
        const int64_t padded = of.rows.padded();
        for (head = 0; head < of.rows.task.num_heads; head++) {
            int64_t d = 0;
            for (; d + 2 * WORD <= value_dim; d += 2 * WORD) add_words<2>(weights, out, width, d);
            for (; d < value_dim; d += WORD) add_words<1>(weights, out, width, d);
            weights += padded * CHUNK, out += padded * width;
        }
    }

private:
    using Pairs = Dot<bf16>;
    static constexpr int64_t WORD = Pairs::WIDTH;  // elements of a vector

    Operands<bf16>& of;
    bool is_few = false;
    int64_t key_dim = 0, value_dim = 0, depth = 0;
    int64_t head = 0;  // the current one
    std::vector<bf16>& queries;
    std::vector<float>& transposed;

    // The cache is read once and scattered, so that only asking ahead keeps memory busy.
    void score_in_place(const bf16* rows, int64_t k, float* scores) {
        switch (key_dim) {
            case 2 * WORD: return score_rows_in_place<2>(rows, k, scores);
            case 4 * WORD: return score_rows_in_place<4>(rows, k, scores);
            default: return score_rows_in_place<0>(rows, k, scores);
        }
    }

    // Of LANES keys from the k-th on. 0 words: as many as there are.
    template <int WORDS>
    void score_rows_in_place(const bf16* rows, int64_t k, float* scores) {
        in_groups<3, 1>(of.rows.count, [&](auto size, int64_t row) {
            score_some<WORDS, size>(rows, k, scores, row);
        });
    }

    // Of each row, whose lanes are still to be summed.
    template <int ROWS>
    struct Products {
        Vec of_row[ROWS] = {};
    };

    template <int WORDS, int ROWS>
    void score_some(const bf16* rows, int64_t k, float* scores, int64_t row) {
        rows += row * depth, scores += row * CHUNK;
        const bool asks = row == 0;
        auto multiply = [&](int64_t i) ALWAYS_INLINE {
            const bf16* key = of.key(head, k + i);
            const int64_t size = WORDS ? WORDS * WORD : key_dim;
            Products<ROWS> products;
            for (int64_t d = 0; d < size; d += WORD) {
                const __m512bh pairs = Pairs::get_of(key, d, size);
                for (int r = 0; r < ROWS; r++)
                    products.of_row[r] =
                        Pairs::add(products.of_row[r], Pairs::get(rows + r * depth + d), pairs);
            }
            if (asks) of.next.ask();
            return products;
        };
        Products<ROWS> sums = folded_products<1, ROWS>(0, multiply);
        for (int r = 0; r < ROWS; r++) store(scores + r * CHUNK, sums.of_row[r]);
    }

    // Of keys i, i + S, i + 2 * S, ...: each sum is in as many lanes as there are keys. Folding them
    // as they come leaves few to be kept.
    template <int S, int ROWS, class Multiply>
    ALWAYS_INLINE static Products<ROWS> folded_products(int64_t i, const Multiply& multiply) {
        if constexpr (S == LANES) {
            return multiply(i);
        } else {
            Products<ROWS> a = folded_products<2 * S, ROWS>(i, multiply);
            Products<ROWS> b = folded_products<2 * S, ROWS>(i + S, multiply);
            for (int r = 0; r < ROWS; r++) a.of_row[r] = folded<S>(a.of_row[r], b.of_row[r]);
            return a;
        }
    }

    void score_transposed(const bf16* rows, int64_t k, float* scores) {
        transpose_keys(k);
        in_groups<8, 1>(of.rows.count, [&](auto size, int64_t row) {
            score_rows<size>(rows + row * depth, scores + row * CHUNK);
        });
    }

    // LANES keys from the k-th on as [depth / 2, LANES] pairs.
    void transpose_keys(int64_t k) {
        for (int64_t d = 0; d < key_dim; d += WORD) {
            Vec pairs[LANES];
            of.get_transposed(pairs, head, k, d == 0, [&](const bf16* key) {
                return (Vec)Pairs::get_of(key, d, key_dim);
            });
            for (int64_t i = 0; i < LANES; i++) store(&transposed[(d / 2 + i) * LANES], pairs[i]);
        }
    }

    template <int ROWS>
    void score_rows(const bf16* rows, float* scores) {
        Vec sums[ROWS] = {};
        for (int64_t d = 0; d < depth; d += 2) {
            __m512bh keys = (__m512bh)load(&transposed[d / 2 * LANES]);
            for (int i = 0; i < ROWS; i++)
                sums[i] = Pairs::add(sums[i], Pairs::get_pair(rows + i * depth + d), keys);
        }
        for (int i = 0; i < ROWS; i++) store(scores + i * CHUNK, sums[i]);
    }

    template <int WORDS>
    void add_words(const bf16* weights, float* out, int64_t width, int64_t d) {
        in_groups<4, 3, 1>(of.rows.count, [&](auto size, int64_t row) {
            add_rows<size, WORDS>(weights, out, width, d, row);
        });
    }

    // Two keys' values are paired as vectors do it fastest, four elements in turn for the first and
    // for the second sums.
    template <int ROWS, int WORDS>
    void add_rows(const bf16* weights, float* out, int64_t width, int64_t d, int64_t row) {
        Vec low[ROWS][WORDS] = {}, high[ROWS][WORDS] = {};
        weights += row * CHUNK, out += row * width + d;
        const bool asks = row == 0 && d == 0;
        const int64_t num_keys = of.num_keys();
        for (int64_t k = 0; k < num_keys; k += 2) {
            if (asks) of.next.ask();
            const bf16 *even = of.value(head, k), *odd = of.value(head, k + 1);
#pragma GCC unroll 2
            for (int w = 0; w < WORDS; w++) {
                // Two words are within a value, one may be its end.
                const int64_t from = d + w * WORD, end = WORDS == 2 ? from + WORD : value_dim;
                __m512i a = (__m512i)Pairs::get_of(even, from, end), b = (__m512i)Pairs::get_of(odd, from, end);
                __m512bh lows = (__m512bh)_mm512_unpacklo_epi16(a, b);
                __m512bh highs = (__m512bh)_mm512_unpackhi_epi16(a, b);
#pragma GCC unroll 4
                for (int i = 0; i < ROWS; i++) {
                    __m512bh pair = Pairs::get_pair(weights + i * CHUNK + k);
                    low[i][w] = Pairs::add(low[i][w], lows, pair);
                    high[i][w] = Pairs::add(high[i][w], highs, pair);
                }
            }
        }
        for (int i = 0; i < ROWS; i++)
            for (int w = 0; w < WORDS; w++) add_in_order(out + i * width + w * WORD, low[i][w], high[i][w]);
    }

    static void add_in_order(float* out, Vec low, Vec high) {
        constexpr IVec FIRST = {0, 1, 2, 3, 16, 17, 18, 19, 4, 5, 6, 7, 20, 21, 22, 23};
        constexpr IVec SECOND = FIRST + 8;
        store(out, load(out) + __builtin_shuffle(low, high, FIRST));
        store(out + LANES, load(out + LANES) + __builtin_shuffle(low, high, SECOND));
    }
};

}  // namespace

#endif
