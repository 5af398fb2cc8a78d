// A chunk's products on vectors of pairs of bfloat16, with weights in bfloat16.
#pragma once

#include "attention_sums.h"
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
        std::vector<bf16> queries;      // [heads, rows, depth]; for few rows each part of it twice
        std::vector<float> transposed;  // [depth / 2, LANES], pairs
    };

    PairProducts(Operands<bf16>& of, Buffers& buffers)
        : of(of), queries(buffers.queries), transposed(buffers.transposed) {}

    // Few rows read keys where they lie, many rows have them transposed. Either way a score is put
    // together by `tree` from the sums of every NUM_SUMS-th pair, and so has the same bits.
    void start_task() {
        is_few = of.rows.task.is_few;
        key_dim = of.rows.args->key_dim, value_dim = of.rows.args->value_dim;
        depth = round_up(key_dim, PART);
        transposed.resize(round_up(key_dim, WORD) / 2 * LANES);
        queries.resize(of.num_heads() * of.rows.count * depth);
        of.rows.copy_queries<bf16>(queries.data(), depth, [](bf16 x) { return x; });
        if (is_few) twice(queries);
    }

    int64_t num_score_asks() const { return of.num_heads() * round_up(of.num_keys(), LANES); }
    int64_t num_value_asks() const { return of.num_heads() * round_up(of.num_keys(), 2) / 2; }

    // Queries with keys, to `[heads, rows, SPAN]`.
    void score(float* scores) {
        const bf16* rows = queries.data();
        const int64_t padded = of.rows.padded(), count = of.rows.count;
        for (head = 0; head < of.num_heads(); head++) {
            for (int64_t k = 0; k < of.num_keys(); k += LANES)
                is_few ? score_in_place(rows, k, scores + k) : score_transposed(rows, k, scores + k);
            rows += count * (is_few ? 2 : 1) * depth, scores += padded * SPAN;
        }
    }

    // Values times weights `[heads, rows, SPAN]` to `[heads, rows, width]`, in the order of `low` and
    // `high` until the span ends.
    void add_values(const Weight* weights, float* out, int64_t width) {
        const int64_t padded = of.rows.padded();
        for (head = 0; head < of.num_heads(); head++) {
            int64_t d = 0;
            for (; d + 2 * WORD <= value_dim; d += 2 * WORD) add_words<2>(weights, out, width, d);
            for (; d < value_dim; d += WORD) add_words<1>(weights, out, width, d);
            weights += padded * SPAN, out += padded * width;
        }
    }

    // Puts sums of values in order.
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
    static constexpr int64_t WORD = Pairs::WIDTH;  // elements of a vector
    static constexpr int64_t PART = WORD / 2;      // elements of a key in a vector of two keys'
    static constexpr int NUM_SUMS = (int)PART / 2;  // of a score

    Operands<bf16>& of;
    bool is_few = false;
    int64_t key_dim = 0, value_dim = 0, depth = 0;
    int64_t head = 0;  // the current one
    std::vector<bf16>& queries;
    std::vector<float>& transposed;

    // Of each row, whose lanes are still to be summed.
    template <int ROWS>
    struct Products {
        Vec of_row[ROWS] = {};
    };

    // The i-th of NUM_SUMS sums and those behind it in steps of S, put together. Doing so as they come
    // leaves few to be kept.
    template <int S, int ROWS, class Multiply, class Join>
    ALWAYS_INLINE static Products<ROWS> tree(int64_t i, const Multiply& multiply, const Join& join) {
        if constexpr (S == NUM_SUMS) {
            return multiply(i);
        } else {
            Products<ROWS> a = tree<2 * S, ROWS>(i, multiply, join);
            Products<ROWS> b = tree<2 * S, ROWS>(i + S, multiply, join);
            constexpr std::integral_constant<int, S> STEP;
            for (int r = 0; r < ROWS; r++) a.of_row[r] = join(STEP, a.of_row[r], b.of_row[r]);
            return a;
        }
    }

    // Each part behind itself: one for each of a vector's two keys.
    static void twice(std::vector<bf16>& parts) {
        parts.resize(2 * parts.size());
        for (int64_t from = (int64_t)parts.size() / 2 - PART; from >= 0; from -= PART)
            for (bf16* to : {&parts[2 * from + PART], &parts[2 * from]})
                std::memmove(to, &parts[from], PART * sizeof(bf16));
    }

    // Parts of two keys, from their `first` elements on.
    static __m512bh parts_of(const bf16* low, const bf16* high, int64_t first, int64_t size) {
        int64_t left = size - first;
        __mmask16 mask = left < PART ? (1u << left) - 1 : 0xffff;
        __m512i one = _mm512_castsi256_si512(_mm256_maskz_loadu_epi16(mask, low + first));
        return (__m512bh)_mm512_inserti64x4(one, _mm256_maskz_loadu_epi16(mask, high + first), 1);
    }

    // The cache is read once and scattered, so that only asking ahead keeps memory busy. Two keys lie
    // in a vector, as folding their sums takes half as long.
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

    template <int WORDS, int ROWS>
    void score_some(const bf16* rows, int64_t k, float* scores, int64_t row) {
        rows += row * 2 * depth, scores += row * SPAN;
        const bool asks = row == 0;
        auto multiply = [&](int64_t i) ALWAYS_INLINE {
            const bf16 *low = of.get(head, k + i), *high = of.get(head, k + NUM_SUMS + i);
            const int64_t size = WORDS ? WORDS * WORD : key_dim;
            Products<ROWS> products;
            for (int64_t d = 0; d < size; d += PART) {
                const __m512bh keys = parts_of(low, high, d, size);
                for (int r = 0; r < ROWS; r++)
                    products.of_row[r] =
                        Pairs::add(products.of_row[r], Pairs::get(rows + 2 * (r * depth + d)), keys);
            }
            if (asks) of.next.ask(), of.next.ask();
            return products;
        };
        auto join = [](auto step, Vec a, Vec b) ALWAYS_INLINE { return folded<step>(a, b); };
        Products<ROWS> sums = tree<1, ROWS>(0, multiply, join);
        for (int r = 0; r < ROWS; r++) store(scores + r * SPAN, sums.of_row[r]);
    }

    void score_transposed(const bf16* rows, int64_t k, float* scores) {
        transpose_keys(k);
        in_groups<4, 1>(of.rows.count, [&](auto size, int64_t row) {
            score_rows<size>(rows + row * depth, scores + row * SPAN);
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
        auto multiply = [&](int64_t i) ALWAYS_INLINE {
            Products<ROWS> products;
            for (int64_t d = 2 * i; d < depth; d += PART) {
                const __m512bh keys = (__m512bh)load(&transposed[d / 2 * LANES]);
                for (int r = 0; r < ROWS; r++)
                    products.of_row[r] =
                        Pairs::add(products.of_row[r], Pairs::get_pair(rows + r * depth + d), keys);
            }
            return products;
        };
        auto join = [](auto, Vec a, Vec b) ALWAYS_INLINE { return a + b; };
        Products<ROWS> sums = tree<1, ROWS>(0, multiply, join);
        for (int r = 0; r < ROWS; r++) store(scores + r * SPAN, sums.of_row[r]);
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
        Vec low[ROWS][WORDS], high[ROWS][WORDS];
        weights += row * SPAN, out += row * width + d;
        for (int i = 0; i < ROWS; i++)
            for (int w = 0; w < WORDS; w++) {
                low[i][w] = load(out + i * width + w * WORD);
                high[i][w] = load(out + i * width + w * WORD + LANES);
            }
        const bool asks = row == 0 && d == 0;
        const int64_t num_keys = of.num_keys();
        for (int64_t k = 0; k < num_keys; k += 2) {
            if (asks) of.next.ask();
            const bf16 *even = of.get(head, k), *odd = of.get(head, k + 1);
#pragma GCC unroll 2
            for (int w = 0; w < WORDS; w++) {
                // Two words are within a value, one may be its end.
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
