// Causal attention over a paged KV cache, for decode tokens and prefill chunks in one call.
//
// A task covers some query tokens of one sequence and all query heads of some key heads (GQA), so that
// each key is read once for all of them. Each span of SPAN keys has its own softmax in fp32, and the
// spans are merged by online softmax (Milakov and Gimelshein, arXiv 1805.02867). If there are fewer
// tasks than the threads need, each span becomes a task (Flash-Decoding, Dao et al. 2023).
//
// An attention sink (gpt-oss, arXiv 2508.10925) is a further score of a query head, without a value. Its
// weight is added to a row's total when all spans are merged.
//
// A row's result has the same bits however tasks are split and whichever rows are computed with it.
// worker/kernels/reference.py is the reference implementation.

#include "attention.h"

#include <omp.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "pairs.h"
#include "sums.h"
#include "task.h"
#include "task_queues.h"
#include "tiles.h"
#include "vectors.h"

namespace {

// Buffers of one thread, reused from step to step.
template <class Products>
struct Buffers {
    typename Products::Buffers products;
    std::vector<float> scores, task_sums, span_sums;
    std::vector<typename Products::Weight> weights;
};

// Computes one thread's tasks, chunk by chunk. While a chunk is computed, the next one is prefetched.
template <class T, class Products>
class Attention {
public:
    Attention(const AttentionArgs& args, TaskQueue& tasks, Buffers<Products>& buffers)
        : args(args), tasks(tasks), buffers(buffers) {}

    void run() {
        take_task(*now);
        for (; now->task; std::swap(now, next)) {
            locate_next(*next);
            operands.chunk = now;
            if (now->starts_task()) start_task();
            plan_prefetch();
            if (now->has_values)
                add_values();
            else
                products.score(buffers.scores.data() + now->in_span());
        }
    }

private:
    const AttentionArgs& args;
    TaskQueue& tasks;
    Buffers<Products>& buffers;
    Chunk<T> chunks[2];
    Chunk<T>*now = &chunks[0], *next = &chunks[1];
    Operands<T> operands;
    Products products{operands, buffers.products};
    Sums all;   // sums of the task
    Sums span;  // sums of the current span, until they are added to the task's

    void take_task(Chunk<T>& chunk) {
        chunk.task = tasks.take();
        if (chunk.task) chunk.locate_keys(args, chunk.task, chunk.task->first_key);
    }

    // Locates the chunk after the current one. A span's keys come first, then its values.
    void locate_next(Chunk<T>& chunk) {
        const Task* task = now->task;
        if (now->ends_task())
            take_task(chunk);
        else if (now->has_values == now->ends_span())
            chunk.locate_keys(args, task, now->end());
        else
            chunk.locate_values(args, task, now->has_values ? now->end() : now->span_first());
    }

    void start_task() {
        Rows rows{args, *now->task};
        operands.rows = rows;
        size_t size = rows.num_padded() * SPAN;
        if (buffers.scores.size() < size) buffers.scores.resize(size), buffers.weights.resize(size);
        products.start_task();
    }

    // Spreads the prefetches of the next chunk over the computation of this one.
    void plan_prefetch() {
        operands.prefetcher.clear();
        if (next->task) next->add_rows_to(operands.prefetcher, args);
        int64_t num_calls = now->has_values ? products.num_value_advances() : products.num_score_advances();
        if (starts_span_values())
            num_calls += now->task->num_heads * operands.rows.count * span_width() / LANES;
        operands.prefetcher.spread_over(num_calls);
    }

    // Whether the current chunk holds the first values of a span.
    bool starts_span_values() const { return now->has_values && now->starts_span(); }

    // Number of keys in the current span, padded to a multiple of PADDING.
    int64_t span_width() const { return round_up(now->span_end() - now->span_first(), PADDING); }

    void add_values() {
        if (starts_span_values()) start_span(), weigh();
        products.add_values(buffers.weights.data() + now->in_span(), span.out, span.width);
        if (!now->ends_span()) return;
        Products::end_span(span);
        if (span.out != all.out) all.add(span);
        if (now->ends_task() && !now->task->part) write<T>(operands.rows, all);
    }

    void start_span() {
        SumsLayout shape{operands.rows};
        bool is_first = now->first == now->task->first_key;
        if (is_first) all = now->task->part ? shape.in(now->task->part) : shape.in(buffers.task_sums);
        span = is_first ? all : shape.in(buffers.span_sums);
        span.clear();
    }

    void weigh() {
        const Rows& rows = operands.rows;
        for (int64_t head = 0; head < rows.task.num_heads; head++)
            for (int64_t row = 0; row < rows.count; row++) {
                int64_t i = head * rows.padded() + row;
                weigh(row, i, &buffers.scores[i * SPAN], &buffers.weights[i * SPAN]);
            }
    }

    // Computes one row's softmax weights of the span's keys, relative to the row's highest score.
    void weigh(int64_t row, int64_t of_sums, float* scores, typename Products::Weight* weights) {
        int64_t num_keys = now->span_end() - now->first, end = span_width();
        float scaling = args.scaling;
        if (args.softcap > 0) {
            for (int64_t k = 0; k < num_keys; k++)
                scores[k] = args.softcap * std::tanh(scores[k] * scaling / args.softcap);
            scaling = 1;
        }
        int64_t last = operands.rows.position(row) - now->first;
        int64_t num_visible = std::max<int64_t>(0, std::min(num_keys, last + 1));
        std::fill(scores + num_visible, scores + end, NO_SCORE);
        int64_t num_hidden = first_seen(args, operands.rows.position(row)) - now->first;
        for (int64_t k = 0; k < std::min(num_hidden, num_keys); k++) scores[k] = NO_SCORE;
        Vec most = splat(NO_SCORE);
        for (int64_t k = 0; k < end; k += LANES) most = larger(load(scores + k), most);
        float highest = maximum(most) * scaling;
        if (highest == NO_SCORE) {  // the row sees no key of this span
            std::fill(weights, weights + end, typename Products::Weight{});
            return;
        }
        Vec sums{};
        for (int64_t k = 0; k < end; k += LANES) {
            Vec weight = exp_negative(load(scores + k) * scaling - highest);
            store(weights + k, weight);
            sums += weight;
            operands.prefetcher.advance();
        }
        span.highest[of_sums] = highest, span.total[of_sums] = sum(sums);
    }
};

template <class T, class Products>
void run(const AttentionArgs& args, TaskQueue& tasks) {
    static thread_local Buffers<Products> buffers;
    Attention<T, Products>(args, tasks, buffers).run();
}

template <class T, class Products>
void attend(const AttentionArgs& args) {
    static thread_local StepTasks caller_tasks;
    StepTasks& tasks = caller_tasks;
    tasks.split(args);
#pragma omp parallel
    {
        run<T, Products>(args, tasks.many_rows);
        run<T, Products>(args, tasks.few_rows);
        for (const TaskQueue* kind : {&tasks.many_rows, &tasks.few_rows})
            if (kind->are_split()) {
#pragma omp barrier
#pragma omp for collapse(2) nowait
                for (size_t i = 0; i < kind->tasks.size(); i++)
                    for (int64_t row = 0; row < kind->max_sums; row++)
                        kind->write_merged<T>(args, i, row);
            }
    }
}

}  // namespace

extern "C" void paged_attention_f32(const AttentionArgs* args) {
    attend<float, VectorProducts<float>>(*args);
}

extern "C" void paged_attention_bf16(const AttentionArgs* args) {
#if HAS_TILES
    if (may_use_tiles()) return attend<bf16, TileProducts>(*args);
#endif
#if defined(__AVX512BF16__)
    attend<bf16, PairProducts>(*args);
#else
    attend<bf16, VectorProducts<bf16>>(*args);
#endif
}
