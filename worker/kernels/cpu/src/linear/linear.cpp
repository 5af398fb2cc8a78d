// y = x w^T + bias with fp32 sums, for weights that were packed once. x is [rows, K], w is [N, K].
// The order in which a row is summed does not depend on the number of rows, so a row's result has the
// same bits in every batch.
//
// Packed layout: [N / COLUMNS][K / DEPTH][COLUMNS / WIDTH][DEPTH / WORD][WIDTH][WORD]. A vector holds
// one word of each of its columns, and memory is read sequentially. The last columns and inputs are
// padded with zeros.

#include <algorithm>
#include <type_traits>

#include "tiles.h"
#include "vectors.h"

namespace {

// Calls `call` with the implementation of the product that this process uses for weights of T.
template <class T, class Call>
auto with_kind(const Call& call) {
#if HAS_TILES
    if constexpr (std::is_same_v<T, bf16>)
        if (may_use_tiles()) return call(TileLinear());
#endif
    return call(VectorLinear<T>());
}

template <class Linear>
int64_t packed_size(int64_t n, int64_t k) {
    return round_up(n, Linear::COLUMNS) * round_up(k, Linear::DEPTH);
}

template <class Linear, class T>
void pack(const T* w, T* packed, int64_t n, int64_t k) {
    constexpr int64_t COLUMNS = Linear::COLUMNS, WIDTH = Linear::WIDTH, WORD = Linear::WORD;
    int64_t depth = round_up(k, Linear::DEPTH);
#pragma omp parallel for
    for (int64_t block = 0; block < n; block += COLUMNS) {
        T* to = packed + block * depth;
        for (int64_t i = 0; i < depth; i += Linear::DEPTH)
            for (int64_t group = block; group < block + COLUMNS; group += WIDTH)
                for (int64_t word = i; word < i + Linear::DEPTH; word += WORD)
                    for (int64_t column = group; column < group + WIDTH; column++)
                        for (int64_t j = word; j < word + WORD; j++)
                            *to++ = column < n && j < k ? w[column * k + j] : T{};
    }
}

template <class Linear, class T>
void multiply(const T* x, int64_t x_stride, const T* packed, const T* bias, T* y, int64_t y_stride,
              int64_t rows, int64_t n, int64_t k) {
    if (!rows) return;
    constexpr int64_t COLUMNS = Linear::COLUMNS;
    const auto inputs = Linear::inputs(x, x_stride, rows, k);
    int64_t depth = round_up(k, Linear::DEPTH);
#pragma omp parallel
    {
        [[maybe_unused]] typename Linear::ThreadState unit;
#pragma omp for schedule(static)
        for (int64_t block = 0; block < n; block += COLUMNS)
            Linear::rows_of_block(rows, inputs, packed + block * depth, bias ? bias + block : nullptr,
                                  y + block, y_stride, std::min(COLUMNS, n - block), depth,
                                  block + COLUMNS < n);
    }
}

}  // namespace

#define EXPORT(NAME, T)                                                                           \
    extern "C" int64_t linear_packed_size_##NAME(int64_t n, int64_t k) {                          \
        return with_kind<T>([&](auto kind) { return packed_size<decltype(kind)>(n, k); });        \
    }                                                                                             \
    extern "C" void linear_pack_##NAME(const T* w, T* packed, int64_t n, int64_t k) {             \
        with_kind<T>([&](auto kind) { pack<decltype(kind)>(w, packed, n, k); });                  \
    }                                                                                             \
    extern "C" void linear_##NAME(const T* x, int64_t x_stride, const T* packed, const T* bias,   \
                                  T* y, int64_t y_stride, int64_t rows, int64_t n, int64_t k) {   \
        with_kind<T>([&](auto kind) {                                                             \
            multiply<decltype(kind)>(x, x_stride, packed, bias, y, y_stride, rows, n, k);         \
        });                                                                                       \
    }

EXPORT(f32, float)
EXPORT(bf16, bf16)

// On other CPUs torch multiplies, as this product has not been measured there.
extern "C" int linear_supported() {
#if defined(__AVX512F__) || (defined(__AVX2__) && defined(__FMA__))
    return 1;
#else
    return 0;
#endif
}
