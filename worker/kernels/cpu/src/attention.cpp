// Causal attention over a paged KV cache, for decode tokens and prefill chunks in one call.
//
// A task is some query tokens of one sequence with all query heads of some key heads (GQA), so that
// each key is read once for all of them. A span of keys has one softmax, in fp32, and spans are added
// (Milakov and Gimelshein, arXiv 1805.02867): where there are few tasks, as tasks of their own (Flash-
// Decoding, Dao et al. 2023). A row's result is the same to the bit however tasks are cut, and whatever
// other rows are computed with it; but few rows get other bits than many on tiles. Must equal
// worker/kernels/reference.py.

#include "attention.h"

#include <omp.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "attention_pairs.h"
#include "attention_sums.h"
#include "attention_task.h"
#include "attention_tasks.h"
#include "attention_tiles.h"
#include "attention_vectors.h"

namespace {

// What one thread keeps from step to step.
template <class Products>
struct Buffers {
    typename Products::Buffers products;
    std::vector<float> scores, task_sums, span_sums;
    std::vector<typename Products::Weight> weights;
};

// The tasks that one thread computes, one chunk after another, the next one being brought meanwhile.
template <class T, class Products>
class Attention {
public:
    Attention(const AttentionArgs& args, Tasks& tasks, Buffers<Products>& buffers)
        : args(args), tasks(tasks), buffers(buffers) {}

    void run() {
        take_task(*now);
        for (; now->task; std::swap(now, next)) {
            follow(*next);
            operands.chunk = now;
            if (now->starts_task()) start_task();
            look_ahead();
            if (now->has_values)
                add_values();
            else
                products.score(buffers.scores.data() + now->in_span());
        }
    }

private:
    const AttentionArgs& args;
    Tasks& tasks;
    Buffers<Products>& buffers;
    Chunk<T> chunks[2];
    Chunk<T>*now = &chunks[0], *next = &chunks[1];
    Operands<T> operands;
    Products products{operands, buffers.products};
    Sums all;   // of the task
    Sums span;  // of the current span, until it is added to the others

    void take_task(Chunk<T>& chunk) {
        chunk.task = tasks.take();
        if (chunk.task) chunk.locate_keys(args, chunk.task, chunk.task->first_key);
    }

    // What comes after the current chunk: a span's keys, then its values.
    void follow(Chunk<T>& chunk) {
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

    // Spreads the next chunk's lines over the reading of this one.
    void look_ahead() {
        operands.next.clear();
        if (next->task) next->ask(args, operands.next);
        int64_t num_asks = now->has_values ? products.num_value_asks() : products.num_score_asks();
        if (weighs()) num_asks += now->task->num_heads * operands.rows.count * span_width() / LANES;
        operands.next.start(num_asks);
    }

    // Whether the current chunk has a span's first values.
    bool weighs() const { return now->has_values && now->starts_span(); }

    // Keys of the current span, padded.
    int64_t span_width() const { return round_up(now->span_end() - now->span_first(), WHOLE); }

    void add_values() {
        if (weighs()) start_span(), weigh();
        products.add_values(buffers.weights.data() + now->in_span(), span.out, span.width);
        if (!now->ends_span()) return;
        Products::end_span(span);
        if (span.out != all.out) all.add(span);
        if (now->ends_task() && !now->task->part) write<T>(operands.rows, all);
    }

    void start_span() {
        SumsShape shape{operands.rows};
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

    // A row's weights of the span's keys, relative to its highest score.
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
        std::fill(scores + num_visible, scores + end, NONE);
        if (args.window)
            for (int64_t k = 0; k <= std::min(last - args.window, num_keys - 1); k++) scores[k] = NONE;
        Vec most = splat(NONE);
        for (int64_t k = 0; k < end; k += LANES) most = larger(load(scores + k), most);
        float highest = maximum(most) * scaling;
        if (highest == NONE) {  // it sees none of them
            std::fill(weights, weights + end, typename Products::Weight{});
            return;
        }
        Vec sums{};
        for (int64_t k = 0; k < end; k += LANES) {
            Vec weight = exp_negative(load(scores + k) * scaling - highest);
            store(weights + k, weight);
            sums += weight;
            operands.next.ask();
        }
        span.highest[of_sums] = highest, span.total[of_sums] = sum(sums);
    }
};

template <class T, class Products>
void run(const AttentionArgs& args, Tasks& tasks) {
    static thread_local Buffers<Products> buffers;
    Attention<T, Products>(args, tasks, buffers).run();
}

template <class T, class FewProducts, class ManyProducts>
void attend(const AttentionArgs& args) {
    static thread_local TasksOfKinds of_caller;
    TasksOfKinds& tasks = of_caller;
    tasks.cut(args);
#pragma omp parallel
    {
        run<T, ManyProducts>(args, tasks.many);
        run<T, FewProducts>(args, tasks.few);
        for (const Tasks* kind : {&tasks.many, &tasks.few})
            if (kind->are_cut()) {
#pragma omp barrier
#pragma omp for collapse(2) nowait
                for (size_t i = 0; i < kind->whole.size(); i++)
                    for (int64_t row = 0; row < kind->max_sums; row++)
                        kind->write_whole<T>(args, i, row);
            }
    }
}

}  // namespace

extern "C" void paged_attention_f32(const AttentionArgs* args) {
    attend<float, VectorProducts<float>, VectorProducts<float>>(*args);
}

extern "C" void paged_attention_bf16(const AttentionArgs* args) {
#if HAS_TILES
    if (may_use_tiles()) return attend<bf16, PairProducts, TileProducts>(*args);
#endif
#if defined(__AVX512BF16__)
    attend<bf16, PairProducts, PairProducts>(*args);
#else
    attend<bf16, VectorProducts<bf16>, VectorProducts<bf16>>(*args);
#endif
}
