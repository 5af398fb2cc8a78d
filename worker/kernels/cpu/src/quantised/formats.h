// Formats of quantised weights. Each group of neighbouring inputs of a row shares a scale.
#pragma once

#include <cmath>
#include <cstdint>

namespace {

// Number of inputs in a group. worker/kernels/cpu/quantised.py mirrors it.
constexpr int64_t GROUP = 32;

struct Int8 {
    static constexpr int64_t PER_BYTE = 1;  // weights in a byte
    static constexpr int32_t ZERO = 128;    // stored value of a weight of 0
    static constexpr int32_t LEAST = -127, MOST = 127;

    // Scale with which `extreme`, the largest weight of a group by its magnitude, is in the range.
    static float scale_of(float extreme) { return std::fabs(extreme) / MOST; }
};

struct Int4 {
    static constexpr int64_t PER_BYTE = 2;
    static constexpr int32_t ZERO = 8;
    static constexpr int32_t LEAST = -8, MOST = 7;

    // The sign of the scale makes the extreme -8, so that all 16 values are used.
    static float scale_of(float extreme) { return extreme / LEAST; }
};

}  // namespace
