// A chunk's products on vectors of fp32, to which other dtypes are widened.
#pragma once

#include <vector>

#include "attention_sums.h"
#include "attention_task.h"
#include "groups.h"
#include "vec.h"

namespace {

constexpr int64_t KEY_VECS = 2;  // vectors of keys at once: few rows' sums would wait for themselves
static_assert(WHOLE % (KEY_VECS * LANES) == 0, "else keys would not be padded");
constexpr int STRIP = REGISTERS / 8;  // vectors of a value that are summed at once, for four rows

template <class T>
class VectorProducts {
public:
    typedef float Weight;

    struct Buffers {
        std::vector<float> queries;     // [heads, rows, key_dim]
        std::vector<float> transposed;  // [KEY_VECS, depth, LANES]
    };

    VectorProducts(Operands<T>& of, Buffers& buffers)
        : of(of), queries(buffers.queries), transposed(buffers.transposed) {}

    void start_task() {
        key_dim = of.rows.args->key_dim, value_dim = of.rows.args->value_dim;
        depth = round_up(key_dim, LANES);
        transposed.resize(KEY_VECS * depth * LANES);
        queries.resize(of.num_heads() * of.rows.count * key_dim);
        of.rows.template copy_queries<T>(queries.data(), key_dim, [](T x) { return to_float(x); });
    }

    int64_t num_score_asks() const { return of.num_heads() * round_up(of.num_keys(), KEY_VECS * LANES); }
    int64_t num_value_asks() const { return of.num_heads() * of.num_keys(); }

    // Queries with keys, to `[heads, rows, SPAN]`. Keys are transposed, so that each score is summed in
    // the order of its elements, with however many rows it is computed.
    void score(float* scores) {
        const float* rows = queries.data();
        for (head = 0; head < of.num_heads(); head++) {
            for (int64_t k = 0; k < of.num_keys(); k += KEY_VECS * LANES) {
                transpose_keys(k);
                in_groups<8, 4, 3, 2, 1>(of.rows.count, [&](auto size, int64_t row) {
                    score_rows<size>(rows + row * key_dim, scores + row * SPAN + k);
                });
            }
            rows += of.rows.count * key_dim, scores += of.rows.padded() * SPAN;
        }
    }

    // Values times weights `[heads, rows, SPAN]` to `[heads, rows, width]`.
    void add_values(const Weight* weights, float* out, int64_t width) {
        const int64_t padded = of.rows.padded();
        for (head = 0; head < of.num_heads(); head++)
            add_head(weights + head * padded * SPAN, out + head * padded * width, width);
    }

    static void end_span(Sums&) {}

private:
    Operands<T>& of;
    int64_t key_dim = 0, value_dim = 0, depth = 0;
    int64_t head = 0;  // the current one
    std::vector<float>&queries, &transposed;

    // KEY_VECS vectors of keys from the `first` on as [KEY_VECS, depth, LANES] in fp32.
    void transpose_keys(int64_t first) {
        float* to = transposed.data();
        for (int64_t v = 0; v < KEY_VECS; v++)
            for (int64_t d = 0; d < key_dim; d += LANES, to += LANES * LANES) {
                const int64_t left = key_dim - d;
                Vec elements[LANES];
                of.get_transposed(elements, head, first + v * LANES, d == 0, [&](const T* key) {
                    return left < LANES ? load_part(key + d, left) : load(key + d);
                });
                for (int64_t i = 0; i < LANES; i++) store(to + i * LANES, elements[i]);
            }
    }

    // With all of these keys, or as many at once as there are registers for.
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
            for (int64_t row = 0; row < of.rows.count; row++) {
                float& sum = out[row * width + d];
                for (int64_t k = 0; k < of.num_keys(); k++)
                    sum = multiply_add(sum, weights[row * SPAN + k], to_float(of.get(head, k)[d]));
            }
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
        weights += row * SPAN, out += row * width;
        const bool asks = row == 0 && d == 0;
        for (int i = 0; i < ROWS; i++)
            for (int v = 0; v < VECS; v++) sums[i][v] = load(out + i * width + v * LANES);
        for (int64_t k = 0; k < of.num_keys(); k++) {
            Vec value[VECS];
            if (asks) of.next.ask();
            for (int v = 0; v < VECS; v++) value[v] = load(of.get(head, k) + d + v * LANES);
            for (int i = 0; i < ROWS; i++)
                for (int v = 0; v < VECS; v++)
                    sums[i][v] = multiply_add(sums[i][v], splat(weights[i * SPAN + k]), value[v]);
        }
        for (int i = 0; i < ROWS; i++)
            for (int v = 0; v < VECS; v++) store(out + i * width + v * LANES, sums[i][v]);
    }
};

}  // namespace
