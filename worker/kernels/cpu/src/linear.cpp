// y = x w^T + bias in bfloat16 with fp32 sums, for weights that were packed once.
//
// Packed: [N / 48][K / 2][48][2], so that one instruction multiplies two neighbours of a token by
// the same two of sixteen columns, and memory is read in the order in which it lies. The last
// columns are padded with zeros. Only for CPUs that multiply bfloat16 (AVX512_BF16).

#include <algorithm>

#include "vec.h"

namespace {

constexpr int64_t VECS = 3;
constexpr int64_t COLUMNS = VECS * LANES;
constexpr int64_t ROWS = 8;  // times VECS sums: most of the registers

#if defined(__AVX512BF16__)

// `ahead` is what a later tile will read: `ahead_step` bytes of it are asked for with every pair.
template <int R>
void tile(const bf16* x, int64_t x_stride, const bf16* w, const bf16* bias, bf16* y,
          int64_t y_stride, int64_t num_columns, int64_t k, const char* ahead,
          int64_t ahead_step) {
    __m512 sums[R][VECS];
    for (int v = 0; v < VECS; v++) {
        int64_t n = std::clamp<int64_t>(num_columns - v * LANES, 0, LANES);
        __m512 start = (__m512)(bias ? load_part(bias + v * LANES, n) : Vec{});
        for (int r = 0; r < R; r++) sums[r][v] = start;
    }
    const char* weights = (const char*)w;
    for (int64_t i = 0; i < k; i += 2, weights += COLUMNS * 4, ahead += ahead_step) {
        for (int64_t line = 0; line < ahead_step; line += 64) __builtin_prefetch(ahead + line, 0, 2);
        __m512bh columns[VECS];
        for (int v = 0; v < VECS; v++) {
            columns[v] = (__m512bh)_mm512_loadu_si512(weights + v * 64);
            __builtin_prefetch(weights + 4096 + v * 64);
        }
        for (int r = 0; r < R; r++) {
            int32_t pair;
            std::memcpy(&pair, x + r * x_stride + i, sizeof pair);
            __m512bh both = (__m512bh)_mm512_set1_epi32(pair);
            for (int v = 0; v < VECS; v++)
                sums[r][v] = _mm512_dpbf16_ps(sums[r][v], columns[v], both);
        }
    }
    for (int r = 0; r < R; r++)
        for (int v = 0; v < VECS; v++) {
            int64_t n = std::clamp<int64_t>(num_columns - v * LANES, 0, LANES);
            if (n == LANES)
                store(y + r * y_stride + v * LANES, (Vec)sums[r][v]);
            else
                store_part(y + r * y_stride + v * LANES, (Vec)sums[r][v], n);
        }
}

// While a block that lies in L2 is multiplied by further rows, memory brings the next one.
void rows_of_block(int64_t rows, const bf16* x, int64_t x_stride, const bf16* w, const bf16* bias,
                   bf16* y, int64_t y_stride, int64_t num_columns, int64_t k, bool has_next) {
    const char* next = (const char*)(w + COLUMNS * k);
    int64_t step = has_next && rows >= 2 * ROWS ? COLUMNS * 4 * ROWS / rows : 0;
    auto run = [&](auto tile_of, int64_t height) {
        for (; rows >= height; rows -= height, x += height * x_stride, y += height * y_stride) {
            tile_of(x, x_stride, w, bias, y, y_stride, num_columns, k, next, step);
            next += step * k / 2;
        }
    };
    run(tile<ROWS>, ROWS);
    run(tile<4>, 4);
    run(tile<2>, 2);
    run(tile<1>, 1);
}

#endif

}  // namespace

extern "C" int linear_supported() {
#if defined(__AVX512BF16__)
    return 1;
#else
    return 0;
#endif
}

extern "C" int64_t linear_packed_size(int64_t n, int64_t k) {
    return (n + COLUMNS - 1) / COLUMNS * COLUMNS * k;
}

extern "C" void linear_pack(const bf16* w, bf16* packed, int64_t n, int64_t k) {
#pragma omp parallel for
    for (int64_t block = 0; block < n; block += COLUMNS) {
        bf16* to = packed + block * k;
        for (int64_t i = 0; i < k; i += 2)
            for (int64_t column = block; column < block + COLUMNS; column++)
                for (int64_t j = i; j < i + 2; j++)
                    *to++ = column < n ? w[column * k + j] : bf16{0};
    }
}

extern "C" void linear(const bf16* x, int64_t x_stride, const bf16* packed, const bf16* bias,
                       bf16* y, int64_t y_stride, int64_t rows, int64_t n, int64_t k) {
#if defined(__AVX512BF16__)
#pragma omp parallel for schedule(static)
    for (int64_t block = 0; block < n; block += COLUMNS)
        rows_of_block(rows, x, x_stride, packed + block * k, bias ? bias + block : nullptr,
                      y + block, y_stride, std::min(COLUMNS, n - block), k, block + COLUMNS < n);
#else
    (void)x, (void)x_stride, (void)packed, (void)bias, (void)y, (void)y_stride;
    (void)rows, (void)n, (void)k;
#endif
}
