// Packed weights of a block of columns.
//
// Layout of a block: weights [K / GROUP][GROUP / WORD][COLUMNS][WORD], then scales [K / GROUP][COLUMNS].
// The weights are unsigned: ZERO stands for 0. The last columns and inputs are padded with ZERO.
#pragma once

#include <cstdint>

#include "../simd/vec.h"
#include "groups.h"

namespace {

constexpr int32_t ZERO = 128;

template <int64_t COLUMNS>
struct Block {
    const uint8_t* weights;
    const bf16* scales;
    int64_t num_groups;

    static constexpr int64_t GROUP_BYTES = GROUP * COLUMNS;

    static int64_t num_bytes(int64_t num_groups) {
        return round_up(num_groups * (GROUP_BYTES + COLUMNS * (int64_t)sizeof(bf16)), 64);
    }

    Block(const uint8_t* packed, int64_t index, int64_t groups)
        : weights(packed + index * num_bytes(groups)),
          scales((const bf16*)(weights + groups * GROUP_BYTES)),
          num_groups(groups) {}

    // Adds a group's products of one row to its sums of the columns from `column` on. Every kind of
    // product rounds in this way, so that all of them give the same bits.
    static Vec add(Vec sums, IVec products, float input_scale, Vec weight_scales) {
        return multiply_add(sums, __builtin_convertvector(products, Vec) * input_scale, weight_scales);
    }
};

}  // namespace
