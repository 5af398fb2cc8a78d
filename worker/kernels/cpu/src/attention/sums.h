// Partial softmax sums of query rows over some keys.
#pragma once

#include <cmath>
#include <limits>
#include <vector>

#include "task.h"
#include "../simd/vec.h"

namespace {

constexpr float NO_SCORE = -std::numeric_limits<float>::infinity();

// Sums over some keys of exp(score - highest) and of exp(score - highest) * value, for each row.
struct Sums {
    int64_t rows = 0, width = 0;
    float* out = nullptr;      // [rows, width]: sum of weight * value
    float* highest = nullptr;  // [rows]: highest score; NO_SCORE if the row has seen no key
    float* total = nullptr;    // [rows]: sum of weights

    static int64_t size(int64_t rows, int64_t width) { return rows * (width + 2); }

    Sums() = default;
    Sums(float* memory, int64_t rows, int64_t width)
        : rows(rows), width(width), out(memory), highest(memory + rows * width), total(highest + rows) {}

    void clear() {
        std::fill(out, highest, 0.0f);
        std::fill(highest, total, NO_SCORE);
        std::fill(total, total + rows, 0.0f);
    }

    // Rescales a row's sums to `score`, which is at least as high as the row's highest.
    void raise(int64_t row, float score) {
        if (score == highest[row]) return;
        float factor = std::exp(highest[row] - score);
        highest[row] = score;
        total[row] *= factor;
        float* sums = out + row * width;
        for (int64_t d = 0; d < width; d += LANES) store(sums + d, load(sums + d) * factor);
    }

    // Adds the same rows' sums over other keys.
    void add(const Sums& other) {
        for (int64_t row = 0; row < rows; row++) add(other, row);
    }

    void add(const Sums& other, int64_t row) {
        if (other.highest[row] == NO_SCORE) return;
        raise(row, std::max(highest[row], other.highest[row]));
        float factor = std::exp(other.highest[row] - highest[row]);
        total[row] = multiply_add(total[row], other.total[row], factor);
        float* sums = out + row * width;
        const float* more = other.out + row * width;
        for (int64_t d = 0; d < width; d += LANES)
            store(sums + d, multiply_add(load(sums + d), load(more + d), splat(factor)));
    }
};

// Size of a task's sums, and views of them in given memory.
struct SumsLayout {
    int64_t rows, width;

    explicit SumsLayout(const Rows& rows)
        : rows(rows.num_padded()), width(round_up(rows.args->value_dim, PADDING)) {}

    int64_t size() const { return Sums::size(rows, width); }
    Sums in(float* memory) const { return {memory, rows, width}; }
    Sums in(std::vector<float>& memory) const {
        if ((int64_t)memory.size() < size()) memory.resize(size());
        return in(memory.data());
    }
};

// Writes out[i] / (total[i] + weight of the sink), the attention output of the i-th row. Padding rows
// write nothing.
template <class T>
void write(const Rows& rows, const Sums& sums, int64_t i) {
    int64_t head = i / rows.padded(), row = i % rows.padded(), d = 0;
    if (row >= rows.count) return;
    const float* from = sums.out + i * sums.width;
    T* to = rows.out<T>(head, row);
    float total = sums.total[i];
    if (const float* sinks = rows.args->sinks)
        total += std::exp(sinks[rows.query_head(head, row)] - sums.highest[i]);
    float factor = 1.0f / total;
    for (; d + LANES <= rows.args->value_dim; d += LANES) store(to + d, load(from + d) * factor);
    for (; d < rows.args->value_dim; d++) from_float(to + d, from[d] * factor);
}

template <class T>
void write(const Rows& rows, const Sums& sums) {
    for (int64_t i = 0; i < sums.rows; i++) write<T>(rows, sums, i);
}

}  // namespace
