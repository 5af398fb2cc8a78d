// LoRA terms on vectors.
#pragma once

#include <algorithm>

#include "../simd/row_groups.h"
#include "task.h"

namespace {

constexpr int64_t WIDE_TILE = 1536;  // columns of an expand task with few tokens

// Sizes of register tiles. Their sums fill the registers that operands leave free.
constexpr int SHRINK_ROWS = LANES / 4;                      // for 4 tokens: LANES sums in all
constexpr int SHRINK_ROWS_ALONE = REGISTERS == 32 ? 4 : 8;  // for one token
constexpr int EXPAND_TOKENS = REGISTERS / 4;
constexpr int EXPAND_SUMS = REGISTERS == 32 ? 24 : 8;

template <class T, int TOKENS, int ROWS>
void shrink_tile(const Task& task, const LoRAArgs& args, const T* next_rows, int64_t token, int64_t row) {
    using D = Dot<T>;
    const T *x[TOKENS], *a[ROWS];
    const T* page = a_of<T>(task, task.first);
    for (int i = 0; i < TOKENS; i++) x[i] = (const T*)args.x + task.tokens[token + i] * args.x_stride;
    for (int r = 0; r < ROWS; r++) a[r] = page + (row + r) * args.in_features;
    Vec products[TOKENS][ROWS] = {};
    int64_t k = 0;
    for (; k + D::WIDTH <= args.in_features; k += D::WIDTH) {
        typename D::V rows[ROWS];
        for (int r = 0; r < ROWS; r++) {
            rows[r] = D::get(a[r] + k);
            if (token == 0) __builtin_prefetch(next_rows + (row + r) * args.in_features + k, 0, 2);
        }
        for (int i = 0; i < TOKENS; i++) {
            typename D::V values = D::get(x[i] + k);
            for (int r = 0; r < ROWS; r++) products[i][r] = D::add(products[i][r], values, rows[r]);
        }
    }
    if (int64_t left = args.in_features - k)
        for (int i = 0; i < TOKENS; i++)
            for (int r = 0; r < ROWS; r++)
                products[i][r] = D::add(products[i][r], D::get_part(x[i] + k, left),
                                        D::get_part(a[r] + k, left));
    int64_t stride = task.num_rows();
    float* out = task.shrunk + token * stride + task.first * PAGE_ROWS + row;
    if constexpr (TOKENS * ROWS == LANES) {
        float flat[LANES];
        store(flat, sums(&products[0][0]));
        for (int i = 0; i < LANES; i++)
            out[i / ROWS * stride + i % ROWS] = rounded(flat[i], (const T*)nullptr);
    } else {
        for (int i = 0; i < TOKENS; i++)
            for (int r = 0; r < ROWS; r++)
                out[i * stride + r] = rounded(sum(products[i][r]), (const T*)nullptr);
    }
}

template <class T>
void shrink(const Task& task, const LoRAArgs& args, const T* next_rows) {
    in_groups<4, 1>(task.num_tokens, [&](auto tokens, int64_t token) {
        constexpr int ROWS = tokens == 4 ? SHRINK_ROWS : SHRINK_ROWS_ALONE;
        for (int64_t row = 0; row < PAGE_ROWS; row += ROWS)
            shrink_tile<T, tokens, ROWS>(task, args, next_rows, token, row);
    });
}

template <class T, int TOKENS, int VECS>
void expand_tile(const Task& task, const LoRAArgs& args, int64_t token, int64_t column, int64_t width) {
    int64_t stride = task.site->out_features, num_rows = task.num_rows();
    const float* shrunk = task.shrunk + token * num_rows;
    Vec sums[TOKENS][VECS] = {};
    for (int64_t page = 0; page < task.num_pages; page++) {
        const T* b = b_of<T>(task, page) + column;
        for (int64_t r = 0; r < PAGE_ROWS; r++, b += stride) {
            Vec weights[VECS];
            for (int v = 0; v < VECS; v++)
                weights[v] = width < LANES ? load_part(b, width) : load(b + v * LANES);
            for (int i = 0; i < TOKENS; i++)
                for (int v = 0; v < VECS; v++) {
                    Vec factor = splat(shrunk[i * num_rows + page * PAGE_ROWS + r]);
                    sums[i][v] = multiply_add(sums[i][v], factor, weights[v]);
                }
        }
    }
    for (int i = 0; i < TOKENS; i++) {
        T* y = y_of<T>(task, args, token + i) + column;
        for (int v = 0; v < VECS; v++) {
            if (width < LANES)
                store_part(y, load_part(y, width) + sums[i][v], width);
            else
                store(y + v * LANES, load(y + v * LANES) + sums[i][v]);
        }
    }
}

// Computes as many vectors of each token at once as fit in registers.
template <class T, int TOKENS>
void expand_tokens(const Task& task, const LoRAArgs& args, int64_t token) {
    constexpr int VECS = EXPAND_SUMS / std::max(TOKENS, 2);
    int64_t column = 0;
    for (; column + VECS * LANES <= task.width; column += VECS * LANES)
        expand_tile<T, TOKENS, VECS>(task, args, token, column, VECS * LANES);
    for (; column < task.width; column += LANES)
        expand_tile<T, TOKENS, 1>(task, args, token, column, std::min(LANES, task.width - column));
}

// For few tokens, where reading b dominates. Reads four rows of b at once from left to right, which
// hardware prefetchers follow, keeps the sums in L1, and prefetches the next page.
template <class T, int TOKENS>
void expand_streaming(const Task& task, const LoRAArgs& args, const T* next_rows, int64_t token) {
    constexpr int ROWS = 4;
    int64_t stride = task.site->out_features, width = task.width, whole = width / LANES * LANES;
    alignas(64) float sums[TOKENS][WIDE_TILE] = {};
    for (int64_t row = 0; row < task.num_rows(); row += ROWS) {
        int64_t page = row / PAGE_ROWS, skipped = row % PAGE_ROWS * stride;
        const T* b = b_of<T>(task, page) + skipped;
        const T* next = (page + 1 < task.num_pages ? b_of<T>(task, page + 1) : next_rows) + skipped;
        float factors[TOKENS][ROWS];
        for (int i = 0; i < TOKENS; i++)
            for (int r = 0; r < ROWS; r++)
                factors[i][r] = task.shrunk[(token + i) * task.num_rows() + row + r];
        for (int64_t c = 0; c < whole; c += LANES) {
            for (int r = 0; r < ROWS; r++) __builtin_prefetch(next + r * stride + c, 0, 2);
            for (int i = 0; i < TOKENS; i++) {
                Vec sum = load(&sums[i][c]);
                for (int r = 0; r < ROWS; r++)
                    sum = multiply_add(sum, splat(factors[i][r]), load(b + r * stride + c));
                store(&sums[i][c], sum);
            }
        }
        for (int64_t c = whole; c < width; c++)
            for (int i = 0; i < TOKENS; i++)
                for (int r = 0; r < ROWS; r++)
                    sums[i][c] = multiply_add(sums[i][c], factors[i][r], to_float(b[r * stride + c]));
    }
    for (int i = 0; i < TOKENS; i++) add_sums(y_of<T>(task, args, token + i), sums[i], width);
}

template <class T>
void expand(const Task& task, const LoRAArgs& args, const T* next_rows) {
    if (task.num_tokens < FEW_TOKENS)
        in_groups<4, 2, 1>(task.num_tokens, [&](auto tokens, int64_t token) {
            expand_streaming<T, tokens>(task, args, next_rows, token);
        });
    else
        in_groups<EXPAND_TOKENS, EXPAND_TOKENS / 2, 1>(
            task.num_tokens,
            [&](auto tokens, int64_t token) { expand_tokens<T, tokens>(task, args, token); });
}

}  // namespace
