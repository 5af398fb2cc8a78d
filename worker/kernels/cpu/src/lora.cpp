// Adds each token's own LoRA term to the outputs of linears that read the same input:
//
//     y[t, offset + o] += sum_r b[r, o] * (sum_i a[r, i] * x[t, i])     r over the adapter's rows
//
// Tokens are grouped by adapter whatever their order in the batch (SGMV, arXiv 2310.18547), rows
// lie in pages, and no token is multiplied by a row that isn't its own. Sums are fp32; the inner
// one is rounded to the dtype, as PEFT's first linear does. Must equal
// worker/kernels/reference.py.

#include <omp.h>

#include <algorithm>
#include <vector>

#include "lora.h"
#include "vec.h"

namespace {

constexpr int64_t PAGE_ROWS = 8;      // equals worker/lora/pages.py
constexpr int64_t TOKEN_TILE = 64;    // of a shrink task
constexpr int64_t COLUMN_TILE = 192;  // of an expand task, where each has many tokens or there are few
constexpr int64_t WIDE_TILE = 1536;   // where there are many with few tokens
constexpr int64_t FEW_TOKENS = 8;

// Tiles whose sums fill the registers, but for what is multiplied.
constexpr int SHRINK_ROWS = LANES / 4;  // by 4 tokens: a vector of sums
constexpr int SHRINK_ROWS_ALONE = REGISTERS == 32 ? 4 : 8;  // by one token
constexpr int EXPAND_TOKENS = REGISTERS / 4;
constexpr int EXPAND_SUMS = REGISTERS == 32 ? 24 : 8;

struct Task {
    const Site* site;
    const int32_t* tokens;
    const int32_t* pages;
    float* shrunk;  // [tokens of the adapter, rows of the adapter]
    int64_t num_tokens;
    int64_t num_pages;
    int64_t first;  // page of a shrink task, column of an expand task
    int64_t width;  // columns of an expand task
};

template <class T>
const T* a_of(const Task& task, int64_t page) {
    return (const T*)task.site->a + task.pages[page] * task.site->a_stride;
}

template <class T>
const T* b_of(const Task& task, int64_t page) {
    return (const T*)task.site->b + task.pages[page] * task.site->b_stride;
}

template <class T, int TOKENS, int ROWS>
void shrink_tile(const Task& task, const LoRAArgs& args, int64_t token, int64_t row) {
    using D = Dot<T>;
    const T *x[TOKENS], *a[ROWS];
    const T* page = a_of<T>(task, task.first);
    for (int i = 0; i < TOKENS; i++) x[i] = (const T*)args.x + task.tokens[token + i] * args.x_stride;
    for (int r = 0; r < ROWS; r++) a[r] = page + (row + r) * args.in_features;
    Vec products[TOKENS][ROWS] = {};
    int64_t k = 0;
    for (; k + D::WIDTH <= args.in_features; k += D::WIDTH) {
        typename D::V rows[ROWS];
        for (int r = 0; r < ROWS; r++) {
            rows[r] = D::get(a[r] + k);
            __builtin_prefetch(a[r] + ROWS * args.in_features + k);
        }
        for (int i = 0; i < TOKENS; i++) {
            typename D::V values = D::get(x[i] + k);
            for (int r = 0; r < ROWS; r++) D::add(products[i][r], values, rows[r]);
        }
    }
    if (int64_t left = args.in_features - k)
        for (int i = 0; i < TOKENS; i++)
            for (int r = 0; r < ROWS; r++)
                D::add(products[i][r], D::get_part(x[i] + k, left), D::get_part(a[r] + k, left));
    int64_t stride = task.num_pages * PAGE_ROWS;
    float* out = task.shrunk + token * stride + task.first * PAGE_ROWS + row;
    if constexpr (TOKENS * ROWS == LANES) {
        float flat[LANES];
        store(flat, sums(&products[0][0]));
        for (int i = 0; i < LANES; i++)
            out[i / ROWS * stride + i % ROWS] = rounded(flat[i], (const T*)nullptr);
    } else {
        for (int i = 0; i < TOKENS; i++)
            for (int r = 0; r < ROWS; r++)
                out[i * stride + r] = rounded(sum(products[i][r]), (const T*)nullptr);
    }
}

template <class T>
void shrink(const Task& task, const LoRAArgs& args) {
    int64_t token = 0;
    for (; token + 4 <= task.num_tokens; token += 4)
        for (int64_t row = 0; row < PAGE_ROWS; row += SHRINK_ROWS)
            shrink_tile<T, 4, SHRINK_ROWS>(task, args, token, row);
    for (; token < task.num_tokens; token++)
        for (int64_t row = 0; row < PAGE_ROWS; row += SHRINK_ROWS_ALONE)
            shrink_tile<T, 1, SHRINK_ROWS_ALONE>(task, args, token, row);
}

template <class T, int TOKENS, int VECS>
void expand_tile(const Task& task, const LoRAArgs& args, int64_t token, int64_t column, int64_t width) {
    int64_t num_rows = task.num_pages * PAGE_ROWS, stride = task.site->out_features;
    const float* shrunk = task.shrunk + token * num_rows;
    Vec sums[TOKENS][VECS] = {};
    for (int64_t page = 0; page < task.num_pages; page++) {
        const T* b = b_of<T>(task, page) + column;
        for (int64_t r = 0; r < PAGE_ROWS; r++, b += stride) {
            Vec weights[VECS];
            for (int v = 0; v < VECS; v++)
                weights[v] = width < LANES ? load_part(b, width) : load(b + v * LANES);
            for (int i = 0; i < TOKENS; i++)
                for (int v = 0; v < VECS; v++)
                    sums[i][v] += shrunk[i * num_rows + page * PAGE_ROWS + r] * weights[v];
        }
    }
    for (int i = 0; i < TOKENS; i++) {
        T* y = (T*)args.y + task.tokens[token + i] * args.y_stride + task.site->offset + column;
        for (int v = 0; v < VECS; v++) {
            if (width < LANES)
                store_part(y, load_part(y, width) + sums[i][v], width);
            else
                store(y + v * LANES, load(y + v * LANES) + sums[i][v]);
        }
    }
}

// As many tokens at once as leave registers for `VECS` vectors of each.
template <class T, int TOKENS, int VECS>
void expand_tokens(const Task& task, const LoRAArgs& args, int64_t& token) {
    int64_t end = std::min(task.first + task.width, task.site->out_features);
    for (; token + TOKENS <= task.num_tokens; token += TOKENS) {
        int64_t column = task.first;
        for (; column + VECS * LANES <= end; column += VECS * LANES)
            expand_tile<T, TOKENS, VECS>(task, args, token, column, VECS * LANES);
        for (; column < end; column += LANES)
            expand_tile<T, TOKENS, 1>(task, args, token, column, std::min(LANES, end - column));
    }
}

// For few tokens, where reading b is what takes time: four of its rows at once from left to right,
// which is the order that memory likes, with the sums in L1.
template <class T, int TOKENS>
void expand_streaming(const Task& task, const LoRAArgs& args, int64_t& token) {
    constexpr int ROWS = 4;
    int64_t num_rows = task.num_pages * PAGE_ROWS, stride = task.site->out_features;
    int64_t width = std::min(task.width, stride - task.first), whole = width / LANES * LANES;
    for (; token + TOKENS <= task.num_tokens; token += TOKENS) {
        alignas(64) float sums[TOKENS][WIDE_TILE] = {};
        const float* shrunk = task.shrunk + token * num_rows;
        for (int64_t row = 0; row < num_rows; row += ROWS) {
            const T* b = b_of<T>(task, row / PAGE_ROWS) + row % PAGE_ROWS * stride + task.first;
            for (int64_t c = 0; c < whole; c += LANES)
                for (int i = 0; i < TOKENS; i++) {
                    const float* factor = shrunk + i * num_rows + row;
                    Vec sum = load(&sums[i][c]);
                    for (int r = 0; r < ROWS; r++) sum += factor[r] * load(b + r * stride + c);
                    store(&sums[i][c], sum);
                }
            for (int64_t c = whole; c < width; c++)
                for (int i = 0; i < TOKENS; i++)
                    for (int r = 0; r < ROWS; r++)
                        sums[i][c] += shrunk[i * num_rows + row + r] * to_float(b[r * stride + c]);
        }
        for (int i = 0; i < TOKENS; i++) {
            T* y = (T*)args.y + task.tokens[token + i] * args.y_stride + task.site->offset +
                   task.first;
            for (int64_t c = 0; c < whole; c += LANES)
                store(y + c, load(y + c) + load(&sums[i][c]));
            for (int64_t c = whole; c < width; c++) from_float(y + c, to_float(y[c]) + sums[i][c]);
        }
    }
}

template <class T>
void expand(const Task& task, const LoRAArgs& args) {
    int64_t token = 0;
    if (task.num_tokens < FEW_TOKENS) {
        expand_streaming<T, 4>(task, args, token);
        expand_streaming<T, 2>(task, args, token);
        expand_streaming<T, 1>(task, args, token);
    } else {
        expand_tokens<T, EXPAND_TOKENS, EXPAND_SUMS / EXPAND_TOKENS>(task, args, token);
        expand_tokens<T, EXPAND_TOKENS / 2, 2 * EXPAND_SUMS / EXPAND_TOKENS>(task, args, token);
        expand_tokens<T, 1, EXPAND_SUMS / 2>(task, args, token);
    }
}

void add_tasks(const LoRAArgs& args, std::vector<float>& buffer, std::vector<Task>& shrinks,
               std::vector<Task>& expands) {
    const Plan& plan = *args.plan;
    bool many = args.num_sites * plan.num_adapters >= 4 * omp_get_max_threads();
    size_t size = 0;
    for (int pass = 0; pass < 2; pass++) {  // the first one measures the buffer
        if (pass) buffer.resize(std::max(size, buffer.size()));
        size = 0;
        for (const Site* site = args.sites; site < args.sites + args.num_sites; site++) {
            const Pages& pages = plan.groups[site->group];
            for (int64_t i = 0; i < plan.num_adapters; i++) {
                int64_t num_tokens = plan.token_starts[i + 1] - plan.token_starts[i];
                int64_t num_pages = pages.starts[i + 1] - pages.starts[i];
                float* shrunk = buffer.data() + size;
                size += num_tokens * num_pages * PAGE_ROWS;
                if (!pass || !num_pages) continue;
                const int32_t* numbers = pages.pages + site->layer * pages.row_length;
                Task task{site, plan.tokens + plan.token_starts[i], numbers + pages.starts[i],
                          shrunk, num_tokens, num_pages, 0, many && num_tokens < FEW_TOKENS ? WIDE_TILE : COLUMN_TILE};
                for (int64_t c = 0; c < site->out_features; c += task.width) {
                    task.first = c;
                    expands.push_back(task);
                }
                for (int64_t t = 0; t < num_tokens; t += TOKEN_TILE)
                    for (int64_t page = 0; page < num_pages; page++) {
                        Task part = task;
                        part.first = page;
                        part.tokens += t;
                        part.shrunk += t * num_pages * PAGE_ROWS;
                        part.num_tokens = std::min(TOKEN_TILE, num_tokens - t);
                        shrinks.push_back(part);
                    }
            }
        }
    }
}

template <class T>
void add_lora(const LoRAArgs& args) {
    static thread_local std::vector<float> buffer;
    static thread_local std::vector<Task> shrinks, expands;
    shrinks.clear();
    expands.clear();
    add_tasks(args, buffer, shrinks, expands);
    const std::vector<Task>&first = shrinks, &second = expands;
#pragma omp parallel
    {
#pragma omp for schedule(static, 1)
        for (size_t i = 0; i < first.size(); i++) shrink<T>(first[i], args);
#pragma omp for schedule(static, 1) nowait
        for (size_t i = 0; i < second.size(); i++) expand<T>(second[i], args);
    }
}

}  // namespace

extern "C" void add_lora_f32(const LoRAArgs* args) { add_lora<float>(*args); }
extern "C" void add_lora_bf16(const LoRAArgs* args) { add_lora<bf16>(*args); }
