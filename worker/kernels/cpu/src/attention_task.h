// The parts that a step's attention is cut into.
#pragma once

#include <algorithm>

#include "ahead.h"
#include "attention.h"
#include "vec.h"

namespace {

constexpr int64_t SPAN = 256;      // keys of one softmax; spans' sums are added
constexpr int64_t CHUNK = 128;     // keys or values of a span that are read at once, for many rows
constexpr int64_t FEW_CHUNK = 64;  // for few rows: memory is asked for just before it is read
constexpr int64_t MAX_ROWS = 96;   // query rows of a task: their buffers stay in L2
constexpr int64_t FEW_ROWS = 8;    // up to here a task has all key heads
constexpr int64_t HEIGHT = 16;     // rows of a tile
constexpr int64_t WHOLE = 32;      // chunks, and outputs, are padded to a multiple of it

// Some query tokens of a sequence, with all query heads of some key heads, over some of its keys.
struct Task {
    int32_t seq;
    int32_t first;  // first token in the flattened row
    int32_t num_tokens;
    int32_t first_head;  // of the key heads
    int32_t num_heads;
    int64_t first_key;
    int64_t end_key;
    bool is_few;  // whether it has few rows, as all tasks of these tokens
    float* part;  // where its sums are left, to be added to those of other keys; none: these are all
};

// A task's rows are its tokens, and for each the query heads of one key head.
struct Rows {
    const AttentionArgs* args = nullptr;
    Task task{};
    int64_t group = 0;  // query heads of a key head
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

    // Whole vectors of keys, so that each key has its lane whatever the first row sees.
    int64_t first_key() const {
        int64_t first = args->window ? std::max<int64_t>(0, position(0) - args->window + 1) : 0;
        return first - first % WHOLE;
    }

    int64_t end_key() const { return position(count - 1) + 1; }

    // Memory for a head's rows: whole tiles of them, where they fill one.
    int64_t padded() const { return count > HEIGHT ? round_up(count, HEIGHT) : count; }

    // Memory for the rows of all heads, head by head.
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

    // `convert` of those of all heads to `[heads, rows, depth]`, padded with zeros.
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

// Up to CHUNK keys of a task's span, or their values.
template <class T>
struct Chunk {
    const Task* task = nullptr;  // none: there is no further one
    bool has_values;             // else it has keys
    int64_t first;               // key
    int64_t num_keys;
    int64_t dim;           // of a key, or a value
    const T* rows[CHUNK];  // of the task's first key head; padded with the last one

    void locate_keys(const AttentionArgs& args, const Task* of, int64_t from) {
        task = of, first = from, has_values = false, dim = args.key_dim;
        locate(args, args.keys);
    }

    void locate_values(const AttentionArgs& args, const Task* of, int64_t from) {
        task = of, first = from, has_values = true, dim = args.value_dim;
        locate(args, args.values);
    }

    // Asks for what it has in the cache: in a block, rows of all heads lie together.
    void ask(const AttentionArgs& args, Ahead& ahead) const {
        const int64_t stride = args.num_kv_heads * dim, width = task->num_heads * dim;
        for (int64_t k = 0, n; k < num_keys; k += n) {
            int64_t left = args.block_size - (first + k) % args.block_size;
            n = width == stride ? std::min(left, num_keys - k) : 1;
            ahead.add(rows[k], ((n - 1) * stride + width) * sizeof(T));
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
        std::fill(rows + num_keys, rows + round_up(num_keys, WHOLE), rows[num_keys - 1]);
    }
};

// What products are made of: a task's rows, and a chunk.
template <class T>
struct Operands {
    Rows rows;
    const Chunk<T>* chunk;
    Ahead next;  // the next chunk, asked for while this one is read

    int64_t num_heads() const { return rows.task.num_heads; }
    int64_t num_keys() const { return chunk->num_keys; }

    // The k-th key or value of a head.
    const T* get(int64_t head, int64_t k) const { return chunk->rows[k] + head * chunk->dim; }

    // What `word` reads of LANES keys from the k-th on, transposed; meanwhile asks if it `asks`.
    template <class Word>
    void get_transposed(Vec (&lanes)[LANES], int64_t head, int64_t k, bool asks, const Word& word) {
        for (int64_t i = 0; i < LANES; i++) {
            lanes[i] = word(get(head, k + i));
            if (asks) next.ask();
        }
        transpose(lanes);
    }
};

}  // namespace
