// A chunk's products on vectors of fp32, to which other dtypes are widened.
#pragma once

#include <vector>

#include "attention_task.h"
#include "groups.h"
#include "vec.h"

namespace {

constexpr int STRIP = REGISTERS / 8;  // vectors of a value that are summed at once, for four rows

template <class T>
class VectorProducts {
public:
    typedef float Weight;

    struct Buffers {
        std::vector<float> queries, transposed;
    };

    VectorProducts(Operands<T>& of, Buffers& buffers)
        : of(of), queries(buffers.queries), transposed(buffers.transposed) {}

    // Few rows read keys where they lie, many rows have them transposed.
    void start_task() {
        is_few = of.rows.task.is_few;
        key_dim = of.rows.args->key_dim, value_dim = of.rows.args->value_dim;
        queries.resize(of.rows.count * key_dim);
        transposed.resize(LANES * (key_dim + LANES));
    }

    int64_t num_asks() const {
        return of.rows.task.num_heads * of.num_keys() * (is_few ? 1 + of.rows.count : 2);
    }

    // Queries with keys, `[heads, rows, CHUNK]`.
    void score(float* scores) {
        for (head = 0; head < of.rows.task.num_heads; head++, scores += of.rows.padded() * CHUNK) {
            load_queries();
            for (int64_t k = 0; k < of.num_keys(); k += LANES)
                is_few ? score_in_place(k, scores + k) : score_transposed(k, scores + k);
        }
    }

    // Values times weights `[heads, rows, CHUNK]` to `[heads, rows, width]`.
    void add_values(const Weight* weights, float* out, int64_t width) {
        const int64_t padded = of.rows.padded();
        for (head = 0; head < of.rows.task.num_heads; head++)
            add_head(weights + head * padded * CHUNK, out + head * padded * width, width);
    }

private:
    Operands<T>& of;
    bool is_few = false;
    int64_t key_dim = 0, value_dim = 0;
    int64_t head = 0;  // the current one
    std::vector<float>&queries, &transposed;
    Vec products[FEW_ROWS][LANES];

    const T* query_of(int64_t row) const { return of.rows.template query<T>(head, row); }

    void load_queries() {
        for (int64_t row = 0; row < of.rows.count; row++)
            for (int64_t d = 0; d < key_dim; d++)
                queries[row * key_dim + d] = to_float(query_of(row)[d]);
    }

    // LANES keys from the k-th on with all rows' queries, as each key is widened once for all of
    // them. The cache is read once and scattered, so that only asking ahead keeps memory busy.
    void score_in_place(int64_t k, float* scores) {
        constexpr int WORDS = 64 / LANES;
        std::fill_n(products[0], FEW_ROWS * LANES, Vec{});
        int64_t d = 0;
        for (; d + WORDS * LANES <= key_dim; d += WORDS * LANES) add_products<WORDS>(k, d);
        for (; d < key_dim; d += LANES) add_products<1>(k, d);
        for (int64_t row = 0; row < of.rows.count; row++)
            store(scores + row * CHUNK, sums(products[row]));
    }

    template <int WORDS>
    void add_products(int64_t k, int64_t d) {
        int64_t left = key_dim - d;
        for (int64_t i = 0; i < LANES; i++) {
            const T* from = of.key(head, k + i) + d;
            Vec key[WORDS];
            for (int w = 0; w < WORDS; w++)
                key[w] = left < LANES ? load_part(from, left) : load(from + w * LANES);
            for (int64_t row = 0; row < of.rows.count; row++) {
                const float* query = &queries[row * key_dim + d];
                Vec product = products[row][i];
                for (int w = 0; w < WORDS; w++)
                    product += key[w] * (left < LANES ? load_part(query, left) : load(query + w * LANES));
                products[row][i] = product;
                if (d == 0) of.next.ask();
            }
        }
    }

    void score_transposed(int64_t k, float* scores) {
        transpose_keys(k);
        in_groups<8, 1>(of.rows.count, [&](auto size, int64_t row) { score_rows<size>(row, scores); });
    }

    // LANES keys from the k-th on as [key_dim, LANES] in fp32.
    void transpose_keys(int64_t k) {
        for (int64_t d = 0; d < key_dim; d += LANES) {
            int64_t num_dims = std::min(LANES, key_dim - d);
            Vec v[LANES];
            of.get_transposed(v, head, k, d == 0, [&](const T* key) {
                return num_dims == LANES ? load(key + d) : load_part(key + d, num_dims);
            });
            for (int64_t i = 0; i < LANES; i++) store(&transposed[(d + i) * LANES], v[i]);
        }
    }

    template <int ROWS>
    void score_rows(int64_t row, float* scores) {
        const float* query = &queries[row * key_dim];
        Vec sums[ROWS] = {};
        for (int64_t d = 0; d < key_dim; d++) {
            Vec keys = load(&transposed[d * LANES]);
            for (int i = 0; i < ROWS; i++) sums[i] += query[i * key_dim + d] * keys;
        }
        for (int i = 0; i < ROWS; i++) store(scores + (row + i) * CHUNK, sums[i]);
    }

    void add_head(const float* weights, float* out, int64_t width) {
        int64_t d = 0;
        for (; d + STRIP * LANES <= value_dim; d += STRIP * LANES)
            add_strip<STRIP>(weights, out + d, width, d);
        for (; d + LANES <= value_dim; d += LANES) add_strip<1>(weights, out + d, width, d);
        for (; d < value_dim; d++)
            for (int64_t row = 0; row < of.rows.count; row++)
                for (int64_t k = 0; k < of.num_keys(); k++)
                    out[row * width + d] += weights[row * CHUNK + k] * to_float(of.value(head, k)[d]);
    }

    template <int VECS>
    void add_strip(const float* weights, float* out, int64_t width, int64_t d) {
        in_groups<4, 3, 1>(of.rows.count, [&](auto size, int64_t row) {
            add_rows<size, VECS>(weights, out, width, d, row);
        });
    }

    template <int ROWS, int VECS>
    void add_rows(const float* weights, float* out, int64_t width, int64_t d, int64_t row) {
        Vec sums[ROWS][VECS];
        weights += row * CHUNK, out += row * width;
        const bool asks = row == 0 && d == 0;
        for (int i = 0; i < ROWS; i++)
            for (int v = 0; v < VECS; v++) sums[i][v] = load(out + i * width + v * LANES);
        for (int64_t k = 0; k < of.num_keys(); k++) {
            Vec value[VECS];
            if (asks) of.next.ask();
            for (int v = 0; v < VECS; v++) value[v] = load(of.value(head, k) + d + v * LANES);
            for (int i = 0; i < ROWS; i++)
                for (int v = 0; v < VECS; v++) sums[i][v] += weights[i * CHUNK + k] * value[v];
        }
        for (int i = 0; i < ROWS; i++)
            for (int v = 0; v < VECS; v++) store(out + i * width + v * LANES, sums[i][v]);
    }
};

}  // namespace
