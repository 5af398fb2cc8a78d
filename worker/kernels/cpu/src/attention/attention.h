// Arguments of paged attention. worker/kernels/cpu/attention_args.py mirrors the struct.
#pragma once

#include <cstdint>

struct AttentionArgs {
    const void* query;  // [T, num_heads, key_dim]
    void* out;          // [T, num_heads, value_dim], contiguous
    const void* keys;   // [num_blocks, block_size, num_kv_heads, key_dim]
    const void* values;  // [num_blocks, block_size, num_kv_heads, value_dim]
    const int32_t* block_tables;  // [num_seqs, table_stride]
    const int32_t* query_starts;  // [num_seqs + 1]
    const int32_t* context_lens;  // [num_seqs]
    const float* sinks;           // [num_heads]; null: no attention sinks
    int64_t query_stride;         // elements between consecutive tokens
    int64_t table_stride;         // elements between consecutive block tables
    int64_t num_seqs;
    int64_t num_heads;
    int64_t num_kv_heads;
    int64_t key_dim;
    int64_t value_dim;
    int64_t block_size;
    int64_t window;  // 0: no sliding window
    int64_t chunk;   // 0: no chunks
    float scaling;
    float softcap;  // 0: no softcap
};

extern "C" void paged_attention_f32(const AttentionArgs* args);
extern "C" void paged_attention_bf16(const AttentionArgs* args);
