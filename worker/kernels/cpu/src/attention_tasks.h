// Cutting a step's attention into tasks, and putting them together.
#pragma once

#include <omp.h>

#include <algorithm>
#include <atomic>
#include <vector>

#include "attention_sums.h"
#include "attention_task.h"

namespace {

constexpr int64_t FEW_TASKS = 8;        // for each thread: up to here they are cut into parts
constexpr int64_t MAX_PARTS = 8 << 20;    // floats of their sums

// Tasks of one kind, which threads take one by one.
class Tasks {
public:
    std::vector<Task> whole;

    int64_t max_sums = 0;  // rows of a whole one that is cut, of all its heads

    void clear() { whole.clear(), parts.clear(), starts.clear(), next = 0, max_sums = 0; }

    // Into parts of a span each, so that there are more; unless their sums take too much memory.
    void cut(const AttentionArgs& args) {
        int64_t size = 0, num_parts = 0;
        for (const Task& task : whole) {
            SumsShape shape{{args, task}};
            size = std::max(size, shape.size()), max_sums = std::max(max_sums, shape.rows);
            num_parts += task.end_key / SPAN - task.first_key / SPAN + 1;
        }
        if (num_parts * size > MAX_PARTS) return;
        for (Task task : whole) {
            starts.push_back(parts.size());
            for (int64_t key = task.first_key, end = task.end_key; key < end; key = task.end_key) {
                task.first_key = key, task.end_key = std::min(end, key - key % SPAN + SPAN);
                parts.push_back(task);
            }
        }
        starts.push_back(parts.size());
        if (sums.size() < parts.size() * size) sums.resize(parts.size() * size);
        for (size_t i = 0; i < parts.size(); i++) parts[i].part = sums.data() + i * size;
    }

    const Task* take() {
        const std::vector<Task>& all = parts.empty() ? whole : parts;
        size_t i = next++;
        return i < all.size() ? &all[i] : nullptr;
    }

    bool are_cut() const { return !parts.empty(); }

    // Adds a row of a whole task's parts, which are all computed.
    template <class T>
    void write_whole(const AttentionArgs& args, size_t i, int64_t row) const {
        Rows rows{args, whole[i]};
        SumsShape shape{rows};
        if (row >= shape.rows) return;
        Sums all = shape.in(parts[starts[i]].part);
        for (size_t part = starts[i] + 1; part < starts[i + 1]; part++)
            all.add(shape.in(parts[part].part), row);
        write<T>(rows, all, row);
    }

private:
    std::vector<Task> parts;
    std::vector<size_t> starts;  // of each whole task's parts, and their end
    std::vector<float> sums;     // of the parts
    std::atomic<size_t> next{0};
};

// A step's tasks, of few and of many rows.
struct TasksOfKinds {
    Tasks few, many;

    // A task of few rows has all key heads, and so reads the cache as it lies; one of many rows has
    // one of them, as its buffers would leave L2.
    void cut(const AttentionArgs& args) {
        few.clear(), many.clear();
        const int32_t group = (int32_t)(args.num_heads / args.num_kv_heads);
        int32_t size = (int32_t)std::max<int64_t>(1, MAX_ROWS / group);
        for (int32_t seq = 0; seq < args.num_seqs; seq++) {
            int32_t start = args.query_starts[seq], end = args.query_starts[seq + 1];
            bool are_few = (end - start) * group <= FEW_ROWS;
            int32_t num_heads = are_few ? (int32_t)args.num_kv_heads : 1;
            for (int32_t first = start; first < end; first += size)
                for (int32_t head = 0; head < args.num_kv_heads; head += num_heads) {
                    Task task{seq, first, std::min(size, end - first), head, num_heads, 0, 0, are_few, nullptr};
                    Rows rows{args, task};
                    task.first_key = rows.first_key(), task.end_key = rows.end_key();
                    (are_few ? few : many).whole.push_back(task);
                }
        }
        const int64_t num_tasks = few.whole.size() + many.whole.size(), num_threads = omp_get_max_threads();
        if (num_threads > 1 && num_tasks < FEW_TASKS * num_threads) few.cut(args), many.cut(args);
    }
};

}  // namespace
