// Products of one chunk with AVX512_BF16: vectors of bfloat16 pairs, weights in bfloat16.
#pragma once

#include "sums.h"
#include "task.h"
#include "../simd/row_groups.h"
#include "../simd/vec.h"

#if defined(__AVX512BF16__)

#include <vector>

#define ALWAYS_INLINE __attribute__((always_inline))

namespace {

// One instruction multiplies pairs: two neighbouring elements of a key for scores, and elements of
// two neighbouring values for outputs.
class PairProducts {
public:
    typedef bf16 Weight;

    struct Buffers {
        std::vector<bf16> queries;      // [heads, rows, depth]; for few rows each part is stored twice
        std::vector<float> transposed;  // [depth / 2, LANES], pairs
    };

    PairProducts(Operands<bf16>& ops, Buffers& buffers)
        : ops(ops), queries(buffers.queries), transposed(buffers.transposed) {}

    // Few rows read keys in place. Many rows read transposed keys. Both add up a score by `tree` from
    // the sums over every NUM_SUMS-th pair, so the score has the same bits either way.
    void start_task() {
        is_few = ops.rows.task.is_few;
        key_dim = ops.rows.args->key_dim, value_dim = ops.rows.args->value_dim;
        depth = round_up(key_dim, PART);
        transposed.resize(round_up(key_dim, WORD) / 2 * LANES);
        queries.resize(ops.num_heads() * ops.rows.count * depth);
        ops.rows.copy_queries<bf16>(queries.data(), depth, [](bf16 x) { return x; });
        if (is_few) repeat_parts(queries);
    }

    int64_t num_score_advances() const { return ops.num_heads() * round_up(ops.num_keys(), LANES); }
    int64_t num_value_advances() const { return ops.num_heads() * round_up(ops.num_keys(), 2) / 2; }

    // scores[h, r, k] = q[h, r] . key[h, k]; scores are `[heads, rows, SPAN]`.
    void score(float* scores) {
        const bf16* rows = queries.data();
        const int64_t padded = ops.rows.padded(), count = ops.rows.count;
        for (head = 0; head < ops.num_heads(); head++) {
            for (int64_t k = 0; k < ops.num_keys(); k += LANES)
                is_few ? score_in_place(rows, k, scores + k) : score_transposed(rows, k, scores + k);
            rows += count * (is_few ? 2 : 1) * depth, scores += padded * SPAN;
        }
    }

    // out[h, r] += sum_k weights[h, r, k] * value[h, k]; weights are `[heads, rows, SPAN]`, out is
    // `[heads, rows, width]`. Within each word of `out`, columns are in the order of the `low` and
    // `high` vectors of add_rows until end_span restores theirs.
    void add_values(const Weight* weights, float* out, int64_t width) {
        const int64_t padded = ops.rows.padded();
        for (head = 0; head < ops.num_heads(); head++) {
            int64_t d = 0;
            for (; d + 2 * WORD <= value_dim; d += 2 * WORD) add_words<2>(weights, out, width, d);
            for (; d < value_dim; d += WORD) add_words<1>(weights, out, width, d);
            weights += padded * SPAN, out += padded * width;
        }
    }

    // Restores the column order of each word of `sums.out`.
    static void end_span(Sums& sums) {
        constexpr IVec FIRST = {0, 1, 2, 3, 16, 17, 18, 19, 4, 5, 6, 7, 20, 21, 22, 23};
        constexpr IVec SECOND = FIRST + 8;
        for (float* word = sums.out; word < sums.highest; word += WORD) {
            Vec low = load(word), high = load(word + LANES);
            store(word, __builtin_shuffle(low, high, FIRST));
            store(word + LANES, __builtin_shuffle(low, high, SECOND));
        }
    }

private:
    using Pairs = Dot<bf16>;
    static constexpr int64_t WORD = Pairs::WIDTH;  // elements in a vector
    static constexpr int64_t PART = WORD / 2;      // elements of one key in a vector that holds two keys
    static constexpr int NUM_SUMS = (int)PART / 2;  // partial sums of a score

    Operands<bf16>& ops;
    bool is_few = false;
    int64_t key_dim = 0, value_dim = 0, depth = 0;
    int64_t head = 0;  // the current key head
    std::vector<bf16>& queries;
    std::vector<float>& transposed;

    // One vector of partial sums for each row.
    template <int ROWS>
    struct RowSums {
        Vec row[ROWS] = {};
    };

    // Joins the sums i, i + S, i + 2 S, ... of NUM_SUMS. Recursion joins each pair as soon as both
    // exist, which keeps few sums in registers.
    template <int S, int ROWS, class Multiply, class Join>
    ALWAYS_INLINE static RowSums<ROWS> tree(int64_t i, const Multiply& multiply, const Join& join) {
        if constexpr (S == NUM_SUMS) {
            return multiply(i);
        } else {
            RowSums<ROWS> a = tree<2 * S, ROWS>(i, multiply, join);
            RowSums<ROWS> b = tree<2 * S, ROWS>(i + S, multiply, join);
            constexpr std::integral_constant<int, S> STEP;
            for (int r = 0; r < ROWS; r++) a.row[r] = join(STEP, a.row[r], b.row[r]);
            return a;
        }
    }

    // Stores each part twice in a row, once for each of the two keys in a vector.
    static void repeat_parts(std::vector<bf16>& parts) {
        parts.resize(2 * parts.size());
        for (int64_t from = (int64_t)parts.size() / 2 - PART; from >= 0; from -= PART)
            for (bf16* to : {&parts[2 * from + PART], &parts[2 * from]})
                std::memmove(to, &parts[from], PART * sizeof(bf16));
    }

    // A vector of PART elements of `low` and PART of `high`, from element `first` on, zero-padded.
    static __m512bh parts_of(const bf16* low, const bf16* high, int64_t first, int64_t size) {
        int64_t left = size - first;
        __mmask16 mask = left < PART ? (1u << left) - 1 : 0xffff;
        __m512i one = _mm512_castsi256_si512(_mm256_maskz_loadu_epi16(mask, low + first));
        return (__m512bh)_mm512_inserti64x4(one, _mm256_maskz_loadu_epi16(mask, high + first), 1);
    }

    // The cache's rows are scattered and read once, so only explicit prefetching keeps memory busy.
    // Two keys share a vector because folding their sums takes half as long.
    void score_in_place(const bf16* rows, int64_t k, float* scores) {
        switch (key_dim) {
            case 2 * WORD: return score_rows_in_place<2>(rows, k, scores);
            case 4 * WORD: return score_rows_in_place<4>(rows, k, scores);
            default: return score_rows_in_place<0>(rows, k, scores);
        }
    }

    // Scores of LANES keys from the k-th on. WORDS is the key's length, or 0 if it is not a constant.
    template <int WORDS>
    void score_rows_in_place(const bf16* rows, int64_t k, float* scores) {
        in_groups<3, 1>(ops.rows.count, [&](auto size, int64_t row) {
            score_some<WORDS, size>(rows, k, scores, row);
        });
    }

    template <int WORDS, int ROWS>
    void score_some(const bf16* rows, int64_t k, float* scores, int64_t row) {
        rows += row * 2 * depth, scores += row * SPAN;
        const bool prefetches = row == 0;
        auto multiply = [&](int64_t i) ALWAYS_INLINE {
            const bf16 *low = ops.get(head, k + i), *high = ops.get(head, k + NUM_SUMS + i);
            const int64_t size = WORDS ? WORDS * WORD : key_dim;
            RowSums<ROWS> products;
            for (int64_t d = 0; d < size; d += PART) {
                const __m512bh keys = parts_of(low, high, d, size);
                for (int r = 0; r < ROWS; r++)
                    products.row[r] =
                        Pairs::add(products.row[r], Pairs::get(rows + 2 * (r * depth + d)), keys);
            }
            if (prefetches) ops.prefetcher.advance(), ops.prefetcher.advance();
            return products;
        };
        auto join = [](auto step, Vec a, Vec b) ALWAYS_INLINE { return fold<step>(a, b); };
        RowSums<ROWS> sums = tree<1, ROWS>(0, multiply, join);
        for (int r = 0; r < ROWS; r++) store(scores + r * SPAN, sums.row[r]);
    }

    void score_transposed(const bf16* rows, int64_t k, float* scores) {
        transpose_keys(k);
        in_groups<4, 1>(ops.rows.count, [&](auto size, int64_t row) {
            score_rows<size>(rows + row * depth, scores + row * SPAN);
        });
    }

    // Transposes LANES keys from the k-th on to [depth / 2, LANES] pairs.
    void transpose_keys(int64_t k) {
        for (int64_t d = 0; d < key_dim; d += WORD) {
            Vec pairs[LANES];
            ops.get_transposed(pairs, head, k, d == 0, [&](const bf16* key) {
                return (Vec)Pairs::get_of(key, d, key_dim);
            });
            for (int64_t i = 0; i < LANES; i++) store(&transposed[(d / 2 + i) * LANES], pairs[i]);
        }
    }

    template <int ROWS>
    void score_rows(const bf16* rows, float* scores) {
        auto multiply = [&](int64_t i) ALWAYS_INLINE {
            RowSums<ROWS> products;
            for (int64_t d = 2 * i; d < depth; d += PART) {
                const __m512bh keys = (__m512bh)load(&transposed[d / 2 * LANES]);
                for (int r = 0; r < ROWS; r++)
                    products.row[r] =
                        Pairs::add(products.row[r], Pairs::get_pair(rows + r * depth + d), keys);
            }
            return products;
        };
        auto join = [](auto, Vec a, Vec b) ALWAYS_INLINE { return a + b; };
        RowSums<ROWS> sums = tree<1, ROWS>(0, multiply, join);
        for (int r = 0; r < ROWS; r++) store(scores + r * SPAN, sums.row[r]);
    }

    template <int WORDS>
    void add_words(const bf16* weights, float* out, int64_t width, int64_t d) {
        in_groups<4, 3, 1>(ops.rows.count, [&](auto size, int64_t row) {
            add_rows<size, WORDS>(weights, out, width, d, row);
        });
    }

    // Two keys' values are interleaved by the unpack instructions, which alternate between four
    // elements for `low` and four for `high`.
    template <int ROWS, int WORDS>
    void add_rows(const bf16* weights, float* out, int64_t width, int64_t d, int64_t row) {
        Vec low[ROWS][WORDS], high[ROWS][WORDS];
        weights += row * SPAN, out += row * width + d;
        for (int i = 0; i < ROWS; i++)
            for (int w = 0; w < WORDS; w++) {
                low[i][w] = load(out + i * width + w * WORD);
                high[i][w] = load(out + i * width + w * WORD + LANES);
            }
        const bool prefetches = row == 0 && d == 0;
        const int64_t num_keys = ops.num_keys();
        for (int64_t k = 0; k < num_keys; k += 2) {
            if (prefetches) ops.prefetcher.advance();
            const bf16 *even = ops.get(head, k), *odd = ops.get(head, k + 1);
#pragma GCC unroll 2
            for (int w = 0; w < WORDS; w++) {
                // Two words always fit in a value. A single word may reach past its end.
                const int64_t from = d + w * WORD, end = WORDS == 2 ? from + WORD : value_dim;
                __m512i a = (__m512i)Pairs::get_of(even, from, end), b = (__m512i)Pairs::get_of(odd, from, end);
                __m512bh lows = (__m512bh)_mm512_unpacklo_epi16(a, b);
                __m512bh highs = (__m512bh)_mm512_unpackhi_epi16(a, b);
#pragma GCC unroll 4
                for (int i = 0; i < ROWS; i++) {
                    __m512bh pair = Pairs::get_pair(weights + i * SPAN + k);
                    low[i][w] = Pairs::add(low[i][w], lows, pair);
                    high[i][w] = Pairs::add(high[i][w], highs, pair);
                }
            }
        }
        for (int i = 0; i < ROWS; i++)
            for (int w = 0; w < WORDS; w++) {
                store(out + i * width + w * WORD, low[i][w]);
                store(out + i * width + w * WORD + LANES, high[i][w]);
            }
    }
};

}  // namespace

#endif
