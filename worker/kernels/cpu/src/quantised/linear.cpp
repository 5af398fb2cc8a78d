// y = x w^T + bias for int8 weights, and bfloat16 or float inputs, which are quantised to int8 in the
// call. x is [rows, K], w is [N, K]. Each group of inputs of a row, and of a weight's row, has a
// scale. A group's products are summed exactly in int32, and the groups are added in order. So a row's
// result has the same bits in every batch and on every CPU.

#include <algorithm>
#include <vector>

#include "block.h"
#include "inputs.h"
#include "tiles.h"
#include "vectors.h"

namespace {

// Calls `call` with the implementation of the product that this process uses.
template <class Call>
auto with_kind(const Call& call) {
#if HAS_INT8_TILES
    if (may_use_tiles()) return call(Int8Tiles());
#endif
    return call(Int8Vectors());
}

// `scale`, which isn't negative, rounded up to bfloat16.
bf16 rounded_up(float scale) {
    uint32_t bits;
    std::memcpy(&bits, &scale, sizeof bits);
    return {(uint16_t)((bits + 0xffff) >> 16)};
}

// Quantises w, [n, k], to values, [n, k], and scales, [n, groups].
template <class T>
void quantise(const T* w, int8_t* values, bf16* scales, int64_t n, int64_t k) {
    int64_t num_groups = round_up(k, GROUP) / GROUP;
#pragma omp parallel for
    for (int64_t row = 0; row < n; row++) {
        for (int64_t g = 0; g < num_groups; g++) {
            int64_t first = g * GROUP, size = std::min(GROUP, k - first);
            Group group(w + row * k + first, size);
            bf16 scale = rounded_up(group.largest() / LARGEST);
            int8_t multiples[GROUP];
            group.quantise(factor_of(to_float(scale)), multiples);
            std::copy(multiples, multiples + size, values + row * k + first);
            scales[row * num_groups + g] = scale;
        }
    }
}

template <class Kind>
int64_t packed_size(int64_t n, int64_t k) {
    return round_up(n, Kind::COLUMNS) / Kind::COLUMNS * Kind::Packed::num_bytes(round_up(k, GROUP) / GROUP);
}

template <class Kind>
void pack(const int8_t* values, const bf16* scales, uint8_t* packed, int64_t n, int64_t k) {
    constexpr int64_t COLUMNS = Kind::COLUMNS, WORD = Kind::WORD;
    int64_t num_groups = round_up(k, GROUP) / GROUP;
#pragma omp parallel for
    for (int64_t block = 0; block < round_up(n, COLUMNS) / COLUMNS; block++) {
        uint8_t* to = packed + block * Kind::Packed::num_bytes(num_groups);
        for (int64_t word = 0; word < num_groups * GROUP; word += WORD)
            for (int64_t column = block * COLUMNS; column < (block + 1) * COLUMNS; column++)
                for (int64_t i = word; i < word + WORD; i++)
                    *to++ = (uint8_t)(ZERO + (column < n && i < k ? values[column * k + i] : 0));
        bf16* to_scales = (bf16*)to;
        for (int64_t g = 0; g < num_groups; g++)
            for (int64_t column = block * COLUMNS; column < (block + 1) * COLUMNS; column++)
                *to_scales++ = column < n ? scales[column * num_groups + g] : bf16{0};
    }
}

// The inverse of pack.
template <class Kind>
void unpack(const uint8_t* packed, int8_t* values, bf16* scales, int64_t n, int64_t k) {
    constexpr int64_t COLUMNS = Kind::COLUMNS, WORD = Kind::WORD;
    int64_t num_groups = round_up(k, GROUP) / GROUP;
#pragma omp parallel for
    for (int64_t column = 0; column < n; column++) {
        typename Kind::Packed block(packed, column / COLUMNS, num_groups);
        int64_t place = column % COLUMNS;
        for (int64_t i = 0; i < k; i++) {
            int64_t word = i / WORD * COLUMNS + place;
            values[column * k + i] = (int8_t)(block.weights[word * WORD + i % WORD] - ZERO);
        }
        for (int64_t g = 0; g < num_groups; g++)
            scales[column * num_groups + g] = block.scales[g * COLUMNS + place];
    }
}

template <class Kind, class T>
void multiply(const T* x, int64_t x_stride, const uint8_t* packed, const T* bias, T* y, int64_t y_stride,
              int64_t rows, int64_t n, int64_t k) {
    if (!rows) return;
    constexpr int64_t COLUMNS = Kind::COLUMNS;
    int64_t height = round_up(rows, Kind::HEIGHT);
    const auto inputs = quantised_rows<typename Kind::Input>(x, x_stride, rows, k, height);
#pragma omp parallel
    {
        [[maybe_unused]] typename Kind::ThreadState unit;
#pragma omp for schedule(static)
        for (int64_t first = 0; first < n; first += COLUMNS) {
            typename Kind::Packed block(packed, first / COLUMNS, inputs.num_groups);
            Kind::rows_of_block(rows, inputs, block, bias ? bias + first : nullptr, y + first, y_stride,
                                std::min(COLUMNS, n - first), first + COLUMNS < n);
        }
    }
}

}  // namespace

extern "C" int64_t packed_size_int8(int64_t n, int64_t k) {
    return with_kind([&](auto kind) { return packed_size<decltype(kind)>(n, k); });
}

extern "C" void pack_int8(const int8_t* values, const bf16* scales, uint8_t* packed, int64_t n,
                          int64_t k) {
    with_kind([&](auto kind) { pack<decltype(kind)>(values, scales, packed, n, k); });
}

extern "C" void unpack_int8(const uint8_t* packed, int8_t* values, bf16* scales, int64_t n, int64_t k) {
    with_kind([&](auto kind) { unpack<decltype(kind)>(packed, values, scales, n, k); });
}

#define EXPORT(NAME, T)                                                                             \
    extern "C" void quantise_int8_##NAME(const T* w, int8_t* values, bf16* scales, int64_t n,        \
                                         int64_t k) {                                               \
        quantise(w, values, scales, n, k);                                                          \
    }                                                                                               \
    extern "C" void linear_int8_##NAME(const T* x, int64_t x_stride, const uint8_t* packed,         \
                                       const T* bias, T* y, int64_t y_stride, int64_t rows,         \
                                       int64_t n, int64_t k) {                                      \
        with_kind([&](auto kind) {                                                                  \
            multiply<decltype(kind)>(x, x_stride, packed, bias, y, y_stride, rows, n, k);           \
        });                                                                                         \
    }

EXPORT(f32, float)
EXPORT(bf16, bf16)
