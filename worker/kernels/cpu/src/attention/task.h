// Tasks that a step's attention is split into, their query rows, and chunks of their keys and values.
#pragma once

#include <algorithm>

#include "../simd/prefetcher.h"
#include "attention.h"
#include "../simd/vec.h"

namespace {

constexpr int64_t SPAN = 256;      // keys of one softmax; sums of spans are merged
constexpr int64_t CHUNK = 128;     // keys or values processed at once by tasks of many rows
constexpr int64_t FEW_CHUNK = 64;  // the same for few rows, so that prefetches run shortly before reads
constexpr int64_t MAX_ROWS = 96;   // query rows of a task; their buffers stay in L2
constexpr int64_t FEW_ROWS = 8;    // tasks of at most this many rows cover all key heads
constexpr int64_t HEIGHT = 16;     // rows of a tile
constexpr int64_t PADDING = 32;    // chunks and outputs are padded to a multiple of this

// Some query tokens of a sequence and all query heads of some key heads, over some of its keys.
struct Task {
    int32_t seq;
    int32_t first;  // first token in the flattened row
    int32_t num_tokens;
    int32_t first_head;  // first key head
    int32_t num_heads;   // number of key heads
    int64_t first_key;
    int64_t end_key;
    bool is_few;  // whether tasks of this sequence have few rows
    float* part;  // memory for its sums, which are merged later; null if the task has all keys
};

// The first position that the token at `position` sees.
inline int64_t first_seen(const AttentionArgs& args, int64_t position) {
    if (args.window) return std::max<int64_t>(0, position - args.window + 1);
    return args.chunk ? position - position % args.chunk : 0;
}

// A task's query rows: for each token, the query heads of one key head.
struct Rows {
    const AttentionArgs* args = nullptr;
    Task task{};
    int64_t group = 0;  // query heads per key head
    int64_t count = 0;

    Rows() = default;
    Rows(const AttentionArgs& args, const Task& task)
        : args(&args),
          task(task),
          group(args.num_heads / args.num_kv_heads),
          count(task.num_tokens * group) {}

    int64_t position(int64_t row) const {
        int64_t end = args->query_starts[task.seq + 1];
        return args->context_lens[task.seq] - end + task.first + row / group;
    }

    // The first key that a row sees, rounded down so that a key's lane does not depend on the rows.
    int64_t first_key() const {
        int64_t first = first_seen(*args, position(0));
        return first - first % PADDING;
    }

    int64_t end_key() const { return position(count - 1) + 1; }

    // Rows of memory for one head. From one tile on, this is a multiple of a tile's rows.
    int64_t padded() const { return count > HEIGHT ? round_up(count, HEIGHT) : count; }

    // Rows of memory for all heads, stored head by head.
    int64_t num_padded() const { return task.num_heads * padded(); }

    int64_t token(int64_t row) const { return task.first + row / group; }

    int64_t query_head(int64_t head, int64_t row) const {
        return (task.first_head + head) * group + row % group;
    }

    template <class T>
    const T* query(int64_t head, int64_t row) const {
        return (const T*)args->query + token(row) * args->query_stride +
               query_head(head, row) * args->key_dim;
    }

    // Copies `convert(query)` of all heads to `[heads, rows, depth]`, padded with zeros.
    template <class T, class To, class Convert>
    void copy_queries(To* to, int64_t depth, const Convert& convert) const {
        for (int64_t head = 0; head < task.num_heads; head++)
            for (int64_t row = 0; row < count; row++, to += depth) {
                const T* from = query<T>(head, row);
                std::fill(std::transform(from, from + args->key_dim, to, convert), to + depth, To{});
            }
    }

    template <class T>
    T* out(int64_t head, int64_t row) const {
        return (T*)args->out + (token(row) * args->num_heads + query_head(head, row)) * args->value_dim;
    }
};

// Up to CHUNK consecutive keys of a task's span, or the values of those keys.
template <class T>
struct Chunk {
    const Task* task = nullptr;  // null: no task is left
    bool has_values;             // values if true, keys if false
    int64_t first;               // position of the first key
    int64_t num_keys;
    int64_t dim;           // elements of a key or value
    const T* rows[CHUNK];  // rows of the task's first key head, padded by repeating the last one

    void locate_keys(const AttentionArgs& args, const Task* of, int64_t from) {
        task = of, first = from, has_values = false, dim = args.key_dim;
        locate(args, args.keys);
    }

    void locate_values(const AttentionArgs& args, const Task* of, int64_t from) {
        task = of, first = from, has_values = true, dim = args.value_dim;
        locate(args, args.values);
    }

    // Adds the chunk's cache rows to `prefetcher`. Rows of all heads are contiguous within a block.
    void add_rows_to(Prefetcher& prefetcher, const AttentionArgs& args) const {
        const int64_t stride = args.num_kv_heads * dim, width = task->num_heads * dim;
        for (int64_t k = 0, n; k < num_keys; k += n) {
            int64_t left = args.block_size - (first + k) % args.block_size;
            n = width == stride ? std::min(left, num_keys - k) : 1;
            prefetcher.add(rows[k], ((n - 1) * stride + width) * sizeof(T));
        }
    }

    int64_t end() const { return first + num_keys; }
    int64_t span_first() const { return std::max(task->first_key, first - first % SPAN); }
    int64_t span_end() const { return std::min(task->end_key, first - first % SPAN + SPAN); }
    int64_t in_span() const { return first - span_first(); }
    bool starts_span() const { return first == span_first(); }
    bool starts_task() const { return first == task->first_key && !has_values; }
    bool ends_span() const { return end() == span_end(); }
    bool ends_task() const { return end() == task->end_key && has_values; }

private:
    void locate(const AttentionArgs& args, const void* cache) {
        num_keys = std::min(task->is_few ? FEW_CHUNK : CHUNK, span_end() - first);
        const int32_t* table = args.block_tables + task->seq * args.table_stride;
        int64_t block = first / args.block_size, slot = first % args.block_size;
        const int64_t stride = args.num_kv_heads * dim;
        for (int64_t k = 0; k < num_keys; block++, slot = 0) {
            int64_t first_row = table[block] * args.block_size * args.num_kv_heads;
            const T* row = (const T*)cache + (first_row + task->first_head) * dim;
            int64_t n = std::min(args.block_size - slot, num_keys - k);
            for (int64_t i = 0; i < n; i++) rows[k + i] = row + (slot + i) * stride;
            k += n;
        }
        std::fill(rows + num_keys, rows + round_up(num_keys, PADDING), rows[num_keys - 1]);
    }
};

// Operands of a product: a task's rows and a chunk.
template <class T>
struct Operands {
    Rows rows;
    const Chunk<T>* chunk;
    Prefetcher prefetcher;  // prefetches the next chunk while this one is computed

    int64_t num_heads() const { return rows.task.num_heads; }
    int64_t num_keys() const { return chunk->num_keys; }

    // The k-th key or value of the chunk for a head.
    const T* get(int64_t head, int64_t k) const { return chunk->rows[k] + head * chunk->dim; }

    // Reads `word(row)` of LANES rows from the k-th on and transposes the result to `lanes`. If
    // `prefetches` is set, each row also advances the prefetcher.
    template <class Word>
    void get_transposed(Vec (&lanes)[LANES], int64_t head, int64_t k, bool prefetches, const Word& word) {
        for (int64_t i = 0; i < LANES; i++) {
            lanes[i] = word(get(head, k + i));
            if (prefetches) prefetcher.advance();
        }
        transpose(lanes);
    }
};

}  // namespace
