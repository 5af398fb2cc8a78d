// Causal attention over a paged KV cache, for decode tokens and prefill chunks in one call.
//
// A task is a tile of one sequence's query tokens with all query heads of some key heads (GQA), so
// that each key is read once for all of them. Softmax is online over chunks of keys (Milakov and
// Gimelshein, arXiv 1805.02867), in fp32. Must equal worker/kernels/reference.py.

#include <omp.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>
#include <vector>

#include "attention.h"
#include "vec.h"

namespace {

constexpr int64_t CHUNK = 128;    // keys between two rescalings
constexpr int64_t MAX_ROWS = 96;  // query rows of a tile: their buffers stay in L2
constexpr int64_t FEW_ROWS = 8;   // up to here keys are read where they lie, beyond transposed
constexpr int STRIP = REGISTERS / 8;  // vectors of a value that are summed at once, for four rows

struct Tile {
    int32_t seq;
    int32_t first;  // first token in the flattened row
    int32_t num_tokens;
    int32_t first_head;  // of the key heads
    int32_t num_heads;
};

// Asks memory for rows that are needed soon, a few lines at a time: in bursts it would stall.
struct Ahead {
    const char* const* rows = nullptr;
    const char* line = nullptr;
    int64_t lines_of_row = 0;
    int64_t left_of_row = 0;
    int64_t left = 0;
    int64_t lines_each = 0;  // each time

    // Lines of `num_rows` rows, to be asked for in so many times.
    void start(const void* const* first, int64_t num_rows, int64_t row_bytes, int64_t times) {
        rows = (const char* const*)first, line = num_rows ? rows[0] : nullptr;
        lines_of_row = left_of_row = (row_bytes + 63) / 64;
        left = num_rows * lines_of_row;
        lines_each = (left + times - 1) / times;
    }

    void ask() {
        for (int64_t i = 0; i < lines_each && left; i++) {
            __builtin_prefetch(line, 0, 2);
            line += 64, left--;
            if (--left_of_row == 0 && left) line = *++rows, left_of_row = lines_of_row;
        }
    }
};

struct Scratch {
    std::vector<float> query, scores, out, transposed, highest, total;
    Vec products[FEW_ROWS][LANES];

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

// Up to CHUNK keys of a tile and their values.
template <class T>
struct Chunk {
    const Tile* tile = nullptr;  // none: there is no further one
    int64_t first;
    int64_t num_keys;
    const T* keys[CHUNK];  // of the tile's first key head
    const T* values[CHUNK];
};

// The tiles that one thread computes, one chunk after another, the next one being brought meanwhile.
template <class T>
struct Attention {
    const AttentionArgs& args;
    const std::vector<Tile>& tiles;
    std::atomic<size_t>& next_tile;  // shared by all threads
    Scratch& scratch;
    Chunk<T> chunks[2];
    Chunk<T>*now = &chunks[0], *next = &chunks[1];
    Ahead next_keys, next_values;

    Attention(const AttentionArgs& args, const std::vector<Tile>& tiles,
              std::atomic<size_t>& next_tile, Scratch& scratch)
        : args(args), tiles(tiles), next_tile(next_tile), scratch(scratch) {}

    // Whether products are of fp32, to which other dtypes are widened.
    static constexpr bool IS_WIDENED = Dot<T>::WIDTH == LANES;
    int64_t group = args.num_heads / args.num_kv_heads;
    Tile tile{};           // the current one
    int64_t num_rows = 0;  // of one of its key heads
    int64_t head = 0;      // the current one of its key heads
    const T* const* keys = nullptr;    // of the current chunk
    const T* const* values = nullptr;

    void run() {
        take_tile(*now);
        for (; now->tile; std::swap(now, next)) {
            follow(*next);
            if (now->first == first_key(*now->tile)) begin();
            keys = now->keys, values = now->values;
            attend();
            if (next->tile != now->tile)
                for (head = 0; head < tile.num_heads; head++) write();
        }
    }

    // Position of a row's token; rows are a tile's tokens, and for each its heads.
    int64_t position(const Tile& of, int64_t row) const {
        int64_t end = args.query_starts[of.seq + 1];
        return args.context_lens[of.seq] - end + of.first + row / group;
    }

    int64_t first_key(const Tile& of) const {
        return args.window ? std::max<int64_t>(0, position(of, 0) - args.window + 1) : 0;
    }

    int64_t end_key(const Tile& of) const { return position(of, of.num_tokens * group - 1) + 1; }

    // What comes after the current chunk.
    void follow(Chunk<T>& chunk) {
        int64_t first = now->first + now->num_keys;
        if (first < end_key(*now->tile))
            locate(chunk, now->tile, first);
        else
            take_tile(chunk);
    }

    void take_tile(Chunk<T>& chunk) {
        size_t i = next_tile++;
        if (i < tiles.size())
            locate(chunk, &tiles[i], first_key(tiles[i]));
        else
            chunk.tile = nullptr;
    }

    void locate(Chunk<T>& chunk, const Tile* of, int64_t first) {
        chunk.tile = of;
        chunk.first = first;
        chunk.num_keys = std::min(CHUNK, end_key(*of) - first);
        locate_rows(chunk, args.keys, args.key_dim, chunk.keys);
        locate_rows(chunk, args.values, args.value_dim, chunk.values);
    }

    // Where a chunk's keys or values lie, up to whole vectors of them.
    void locate_rows(const Chunk<T>& chunk, const void* cache, int64_t dim, const T** rows) {
        const int32_t* table = args.block_tables + chunk.tile->seq * args.table_stride;
        int64_t block = chunk.first / args.block_size, slot = chunk.first % args.block_size;
        for (int64_t k = 0; k < chunk.num_keys; k++) {
            int64_t row = table[block] * args.block_size + slot;
            rows[k] = (const T*)cache + (row * args.num_kv_heads + chunk.tile->first_head) * dim;
            if (++slot == args.block_size) block++, slot = 0;
        }
        for (int64_t k = chunk.num_keys; k % LANES; k++) rows[k] = rows[chunk.num_keys - 1];
    }

    void begin() {
        tile = *now->tile;
        num_rows = tile.num_tokens * group;
        head = 0;
        scratch.fit(num_rows, tile.num_heads, args.key_dim, args.value_dim);
    }

    void attend() {
        int64_t num_keys = now->num_keys;
        look_ahead();
        for (head = 0; head < tile.num_heads; head++) {
            if (IS_WIDENED || num_rows > FEW_ROWS) load_query();
            if (num_rows <= FEW_ROWS)
                score_in_place(num_keys);
            else
                score_transposed(num_keys);
            for (int64_t row = 0; row < num_rows; row++) normalise(row, now->first, num_keys);
            add_values(num_keys);
        }
    }

    // Spreads the next chunk's lines over the reading of this one.
    void look_ahead() {
        int64_t num_rows_ahead = next->tile ? next->num_keys : 0;
        int64_t width = next->tile ? next->tile->num_heads * (int64_t)sizeof(T) : 0;
        int64_t times = now->num_keys * tile.num_heads;
        next_keys.start((const void* const*)next->keys, num_rows_ahead, width * args.key_dim,
                        num_rows <= FEW_ROWS ? times * num_rows : times);
        next_values.start((const void* const*)next->values, num_rows_ahead, width * args.value_dim, times);
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
            if constexpr (IS_WIDENED) widen_and_multiply(k);
            for (int64_t row = 0; row < num_rows; row++) {
                Vec* products = scratch.products[row];
                if constexpr (!IS_WIDENED) switch (args.key_dim) {
                    case 2 * Dot<T>::WIDTH: multiply<2>(products, row, k); break;
                    case 4 * Dot<T>::WIDTH: multiply<4>(products, row, k); break;
                    default: multiply(products, row, k);
                }
                store(&scratch.scores[row * CHUNK + k], sums(products) * args.scaling);
            }
        }
    }

    // LANES keys from the k-th on with all rows' queries, as each key is widened once for all of them.
    void widen_and_multiply(int64_t k) {
        constexpr int WORDS = 64 / LANES;
        std::fill_n(scratch.products[0], FEW_ROWS * LANES, Vec{});
        int64_t d = 0;
        for (; d + WORDS * LANES <= args.key_dim; d += WORDS * LANES) add_products<WORDS>(k, d);
        for (; d < args.key_dim; d += LANES) add_products<1>(k, d);
    }

    template <int WORDS>
    void add_products(int64_t k, int64_t d) {
        for (int64_t i = 0; i < LANES; i++) {
            const T* from = keys[k + i] + head * args.key_dim + d;
            int64_t left = args.key_dim - d;
            Vec key[WORDS];
            for (int w = 0; w < WORDS; w++)
                key[w] = left < LANES ? load_part(from, left) : load(from + w * LANES);
            for (int64_t row = 0; row < num_rows; row++) {
                const float* query = &scratch.query[row * args.key_dim + d];
                Vec product = scratch.products[row][i];
                for (int w = 0; w < WORDS; w++)
                    product += key[w] * (left < LANES ? load_part(query, left) : load(query + w * LANES));
                scratch.products[row][i] = product;
                if (d == 0) next_keys.ask();
            }
        }
    }

    // A row's query with LANES keys from the k-th on; each product is to be summed over its lanes.
    template <int WORDS>
    void multiply(Vec* products, int64_t row, int64_t k) {
        using D = Dot<T>;
        typename D::V query[WORDS];
        for (int i = 0; i < WORDS; i++) query[i] = D::get(query_of(row) + i * D::WIDTH);
        for (int64_t i = 0; i < LANES; i++) {
            const T* key = keys[k + i] + head * WORDS * D::WIDTH;
            products[i] = Vec{};
            for (int w = 0; w < WORDS; w++) D::add(products[i], query[w], D::get(key + w * D::WIDTH));
            next_keys.ask();
        }
    }

    // The same for any size.
    void multiply(Vec* products, int64_t row, int64_t k) {
        using D = Dot<T>;
        const T* query = query_of(row);
        for (int64_t i = 0; i < LANES; i++) {
            const T* key = keys[k + i] + head * args.key_dim;
            products[i] = Vec{};
            int64_t d = 0;
            for (; d + D::WIDTH <= args.key_dim; d += D::WIDTH)
                D::add(products[i], D::get(query + d), D::get(key + d));
            if (int64_t left = args.key_dim - d)
                D::add(products[i], D::get_part(query + d, left), D::get_part(key + d, left));
            next_keys.ask();
        }
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
                if (d == 0) next_keys.ask();
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
        int64_t last = position(tile, row) - first;
        for (int64_t k = std::max<int64_t>(0, last + 1); k < num_keys; k++) scores[k] = NONE;
        if (args.window)
            for (int64_t k = 0; k <= std::min(last - args.window, num_keys - 1); k++) scores[k] = NONE;
        int64_t padded = round_up(num_keys, LANES);
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
        for (; d + STRIP * LANES <= args.value_dim; d += STRIP * LANES) add_strip<STRIP>(num_keys, d);
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
        const bool asks = row == 0 && d == 0;
        for (int i = 0; i < ROWS; i++)
            for (int v = 0; v < VECS; v++) sums[i][v] = load(out + i * args.value_dim + v * LANES);
        for (int64_t k = 0; k < num_keys; k++) {
            Vec value[VECS];
            if (asks) next_values.ask();
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
    std::atomic<size_t> next_tile{0};
#pragma omp parallel
    {
        static thread_local Scratch scratch;
        Attention<T>(args, tiles, next_tile, scratch).run();
    }
}

}  // namespace

extern "C" void paged_attention_f32(const AttentionArgs* args) { attend<float>(*args); }
extern "C" void paged_attention_bf16(const AttentionArgs* args) { attend<bf16>(*args); }
