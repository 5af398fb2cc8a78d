// Adds each token's own LoRA term to the outputs of linears that read the same input:
//
//     y[t, offset + o] += sum_r b[r, o] * (sum_i a[r, i] * x[t, i])     r over the adapter's rows
//
// Tokens are grouped by adapter, in any order in the batch (SGMV, arXiv 2310.18547). Rows are stored in
// pages, and a token is multiplied by its own adapter's rows only. Sums are fp32. The inner sum is
// rounded to the dtype, as PEFT's first linear does. worker/kernels/reference.py is the reference
// implementation.

#include <omp.h>

#include <algorithm>
#include <type_traits>
#include <vector>

#include "lora.h"
#include "task.h"
#include "tiles.h"
#include "vectors.h"
#include "../simd/vec.h"

namespace {

constexpr int64_t TOKEN_TILE = 64;    // tokens of a shrink task
constexpr int64_t COLUMN_TILE = 192;  // columns of an expand task with many tokens, or if tasks are few

struct Tasks {
    std::vector<Task> shrinks, expands;
    std::vector<float> shrunk;
};

// Whether tiles compute the terms. It depends on shapes only, as tiles and vectors sum in different
// orders.
#if HAS_TILES
template <class T>
bool by_tiles(const LoRAArgs& args) {
    return std::is_same_v<T, bf16> && args.in_features % INPUTS == 0 && may_use_tiles();
}
#endif

// How an adapter's tokens are split into tasks, and how its sums between the two products are stored.
struct Strategy {
    int64_t token_tile;  // tokens of a shrink task
    int64_t width;       // columns of an expand task
    int64_t num_padded;  // tokens, including padding, that sums are stored for
};

template <class T>
Strategy strategy_for(const LoRAArgs& args, int64_t num_tokens) {
    bool many = args.num_sites * args.plan->num_adapters >= 4 * omp_get_max_threads();
    int64_t width = many && num_tokens < FEW_TOKENS ? WIDE_TILE : COLUMN_TILE;
#if HAS_TILES
    if (by_tiles<T>(args)) return {TOKENS, width, round_up(num_tokens, 4)};
#endif
    return {TOKEN_TILE, width, num_tokens};
}

void add_tasks(Tasks& tasks, Task task, const Strategy& strategy, float* shrunk) {
    int64_t num_tokens = task.num_tokens;
    const int32_t* tokens = task.tokens;
    for (int64_t first = 0; first < num_tokens; first += strategy.token_tile) {
        task.tokens = tokens + first;
        task.num_tokens = std::min(strategy.token_tile, num_tokens - first);
        task.shrunk = shrunk + first * task.num_rows();
        for (task.first = 0; task.first < task.num_pages; task.first++) tasks.shrinks.push_back(task);
    }
    task.tokens = tokens, task.num_tokens = num_tokens, task.shrunk = shrunk;
    const int64_t num_columns = task.site->out_features;
    for (task.first = 0; task.first < num_columns; task.first += strategy.width) {
        task.width = std::min(strategy.width, num_columns - task.first);
        tasks.expands.push_back(task);
    }
}

// Splits the work adapter by adapter, as all linears read the same inputs.
template <class T>
void split_into_tasks(const LoRAArgs& args, Tasks& tasks) {
    const Plan& plan = *args.plan;
    tasks.shrinks.clear(), tasks.expands.clear();
    int64_t size = 0;
    for (int pass = 0; pass < 2; pass++) {  // the first pass measures the buffer
        if (pass && (int64_t)tasks.shrunk.size() < size) tasks.shrunk.resize(size);
        size = 0;
        for (int64_t i = 0; i < plan.num_adapters; i++) {
            int64_t num_tokens = plan.token_starts[i + 1] - plan.token_starts[i];
            if (num_tokens == 0) continue;
            Strategy strategy = strategy_for<T>(args, num_tokens);
            for (const Site* site = args.sites; site < args.sites + args.num_sites; site++) {
                const Pages& pages = plan.groups[site->group];
                int64_t num_pages = pages.starts[i + 1] - pages.starts[i];
                if (pass && num_pages) {
                    Task task{};
                    task.site = site, task.num_tokens = num_tokens, task.num_pages = num_pages;
                    task.tokens = plan.tokens + plan.token_starts[i];
                    task.pages = pages.pages + site->layer * pages.row_length + pages.starts[i];
                    add_tasks(tasks, task, strategy, tasks.shrunk.data() + size);
                }
                size += strategy.num_padded * num_pages * PAGE_ROWS;
            }
        }
    }
}

// Index of a thread's first shrink task. Threads get consecutive tasks, which share an adapter's inputs.
size_t first_of(const std::vector<Task>& shrinks, int64_t thread, int64_t num_threads) {
    auto cost = [](const Task& task) { return FEW_TOKENS + task.num_tokens; };
    int64_t total = 0, before = 0;
    for (const Task& task : shrinks) total += cost(task);
    size_t i = 0;
    while (before * num_threads < total * thread) before += cost(shrinks[i++]);
    return i;
}

// Runs one thread's tasks. `next_rows` are the weights of its next task, which each task prefetches.
template <class T>
struct TaskRunner {
    const LoRAArgs& args;
#if HAS_TILES
    const bool has_tiles = by_tiles<T>(args);
    LoRATiles tiles{args};
#endif

    void run_shrink(const Task& task, const T* next_rows) {
#if HAS_TILES
        if constexpr (std::is_same_v<T, bf16>)
            if (has_tiles) return tiles.shrink(task, next_rows);
#endif
        shrink<T>(task, args, next_rows);
    }

    void run_expand(const Task& task, const T* next_rows) {
#if HAS_TILES
        if constexpr (std::is_same_v<T, bf16>)
            if (has_tiles) return tiles.expand(task, next_rows);
#endif
        expand<T>(task, args, next_rows);
    }
};

template <class T>
void add_lora(const LoRAArgs& args) {
    static thread_local Tasks caller_tasks;
    split_into_tasks<T>(args, caller_tasks);
    const Tasks& tasks = caller_tasks;
    const std::vector<Task>&shrinks = tasks.shrinks, &expands = tasks.expands;
    if (shrinks.empty()) return;
#pragma omp parallel
    {
        TaskRunner<T> runner{args};
        size_t number = omp_get_thread_num(), num_threads = omp_get_num_threads();
        auto expand_rows = [&](size_t i) { return b_of<T>(expands[std::min(i, expands.size() - 1)], 0); };
        size_t end = first_of(shrinks, number + 1, num_threads);
        for (size_t i = first_of(shrinks, number, num_threads); i < end; i++)
            runner.run_shrink(shrinks[i], i + 1 < end ? a_of<T>(shrinks[i + 1], shrinks[i + 1].first)
                                                      : expand_rows(number));
#pragma omp barrier
        for (size_t i = number; i < expands.size(); i += num_threads)
            runner.run_expand(expands[i], expand_rows(i + num_threads));
    }
}

}  // namespace

extern "C" void add_lora_f32(const LoRAArgs* args) { add_lora<float>(*args); }
extern "C" void add_lora_bf16(const LoRAArgs* args) { add_lora<bf16>(*args); }
