// Arguments of the LoRA terms of sibling linears. worker/kernels/cpu/lora_args.py mirrors the structs.
#pragma once

#include <cstdint>

// One linear.
struct Site {
    const void* a;  // page p is [PAGE_ROWS, in] from element p * a_stride on
    const void* b;  // page p is [PAGE_ROWS, out] from element p * b_stride on
    int64_t a_stride;
    int64_t b_stride;
    int64_t out_features;
    int64_t offset;  // first column of the linear in y
    int64_t group;   // index into Plan::groups
    int64_t layer;   // row of Pages::pages
};

// Pages of all adapters in one pool group.
struct Pages {
    const int32_t* starts;  // [num_adapters + 1]: adapter i has columns starts[i] to starts[i + 1] - 1
    const int32_t* pages;   // [layers, row_length]
    int64_t row_length;
};

// Tokens and pages of the adapters in a batch.
struct Plan {
    const int32_t* token_starts;  // [num_adapters + 1]: offsets into `tokens`
    const int32_t* tokens;        // rows of x and y, grouped by adapter
    const Pages* groups;          // by pool group
    int64_t num_adapters;
};

struct LoRAArgs {
    const Site* sites;
    const Plan* plan;
    const void* x;  // [T, in_features]
    void* y;        // [T, y_stride]
    int64_t num_sites;
    int64_t in_features;
    int64_t x_stride;
    int64_t y_stride;
};

extern "C" void add_lora_f32(const LoRAArgs* args);
extern "C" void add_lora_bf16(const LoRAArgs* args);
