// How sums of a block of the packed product start, and where they go.
#pragma once

#include "vec.h"

// The bias of a block's columns, of which the last block has fewer; zeros without a bias.
template <int64_t COLUMNS>
struct Start {
    alignas(64) float sums[COLUMNS] = {};

    template <class T>
    Start(const T* bias, int64_t num_columns) {
        for (int64_t n = 0; bias && n < num_columns; n++) sums[n] = to_float(bias[n]);
    }
};

template <int64_t COLUMNS, class T>
static inline void store_columns(const float* sums, T* y, int64_t num_columns) {
    T part[COLUMNS];
    T* to = num_columns == COLUMNS ? y : part;
    for (int64_t n = 0; n < COLUMNS; n += LANES) store(to + n, load(sums + n));
    if (to == part) std::memcpy(y, part, num_columns * sizeof(T));
}
