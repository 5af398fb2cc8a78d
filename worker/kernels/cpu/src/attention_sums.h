// What rows have summed over some keys.
#pragma once

#include <cmath>
#include <limits>
#include <vector>

#include "attention_task.h"
#include "vec.h"

namespace {

constexpr float NONE = -std::numeric_limits<float>::infinity();

// Relative to e^highest of each row.
struct Sums {
    int64_t rows = 0, width = 0;
    float* out = nullptr;      // [rows, width]: values times weights
    float* highest = nullptr;  // [rows]: score; NONE where no key was seen
    float* total = nullptr;    // [rows]: weights

    static int64_t size(int64_t rows, int64_t width) { return rows * (width + 2); }

    Sums() = default;
    Sums(float* memory, int64_t rows, int64_t width)
        : rows(rows), width(width), out(memory), highest(memory + rows * width), total(highest + rows) {}

    void clear() {
        std::fill(out, highest, 0.0f);
        std::fill(highest, total, NONE);
        std::fill(total, total + rows, 0.0f);
    }

    // Now relative to a score that is at least as high.
    void raise(int64_t row, float score) {
        if (score == highest[row]) return;
        float factor = std::exp(highest[row] - score);
        highest[row] = score;
        total[row] *= factor;
        float* sums = out + row * width;
        for (int64_t d = 0; d < width; d += LANES) store(sums + d, load(sums + d) * factor);
    }

    // Adds what the same rows have summed over further keys.
    void add(const Sums& other) {
        for (int64_t row = 0; row < rows; row++) add(other, row);
    }

    void add(const Sums& other, int64_t row) {
        if (other.highest[row] == NONE) return;
        raise(row, std::max(highest[row], other.highest[row]));
        float factor = std::exp(other.highest[row] - highest[row]);
        total[row] = multiply_add(total[row], other.total[row], factor);
        float* sums = out + row * width;
        const float* more = other.out + row * width;
        for (int64_t d = 0; d < width; d += LANES)
            store(sums + d, multiply_add(load(sums + d), load(more + d), splat(factor)));
    }
};

// Memory for a task's sums.
struct SumsShape {
    int64_t rows, width;

    explicit SumsShape(const Rows& rows)
        : rows(rows.num_padded()), width(round_up(rows.args->value_dim, WHOLE)) {}

    int64_t size() const { return Sums::size(rows, width); }
    Sums in(float* memory) const { return {memory, rows, width}; }
    Sums in(std::vector<float>& memory) const {
        if ((int64_t)memory.size() < size()) memory.resize(size());
        return in(memory.data());
    }
};

// The i-th row's mean of values; nothing where memory is padded.
template <class T>
void write(const Rows& rows, const Sums& sums, int64_t i) {
    int64_t head = i / rows.padded(), row = i % rows.padded(), d = 0;
    if (row >= rows.count) return;
    const float* from = sums.out + i * sums.width;
    T* to = rows.out<T>(head, row);
    float factor = 1.0f / sums.total[i];
    for (; d + LANES <= rows.args->value_dim; d += LANES) store(to + d, load(from + d) * factor);
    for (; d < rows.args->value_dim; d++) from_float(to + d, from[d] * factor);
}

template <class T>
void write(const Rows& rows, const Sums& sums) {
    for (int64_t i = 0; i < sums.rows; i++) write<T>(rows, sums, i);
}

}  // namespace
