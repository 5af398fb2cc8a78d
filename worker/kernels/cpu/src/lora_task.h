// The parts that the LoRA terms of some linears are cut into.
#pragma once

#include "lora.h"
#include "vec.h"

constexpr int64_t PAGE_ROWS = 8;  // equals worker/lora/memory/pages.py
constexpr int64_t FEW_TOKENS = 8;  // fewer: reading b is what takes time

// A page's rows of `a` with some tokens of its adapter (shrink), or all its rows of `b` with all
// of the adapter's tokens, for some columns (expand).
struct Task {
    const Site* site;
    const int32_t* tokens;
    const int32_t* pages;
    // Sum of row r for token t, at t * token_stride + r * row_stride; by tiles, 16 tokens (and the
    // rest, padded to 4) lie behind each other with all their rows.
    float* shrunk;
    bool by_tiles;
    int64_t num_tokens;
    int64_t num_pages;
    int64_t token_stride;
    int64_t row_stride;
    int64_t first;  // page of a shrink task, column of an expand task
    int64_t width;  // columns of an expand task
};

template <class T>
const T* a_of(const Task& task, int64_t page) {
    return (const T*)task.site->a + task.pages[page] * task.site->a_stride;
}

template <class T>
const T* b_of(const Task& task, int64_t page) {
    return (const T*)task.site->b + task.pages[page] * task.site->b_stride + task.first;
}

// The outputs of an expand task's token, from the first of the task's columns on.
template <class T>
T* y_of(const Task& task, const LoRAArgs& args, int64_t token) {
    return (T*)args.y + task.tokens[token] * args.y_stride + task.site->offset + task.first;
}

// y += sums
template <class T>
void add_sums(T* y, const float* sums, int64_t width) {
    int64_t n = 0;
    for (; n + LANES <= width; n += LANES) store(y + n, load(y + n) + load(sums + n));
    for (; n < width; n++) from_float(y + n, to_float(y[n]) + sums[n]);
}
