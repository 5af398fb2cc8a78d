// Tasks that the LoRA terms of sibling linears are split into.
#pragma once

#include "lora.h"
#include "../simd/vec.h"

constexpr int64_t PAGE_ROWS = 8;   // equals PAGE_ROWS of worker/lora/memory/pages.py
constexpr int64_t FEW_TOKENS = 8;  // with fewer tokens, reading b dominates the time of an expand

// A shrink task multiplies one page of `a` by some tokens of its adapter. An expand task multiplies
// some columns of all pages of `b` by all tokens of the adapter.
struct Task {
    const Site* site;
    const int32_t* tokens;
    const int32_t* pages;
    // The sums between the products. Vectors store them as [tokens, rows]. Tiles store each group of 16
    // tokens (the last one padded to a multiple of 4) as [rows, tokens].
    float* shrunk;
    int64_t num_tokens;
    int64_t num_pages;
    int64_t first;  // page of a shrink task, first column of an expand task
    int64_t width;  // columns of an expand task

    int64_t num_rows() const { return num_pages * PAGE_ROWS; }
};

template <class T>
const T* a_of(const Task& task, int64_t page) {
    return (const T*)task.site->a + task.pages[page] * task.site->a_stride;
}

template <class T>
const T* b_of(const Task& task, int64_t page) {
    return (const T*)task.site->b + task.pages[page] * task.site->b_stride + task.first;
}

// Outputs of an expand task's token, from the task's first column on.
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
