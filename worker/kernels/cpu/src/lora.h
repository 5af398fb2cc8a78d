// How the LoRA terms of some linears are asked for.
#pragma once

#include <cstdint>

struct Site {  // one linear
    const void* a;  // page p is [PAGE_ROWS, in] from element p * a_stride on
    const void* b;  // page p is [PAGE_ROWS, out] from element p * b_stride on
    int64_t a_stride;
    int64_t b_stride;
    int64_t out_features;
    int64_t offset;  // of its columns in y
    int64_t group;   // whose pages it uses
    int64_t layer;   // its row among these
};

struct Pages {  // of each adapter in one pool group
    const int32_t* starts;  // [num_adapters + 1]
    const int32_t* pages;   // [layers, row_length]
    int64_t row_length;
};

struct Plan {
    const int32_t* token_starts;  // [num_adapters + 1]
    const int32_t* tokens;        // rows of x and y
    const Pages* groups;
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
