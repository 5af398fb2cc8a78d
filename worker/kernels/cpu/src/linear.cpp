// y = x w^T + bias in bfloat16 with fp32 sums, for weights that were packed once.
//
// Packed: [N / COLUMNS][K / DEPTH][COLUMNS / WIDTH][DEPTH / 2][WIDTH][2], so that a vector has two
// neighbours of each of its columns, and memory is read in the order in which it lies. The last
// columns and inputs are padded with zeros.

#include <algorithm>

#include "tiles.h"

// Where Linux refuses tiles to the process, linear_supported is 0, and torch multiplies.
#if HAS_TILES
#include "linear_tiles.h"
#define HAS_LINEAR 1
#elif defined(__AVX512F__) || (defined(__AVX2__) && defined(__FMA__))
#include "linear_vectors.h"
#define HAS_LINEAR 1
#else
#include "vec.h"
#define HAS_LINEAR 0
#endif

#if HAS_LINEAR

extern "C" int linear_supported() { return is_allowed(); }

extern "C" int64_t linear_packed_size(int64_t n, int64_t k) {
    return round_up(n, COLUMNS) * round_up(k, DEPTH);
}

extern "C" void linear_pack(const bf16* w, bf16* packed, int64_t n, int64_t k) {
    int64_t depth = round_up(k, DEPTH);
#pragma omp parallel for
    for (int64_t block = 0; block < n; block += COLUMNS) {
        bf16* to = packed + block * depth;
        for (int64_t i = 0; i < depth; i += DEPTH)
            for (int64_t group = block; group < block + COLUMNS; group += WIDTH)
                for (int64_t pair = i; pair < i + DEPTH; pair += 2)
                    for (int64_t column = group; column < group + WIDTH; column++)
                        for (int64_t j = pair; j < pair + 2; j++)
                            *to++ = column < n && j < k ? w[column * k + j] : bf16{0};
    }
}

extern "C" void linear(const bf16* x, int64_t x_stride, const bf16* packed, const bf16* bias,
                       bf16* y, int64_t y_stride, int64_t rows, int64_t n, int64_t k) {
    if (!rows) return;
    const Input* all = inputs(x, x_stride, rows, k);
    int64_t depth = round_up(k, DEPTH);
#pragma omp parallel
    {
        [[maybe_unused]] Unit unit;
#pragma omp for schedule(static)
        for (int64_t block = 0; block < n; block += COLUMNS)
            rows_of_block(rows, all, x_stride, packed + block * depth, bias ? bias + block : nullptr,
                          y + block, y_stride, std::min(COLUMNS, n - block), depth,
                          block + COLUMNS < n);
    }
}

#else

extern "C" int linear_supported() { return 0; }
extern "C" int64_t linear_packed_size(int64_t, int64_t) { return 0; }
extern "C" void linear_pack(const bf16*, bf16*, int64_t, int64_t) {}
extern "C" void linear(const bf16*, int64_t, const bf16*, const bf16*, bf16*, int64_t, int64_t,
                       int64_t, int64_t) {}

#endif
