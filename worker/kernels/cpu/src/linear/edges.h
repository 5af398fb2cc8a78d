// Initial sums and final stores of a block of columns of the packed product.
#pragma once

#include "../simd/vec.h"

// Bias of a block's columns, zero-padded to COLUMNS; all zeros without a bias.
template <int64_t COLUMNS>
struct InitialSums {
    alignas(64) float sums[COLUMNS] = {};

    template <class T>
    InitialSums(const T* bias, int64_t num_columns) {
        for (int64_t n = 0; bias && n < num_columns; n++) sums[n] = to_float(bias[n]);
    }
};

// Stores a row's sums as T; the last block has fewer than COLUMNS columns.
template <int64_t COLUMNS, class T>
static inline void store_columns(const float* sums, T* y, int64_t num_columns) {
    T part[COLUMNS];
    T* to = num_columns == COLUMNS ? y : part;
    for (int64_t n = 0; n < COLUMNS; n += LANES) store(to + n, load(sums + n));
    if (to == part) std::memcpy(y, part, num_columns * sizeof(T));
}
