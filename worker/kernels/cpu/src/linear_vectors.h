// The packed product on vectors. CPUs that multiply bfloat16 (AVX512_BF16) take both neighbours of
// a pair at once. Others widen them one after the other, which costs a shift or a mask: a bfloat16
// is the upper half of a float.
#pragma once

#include <vector>

#include "groups.h"
#include "linear_edges.h"
#include "vec.h"

namespace {

#if defined(__AVX512F__)
constexpr int64_t VECS = 3;
constexpr int64_t ROWS = 8;
// Vectors of columns that a tile of so many rows has: their product is most of the 32 registers.
constexpr int64_t vecs_by(int64_t) { return VECS; }
#else
constexpr int64_t VECS = 4;
constexpr int64_t ROWS = 6;
// Of 16 registers, two columns and a factor leave 12; with fewer sums, each would wait for itself.
constexpr int64_t vecs_by(int64_t rows) { return rows > 2 ? 2 : 4; }
#endif

constexpr int64_t COLUMNS = VECS * LANES;
constexpr int64_t WIDTH = COLUMNS;  // columns that lie together
constexpr int64_t DEPTH = 2;        // inputs that lie together

#if defined(__AVX512BF16__)

typedef bf16 Input;
constexpr int STEPS = 1;  // to multiply by a pair

template <int>
IVec columns_of(IVec pairs) {
    return pairs;
}

template <int>
IVec factor_of(const Input* x) {
    return (IVec)Dot<bf16>::get_pair(x);
}

Vec add(Vec sums, IVec columns, IVec factor) {
    return Dot<bf16>::add(sums, (__m512bh)columns, (__m512bh)factor);
}

const Input* inputs(const bf16* x, int64_t& stride, int64_t, int64_t) {
    (void)stride;
    return x;
}

#else

typedef float Input;
constexpr int STEPS = 2;

template <int STEP>
Vec columns_of(IVec pairs) {
    return (Vec)(STEP ? pairs & (int32_t)0xffff0000 : pairs << 16);
}

template <int STEP>
Vec factor_of(const Input* x) {
    return splat(x[STEP]);
}

Vec add(Vec sums, Vec columns, Vec factor) { return sums + columns * factor; }

// The rows widened: each is read once for every block of columns.
const Input* inputs(const bf16* x, int64_t& stride, int64_t rows, int64_t k) {
    static thread_local std::vector<Input> buffer;
    if ((int64_t)buffer.size() < rows * k) buffer.resize(rows * k);
    Input* wide = buffer.data();
#pragma omp parallel for if (rows * k > WORTH_THREADS)
    for (int64_t row = 0; row < rows; row++) {
        const bf16* from = x + row * stride;
        int64_t i = 0;
        for (; i + LANES <= k; i += LANES) store(wide + row * k + i, load(from + i));
        for (; i < k; i++) wide[row * k + i] = to_float(from[i]);
    }
    stride = k;
    return wide;
}

#endif

template <int R, int V, int STEP = 0>
void add_pair(Vec (&sums)[R][V], const IVec (&pairs)[V], const Input* x, int64_t x_stride) {
    decltype(columns_of<STEP>(pairs[0])) columns[V];
    for (int v = 0; v < V; v++) columns[v] = columns_of<STEP>(pairs[v]);
    for (int r = 0; r < R; r++) {
        auto factor = factor_of<STEP>(x + r * x_stride);
        for (int v = 0; v < V; v++) sums[r][v] = add(sums[r][v], columns[v], factor);
    }
    if constexpr (STEP + 1 < STEPS) add_pair<R, V, STEP + 1>(sums, pairs, x, x_stride);
}

// R rows by V vectors of columns. `ahead` is what a later tile will read:
// `ahead_step` bytes of it are asked for with every pair.
template <int R, int V>
void tile(const Input* x, int64_t x_stride, const bf16* w, int64_t k, const float* start, float* out,
          const char* ahead, int64_t ahead_step) {
    Vec sums[R][V];
    for (int r = 0; r < R; r++)
        for (int v = 0; v < V; v++) sums[r][v] = load(start + v * LANES);
    const char* weights = (const char*)w;
    for (int64_t i = 0; i < k; i += 2, weights += COLUMNS * 4, ahead += ahead_step) {
        for (int64_t line = 0; line < ahead_step; line += 64) __builtin_prefetch(ahead + line, 0, 2);
        IVec pairs[V];
        for (int v = 0; v < V; v++) {
            std::memcpy(&pairs[v], weights + v * sizeof(IVec), sizeof(IVec));
            __builtin_prefetch(weights + 4096 + v * sizeof(IVec));
        }
        add_pair<R, V>(sums, pairs, x + i, x_stride);
    }
    for (int r = 0; r < R; r++)
        for (int v = 0; v < V; v++) store(out + r * COLUMNS + v * LANES, sums[r][v]);
}

// R rows of a block.
template <int R>
void rows_of(const Input* x, int64_t x_stride, const bf16* w, const bf16* bias, bf16* y,
             int64_t y_stride, int64_t num_columns, int64_t k, const char* ahead,
             int64_t ahead_step) {
    constexpr int V = vecs_by(R);
    Start<COLUMNS> start(bias, num_columns);
    float sums[R][COLUMNS];
    for (int64_t v = 0; v < VECS; v += V) {
        int64_t column = v * LANES;
        tile<R, V>(x, x_stride, w + 2 * column, k, start.sums + column, sums[0] + column, ahead,
                   ahead_step);
        ahead += k / 2 * ahead_step;
    }
    for (int r = 0; r < R; r++) store_columns<COLUMNS>(sums[r], y + r * y_stride, num_columns);
}

// While a block that lies in L2 is multiplied by further rows, memory brings the next one.
void rows_of_block(int64_t rows, const Input* x, int64_t x_stride, const bf16* w, const bf16* bias,
                   bf16* y, int64_t y_stride, int64_t num_columns, int64_t k, bool has_next) {
    constexpr int64_t TILES = VECS / vecs_by(ROWS);
    const char* next = (const char*)(w + COLUMNS * k);
    int64_t step = has_next && rows >= 2 * ROWS ? COLUMNS * 4 * ROWS / rows / TILES : 0;
    in_groups<ROWS, 4, 2, 1>(rows, [&](auto height, int64_t row) {
        rows_of<height>(x + row * x_stride, x_stride, w, bias, y + row * y_stride, y_stride,
                        num_columns, k, next, step);
        next += TILES * step * k / 2;
    });
}

bool is_allowed() { return true; }

struct Unit {};

}  // namespace
