// Splits a step's attention into tasks and merges their results.
#pragma once

#include <omp.h>

#include <algorithm>
#include <atomic>
#include <vector>

#include "sums.h"
#include "task.h"

namespace {

constexpr int64_t MIN_TASKS_PER_THREAD = 8;   // with fewer, tasks are split into parts
constexpr int64_t MAX_PART_FLOATS = 8 << 20;  // size limit of the parts' sums

// Tasks of one kind. Threads take them one at a time.
class TaskQueue {
public:
    std::vector<Task> tasks;

    int64_t max_sums = 0;  // most rows of all heads in one task that was split

    void clear() { tasks.clear(), parts.clear(), starts.clear(), next = 0, max_sums = 0; }

    // Splits each task into parts of one span, unless the parts' sums exceed MAX_PART_FLOATS.
    void split(const AttentionArgs& args) {
        int64_t size = 0, num_parts = 0;
        for (const Task& task : tasks) {
            SumsLayout shape{{args, task}};
            size = std::max(size, shape.size()), max_sums = std::max(max_sums, shape.rows);
            num_parts += task.end_key / SPAN - task.first_key / SPAN + 1;
        }
        if (num_parts * size > MAX_PART_FLOATS) return;
        for (Task task : tasks) {
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
        const std::vector<Task>& all = parts.empty() ? tasks : parts;
        size_t i = next++;
        return i < all.size() ? &all[i] : nullptr;
    }

    bool are_split() const { return !parts.empty(); }

    // Merges one row of the i-th task's parts and writes it. All parts must be computed.
    template <class T>
    void write_merged(const AttentionArgs& args, size_t i, int64_t row) const {
        Rows rows{args, tasks[i]};
        SumsLayout shape{rows};
        if (row >= shape.rows) return;
        Sums all = shape.in(parts[starts[i]].part);
        for (size_t part = starts[i] + 1; part < starts[i + 1]; part++)
            all.add(shape.in(parts[part].part), row);
        write<T>(rows, all, row);
    }

private:
    std::vector<Task> parts;
    std::vector<size_t> starts;  // [tasks + 1]: index of each task's first part, then their end
    std::vector<float> sums;     // sums of all parts
    std::atomic<size_t> next{0};
};

// The tasks of one step, by their number of rows.
struct StepTasks {
    TaskQueue few_rows, many_rows;

    // A task of few rows covers all key heads, so that it reads the cache contiguously. A task of many
    // rows covers one key head, so that its buffers stay in L2.
    void split(const AttentionArgs& args) {
        few_rows.clear(), many_rows.clear();
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
                    (are_few ? few_rows : many_rows).tasks.push_back(task);
                }
        }
        const int64_t num_tasks = few_rows.tasks.size() + many_rows.tasks.size();
        const int64_t num_threads = omp_get_max_threads();
        if (num_threads > 1 && num_tasks < MIN_TASKS_PER_THREAD * num_threads)
            few_rows.split(args), many_rows.split(args);
    }
};

}  // namespace
