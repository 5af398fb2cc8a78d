// Causal attention over a paged KV cache, for decode tokens and prefill chunks in one call.
//
// A task is a tile of one sequence's query tokens with all query heads of some key heads (GQA), so
// that each key is read once for all of them. Softmax is online over chunks of keys (Milakov and
// Gimelshein, arXiv 1805.02867), in fp32. Must equal worker/kernels/reference.py.

#include <omp.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "vec.h"

namespace {

constexpr int64_t CHUNK = 128;    // keys between two rescalings
constexpr int64_t MAX_ROWS = 96;  // query rows of a tile: their buffers stay in L2
constexpr int64_t FEW_ROWS = 8;   // up to here keys are read where they lie, beyond transposed

struct AttentionArgs {
    const void* query;  // [T, num_heads, key_dim]
    void* out;          // [T, num_heads, value_dim], contiguous
    const void* keys;   // [num_blocks, block_size, num_kv_heads, key_dim]
    const void* values;
    const int32_t* block_tables;  // [num_seqs, table_stride]
    const int32_t* query_starts;  // [num_seqs + 1]
    const int32_t* context_lens;  // [num_seqs]
    int64_t query_stride;         // elements between tokens
    int64_t table_stride;
    int64_t num_seqs;
    int64_t num_heads;
    int64_t num_kv_heads;
    int64_t key_dim;
    int64_t value_dim;
    int64_t block_size;
    int64_t window;  // 0: none
    float scaling;
    float softcap;  // 0: none
};

struct Tile {
    int32_t seq;
    int32_t first;  // first token in the flattened row
    int32_t num_tokens;
    int32_t first_head;  // of the key heads
    int32_t num_heads;
};

struct Scratch {
    std::vector<float> query, scores, out, transposed, highest, total;

    // `rows` for each of `heads` key heads; scores and query are of one head at a time.
    void fit(int64_t rows, int64_t heads, int64_t key_dim, int64_t value_dim) {
        query.resize(rows * key_dim);
        scores.resize(rows * CHUNK);
        transposed.resize(LANES * (key_dim + LANES));
        out.assign(heads * rows * value_dim, 0.0f);
        highest.assign(heads * rows, -std::numeric_limits<float>::infinity());
        total.assign(heads * rows, 0.0f);
    }
};

template <class T>
struct Attention {
    const AttentionArgs& args;
    const Tile& tile;
    Scratch& scratch;

    Attention(const AttentionArgs& args, const Tile& tile, Scratch& scratch)
        : args(args), tile(tile), scratch(scratch) {}

    int64_t group = args.num_heads / args.num_kv_heads;
    int64_t num_rows = tile.num_tokens * group;  // of one key head
    int64_t head = 0;                            // the current one of the tile's key heads
    const T* keys[CHUNK];                        // of the current chunk and the first head
    const T* values[CHUNK];

    // Position of a row's token; rows are the tile's tokens, and for each its heads.
    int64_t position(int64_t row) const {
        int64_t end = args.query_starts[tile.seq + 1];
        return args.context_lens[tile.seq] - end + tile.first + row / group;
    }

    // Where some keys or values lie, up to whole vectors of them.
    void locate(const void* cache, int64_t dim, int64_t first, int64_t num_keys, const T** rows) {
        const int32_t* table = args.block_tables + tile.seq * args.table_stride;
        int64_t block = first / args.block_size, slot = first % args.block_size;
        for (int64_t k = 0; k < num_keys; k++) {
            int64_t row = table[block] * args.block_size + slot;
            rows[k] = (const T*)cache + (row * args.num_kv_heads + tile.first_head) * dim;
            if (++slot == args.block_size) block++, slot = 0;
        }
        for (int64_t k = num_keys; k % LANES; k++) rows[k] = rows[num_keys - 1];
    }

    // Asks for the row of all the tile's heads.
    void prefetch(const T* row, int64_t dim) const {
        const char* from = (const char*)row;
        for (int64_t i = 0; i < tile.num_heads * dim * (int64_t)sizeof(T); i += 64)
            __builtin_prefetch(from + i, 0, 2);
    }

    void run() {
        scratch.fit(num_rows, tile.num_heads, args.key_dim, args.value_dim);
        if (num_rows > FEW_ROWS) load_query();
        int64_t end = position(num_rows - 1) + 1;
        int64_t start = args.window ? std::max<int64_t>(0, position(0) - args.window + 1) : 0;
        for (int64_t key = start; key < end; key += CHUNK) {
            int64_t num_keys = std::min(CHUNK, end - key);
            locate(args.keys, args.key_dim, key, num_keys, keys);
            locate(args.values, args.value_dim, key, num_keys, values);
            for (head = 0; head < tile.num_heads; head++) {
                if (num_rows <= FEW_ROWS)
                    score_in_place(num_keys);
                else
                    score_transposed(num_keys);
                for (int64_t row = 0; row < num_rows; row++) normalise(row, key, num_keys);
                add_values(num_keys);
            }
        }
        for (head = 0; head < tile.num_heads; head++) write();
    }

    int64_t query_head(int64_t row) const { return (tile.first_head + head) * group + row % group; }

    const T* query_of(int64_t row) const {
        return (const T*)args.query + (tile.first + row / group) * args.query_stride +
               query_head(row) * args.key_dim;
    }

    void load_query() {
        for (int64_t row = 0; row < num_rows; row++) {
            const T* from = query_of(row);
            float* to = &scratch.query[row * args.key_dim];
            for (int64_t d = 0; d < args.key_dim; d++) to[d] = to_float(from[d]);
        }
    }

    // The cache is read once and scattered, so that only asking ahead keeps memory busy.
    void score_in_place(int64_t num_keys) {
        for (int64_t k = 0; k < num_keys; k += LANES) {
            for (int64_t i = k; i < k + LANES && head == 0; i++) {
                if (i + LANES < num_keys) prefetch(keys[i + LANES], args.key_dim);
                prefetch(values[i], args.value_dim);
            }
            for (int64_t row = 0; row < num_rows; row++) {
                Vec products[LANES];
                const T* query = query_of(row);
                for (int64_t i = 0; i < LANES; i++)
                    products[i] = multiply(query, keys[k + i] + head * args.key_dim);
                store(&scratch.scores[row * CHUNK + k], sums(products) * args.scaling);
            }
        }
    }

    // To be summed over the lanes.
    Vec multiply(const T* query, const T* key) const {
        using D = Dot<T>;
        Vec products{};
        int64_t d = 0;
        for (; d + D::WIDTH <= args.key_dim; d += D::WIDTH)
            D::add(products, D::get(query + d), D::get(key + d));
        if (int64_t left = args.key_dim - d)
            D::add(products, D::get_part(query + d, left), D::get_part(key + d, left));
        return products;
    }

    void score_transposed(int64_t num_keys) {
        for (int64_t k = 0; k < num_keys; k += LANES) {
            transpose_keys(keys + k);
            int64_t row = 0;
            for (; row + 8 <= num_rows; row += 8) score_rows<8>(row, k);
            for (; row < num_rows; row++) score_rows<1>(row, k);
        }
    }

    // Sixteen keys as [key_dim, 16] in fp32.
    void transpose_keys(const T* const* rows) {
        for (int64_t d = 0; d < args.key_dim; d += LANES) {
            int64_t num_dims = std::min(LANES, args.key_dim - d);
            Vec v[LANES];
            for (int64_t k = 0; k < LANES; k++) {
                const T* row = rows[k] + head * args.key_dim + d;
                v[k] = num_dims == LANES ? load(row) : load_part(row, num_dims);
            }
            transpose(v);
            for (int64_t i = 0; i < LANES; i++) store(&scratch.transposed[(d + i) * LANES], v[i]);
        }
    }

    template <int ROWS>
    void score_rows(int64_t row, int64_t k) {
        const float* query = &scratch.query[row * args.key_dim];
        Vec scores[ROWS] = {};
        for (int64_t d = 0; d < args.key_dim; d++) {
            Vec keys = load(&scratch.transposed[d * LANES]);
            for (int i = 0; i < ROWS; i++) scores[i] += query[i * args.key_dim + d] * keys;
        }
        for (int i = 0; i < ROWS; i++) store(&scratch.scores[(row + i) * CHUNK + k], scores[i] * args.scaling);
    }

    // Turns a row's scores into weights relative to its highest score so far.
    void normalise(int64_t row, int64_t first, int64_t num_keys) {
        float* scores = &scratch.scores[row * CHUNK];
        float& highest_so_far = scratch.highest[head * num_rows + row];
        constexpr float NONE = -std::numeric_limits<float>::infinity();
        if (args.softcap > 0)
            for (int64_t k = 0; k < num_keys; k++)
                scores[k] = args.softcap * std::tanh(scores[k] / args.softcap);
        int64_t last = position(row) - first;
        for (int64_t k = std::max<int64_t>(0, last + 1); k < num_keys; k++) scores[k] = NONE;
        if (args.window)
            for (int64_t k = 0; k <= std::min(last - args.window, num_keys - 1); k++) scores[k] = NONE;
        int64_t padded = (num_keys + LANES - 1) / LANES * LANES;
        for (int64_t k = num_keys; k < padded; k++) scores[k] = NONE;
        Vec most = splat(highest_so_far);
        for (int64_t k = 0; k < padded; k += LANES) most = larger(load(scores + k), most);
        float highest = maximum(most);
        if (highest == NONE) {  // nothing seen yet: all weights are 0
            std::fill(scores, scores + padded, 0.0f);
            return;
        }
        Vec weights{};
        for (int64_t k = 0; k < padded; k += LANES) {
            Vec weight = exp_negative(load(scores + k) - highest);
            store(scores + k, weight);
            weights += weight;
        }
        float& total = scratch.total[head * num_rows + row];
        if (highest_so_far != highest) {
            float factor = std::exp(highest_so_far - highest);
            total *= factor;
            for (int64_t d = 0; d < args.value_dim; d++) out_of(row)[d] *= factor;
            highest_so_far = highest;
        }
        total += sum(weights);
    }

    float* out_of(int64_t row) { return &scratch.out[(head * num_rows + row) * args.value_dim]; }

    void add_values(int64_t num_keys) {
        int64_t d = 0;
        for (; d + 4 * LANES <= args.value_dim; d += 4 * LANES) add_strip<4>(num_keys, d);
        for (; d + LANES <= args.value_dim; d += LANES) add_strip<1>(num_keys, d);
        for (; d < args.value_dim; d++)
            for (int64_t row = 0; row < num_rows; row++)
                for (int64_t k = 0; k < num_keys; k++)
                    out_of(row)[d] += scratch.scores[row * CHUNK + k] *
                                      to_float(values[k][head * args.value_dim + d]);
    }

    template <int VECS>
    void add_strip(int64_t num_keys, int64_t d) {
        int64_t row = 0;
        for (; row + 4 <= num_rows; row += 4) add_rows<4, VECS>(num_keys, d, row);
        for (; row + 3 <= num_rows; row += 3) add_rows<3, VECS>(num_keys, d, row);
        for (; row < num_rows; row++) add_rows<1, VECS>(num_keys, d, row);
    }

    template <int ROWS, int VECS>
    void add_rows(int64_t num_keys, int64_t d, int64_t row) {
        Vec sums[ROWS][VECS];
        int64_t from = head * args.value_dim + d;
        float* out = out_of(row) + d;
        const float* weights = &scratch.scores[row * CHUNK];
        for (int i = 0; i < ROWS; i++)
            for (int v = 0; v < VECS; v++) sums[i][v] = load(out + i * args.value_dim + v * LANES);
        for (int64_t k = 0; k < num_keys; k++) {
            Vec value[VECS];
            for (int v = 0; v < VECS; v++) value[v] = load(values[k] + from + v * LANES);
            for (int i = 0; i < ROWS; i++)
                for (int v = 0; v < VECS; v++) sums[i][v] += weights[i * CHUNK + k] * value[v];
        }
        for (int i = 0; i < ROWS; i++)
            for (int v = 0; v < VECS; v++) store(out + i * args.value_dim + v * LANES, sums[i][v]);
    }

    void write() {
        for (int64_t row = 0; row < num_rows; row++) {
            int64_t token = tile.first + row / group;
            T* to = (T*)args.out + (token * args.num_heads + query_head(row)) * args.value_dim;
            const float* from = out_of(row);
            float factor = 1.0f / scratch.total[head * num_rows + row];
            int64_t d = 0;
            for (; d + LANES <= args.value_dim; d += LANES) store(to + d, load(from + d) * factor);
            for (; d < args.value_dim; d++) from_float(to + d, from[d] * factor);
        }
    }
};

// Many decoding sequences take all heads at once, which reads the cache as it lies; few sequences
// and prefill chunks go by head, which gives every thread something.
std::vector<Tile> cut_into_tiles(const AttentionArgs& args, int num_threads) {
    int32_t group = (int32_t)(args.num_heads / args.num_kv_heads);
    int32_t size = (int32_t)std::max<int64_t>(1, MAX_ROWS / group);
    std::vector<Tile> tiles;
    for (int32_t seq = 0; seq < args.num_seqs; seq++) {
        int32_t start = args.query_starts[seq], end = args.query_starts[seq + 1];
        bool is_decode = (end - start) * group <= FEW_ROWS;
        bool together = is_decode && args.num_seqs >= 4 * num_threads;
        int32_t heads = together ? (int32_t)args.num_kv_heads : 1;
        for (int32_t first = start; first < end; first += size)
            for (int32_t head = 0; head < args.num_kv_heads; head += heads)
                tiles.push_back({seq, first, std::min(size, end - first), head, heads});
    }
    return tiles;
}

template <class T>
void attend(const AttentionArgs& args) {
    std::vector<Tile> tiles = cut_into_tiles(args, omp_get_max_threads());
#pragma omp parallel
    {
        static thread_local Scratch scratch;
#pragma omp for schedule(dynamic, 1)
        for (size_t i = 0; i < tiles.size(); i++) Attention<T>(args, tiles[i], scratch).run();
    }
}

}  // namespace

extern "C" void paged_attention_f32(const AttentionArgs* args) { attend<float>(*args); }
extern "C" void paged_attention_bf16(const AttentionArgs* args) { attend<bf16>(*args); }
