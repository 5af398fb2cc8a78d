// Splits rows into groups whose sums fit into registers.
#pragma once

#include <cstdint>
#include <type_traits>

namespace {

// Calls run(size, first) for consecutive groups of `count` rows: groups of SIZE rows while they fit,
// then groups of each smaller size. `size` is a compile-time constant and can be a template argument.
template <int SIZE, int... SMALLER, class Run>
void in_groups(int64_t count, const Run& run, int64_t first = 0) {
    for (; first + SIZE <= count; first += SIZE) run(std::integral_constant<int, SIZE>{}, first);
    if constexpr (sizeof...(SMALLER) > 0)
        in_groups<SMALLER...>(count, run, first);
    else
        static_assert(SIZE == 1, "the last size must be 1, so that no row is left");
}

}  // namespace
