// Products of one chunk on fp32 vectors. Other dtypes are widened to fp32.
#pragma once

#include <vector>

#include "sums.h"
#include "task.h"
#include "../simd/row_groups.h"
#include "../simd/vec.h"

namespace {

constexpr int64_t KEY_VECS = 2;  // vectors of keys at once; with one, few rows wait for the add latency
static_assert(PADDING % (KEY_VECS * LANES) == 0, "padding must cover the keys of one pass");
constexpr int STRIP = REGISTERS / 8;  // vectors of a value that are summed at once, for four rows

template <class T>
class VectorProducts {
public:
    typedef float Weight;

    struct Buffers {
        std::vector<float> queries;     // [heads, rows, key_dim]
        std::vector<float> transposed;  // [KEY_VECS, depth, LANES]
    };

    VectorProducts(Operands<T>& ops, Buffers& buffers)
        : ops(ops), queries(buffers.queries), transposed(buffers.transposed) {}

    void start_task() {
        key_dim = ops.rows.args->key_dim, value_dim = ops.rows.args->value_dim;
        depth = round_up(key_dim, LANES);
        transposed.resize(KEY_VECS * depth * LANES);
        queries.resize(ops.num_heads() * ops.rows.count * key_dim);
        ops.rows.template copy_queries<T>(queries.data(), key_dim, [](T x) { return to_float(x); });
    }

    int64_t num_score_advances() const { return ops.num_heads() * round_up(ops.num_keys(), KEY_VECS * LANES); }
    int64_t num_value_advances() const { return ops.num_heads() * ops.num_keys(); }

    // scores[h, r, k] = q[h, r] . key[h, k]; scores are `[heads, rows, SPAN]`. Keys are transposed, so
    // that a score is summed in the order of its elements for any number of rows.
    void score(float* scores) {
        const float* rows = queries.data();
        for (head = 0; head < ops.num_heads(); head++) {
            for (int64_t k = 0; k < ops.num_keys(); k += KEY_VECS * LANES) {
                transpose_keys(k);
                in_groups<8, 4, 3, 2, 1>(ops.rows.count, [&](auto size, int64_t row) {
                    score_rows<size>(rows + row * key_dim, scores + row * SPAN + k);
                });
            }
            rows += ops.rows.count * key_dim, scores += ops.rows.padded() * SPAN;
        }
    }

    // out[h, r] += sum_k weights[h, r, k] * value[h, k]; weights are `[heads, rows, SPAN]`, out is
    // `[heads, rows, width]`.
    void add_values(const Weight* weights, float* out, int64_t width) {
        const int64_t padded = ops.rows.padded();
        for (head = 0; head < ops.num_heads(); head++)
            add_head(weights + head * padded * SPAN, out + head * padded * width, width);
    }

    static void end_span(Sums&) {}

private:
    Operands<T>& ops;
    int64_t key_dim = 0, value_dim = 0, depth = 0;
    int64_t head = 0;  // the current key head
    std::vector<float>&queries, &transposed;

    // Transposes KEY_VECS * LANES keys from the `first` on to [KEY_VECS, depth, LANES] in fp32.
    void transpose_keys(int64_t first) {
        float* to = transposed.data();
        for (int64_t v = 0; v < KEY_VECS; v++)
            for (int64_t d = 0; d < key_dim; d += LANES, to += LANES * LANES) {
                const int64_t left = key_dim - d;
                Vec elements[LANES];
                ops.get_transposed(elements, head, first + v * LANES, d == 0, [&](const T* key) {
                    return left < LANES ? load_part(key + d, left) : load(key + d);
                });
                for (int64_t i = 0; i < LANES; i++) store(to + i * LANES, elements[i]);
            }
    }

    // Scores of ROWS rows with the transposed keys, as many vectors at once as fit in registers.
    template <int ROWS>
    void score_rows(const float* rows, float* scores) {
        constexpr int AT_ONCE = ROWS * KEY_VECS < REGISTERS - 4 ? KEY_VECS : 1;
        for (int64_t first = 0; first < KEY_VECS; first += AT_ONCE) {
            const float* keys = &transposed[first * depth * LANES];
            Vec sums[ROWS][AT_ONCE] = {};
            for (int64_t d = 0; d < key_dim; d++, keys += LANES)
                for (int v = 0; v < AT_ONCE; v++) {
                    Vec elements = load(keys + v * depth * LANES);
                    for (int i = 0; i < ROWS; i++)
                        sums[i][v] = multiply_add(sums[i][v], splat(rows[i * key_dim + d]), elements);
                }
            for (int i = 0; i < ROWS; i++)
                for (int v = 0; v < AT_ONCE; v++)
                    store(scores + i * SPAN + (first + v) * LANES, sums[i][v]);
        }
    }

    void add_head(const float* weights, float* out, int64_t width) {
        int64_t d = 0;
        for (; d + STRIP * LANES <= value_dim; d += STRIP * LANES)
            add_strip<STRIP>(weights, out + d, width, d);
        for (; d + LANES <= value_dim; d += LANES) add_strip<1>(weights, out + d, width, d);
        for (; d < value_dim; d++)
            for (int64_t row = 0; row < ops.rows.count; row++) {
                float& sum = out[row * width + d];
                for (int64_t k = 0; k < ops.num_keys(); k++)
                    sum = multiply_add(sum, weights[row * SPAN + k], to_float(ops.get(head, k)[d]));
            }
    }

    template <int VECS>
    void add_strip(const float* weights, float* out, int64_t width, int64_t d) {
        in_groups<4, 3, 1>(ops.rows.count, [&](auto size, int64_t row) {
            add_rows<size, VECS>(weights, out, width, d, row);
        });
    }

    template <int ROWS, int VECS>
    void add_rows(const float* weights, float* out, int64_t width, int64_t d, int64_t row) {
        Vec sums[ROWS][VECS];
        weights += row * SPAN, out += row * width;
        const bool prefetches = row == 0 && d == 0;
        for (int i = 0; i < ROWS; i++)
            for (int v = 0; v < VECS; v++) sums[i][v] = load(out + i * width + v * LANES);
        for (int64_t k = 0; k < ops.num_keys(); k++) {
            Vec value[VECS];
            if (prefetches) ops.prefetcher.advance();
            for (int v = 0; v < VECS; v++) value[v] = load(ops.get(head, k) + d + v * LANES);
            for (int i = 0; i < ROWS; i++)
                for (int v = 0; v < VECS; v++)
                    sums[i][v] = multiply_add(sums[i][v], splat(weights[i * SPAN + k]), value[v]);
        }
        for (int i = 0; i < ROWS; i++)
            for (int v = 0; v < VECS; v++) store(out + i * width + v * LANES, sums[i][v]);
    }
};

}  // namespace
