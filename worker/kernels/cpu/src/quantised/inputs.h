// Input rows, quantised for one product.
#pragma once

#include <cstdint>
#include <vector>

#include "block.h"

namespace {

// Row r has `inputs` r * stride on, and the groups r * num_groups on.
template <class Int>
struct QuantisedRows {
    const Int* inputs;
    const float* scales;    // of each group: its inputs are multiples of this
    const int32_t* starts;  // of each group: sum of its products with the weights' zero
    int64_t stride;
    int64_t num_groups;  // of a row

    const Int* row(int64_t row) const { return inputs + row * stride; }
    const float* scales_of(int64_t row) const { return scales + row * num_groups; }
    const int32_t* starts_of(int64_t row) const { return starts + row * num_groups; }
};

// Quantises the rows of `x`, [rows, k], to multiples between -127 and 127. A weight is stored as the sum
// of itself and ZERO, so each group's products start from -ZERO times the sum of its inputs. At
// least `height` rows can be read. The result is valid until the thread's next call.
template <class Int, class T>
QuantisedRows<Int> quantised_rows(const T* x, int64_t x_stride, int64_t rows, int64_t k, int64_t height) {
    static thread_local std::vector<Int> inputs;
    static thread_local std::vector<float> scales;
    static thread_local std::vector<int32_t> starts;
    int64_t num_groups = round_up(k, GROUP) / GROUP;
    int64_t stride = num_groups * GROUP + 64;  // a power of two would map all rows to one cache set
    int64_t lead = 64 / sizeof(Int);
    if ((int64_t)inputs.size() < height * stride + lead) inputs.resize(height * stride + lead);
    if ((int64_t)scales.size() < height * num_groups)
        scales.resize(height * num_groups), starts.resize(height * num_groups);
    Int* first = (Int*)round_up((int64_t)inputs.data(), 64);
    float* all_scales = scales.data();
    int32_t* all_starts = starts.data();
#pragma omp parallel for if (rows * k > WORTH_THREADS)
    for (int64_t row = 0; row < rows; row++) {
        for (int64_t g = 0; g < num_groups; g++) {
            Group group(x + row * x_stride + g * GROUP, k - g * GROUP);
            float scale = group.largest() / LARGEST;
            Int* to = first + row * stride + g * GROUP;
            int32_t total = group.quantise(factor_of(scale), to);
            all_scales[row * num_groups + g] = scale;
            all_starts[row * num_groups + g] = -ZERO * total;
        }
    }
    return {first, all_scales, all_starts, stride, num_groups};
}

}  // namespace
