// Rows in groups whose sums fit into registers.
#pragma once

#include <cstdint>
#include <type_traits>

namespace {

// Calls run(size, first) for groups of `count` rows: as many of SIZE as there are, and the rest in
// the next size. `size` is a constant, and may be a template's argument.
template <int SIZE, int... SMALLER, class Run>
void in_groups(int64_t count, const Run& run, int64_t first = 0) {
    for (; first + SIZE <= count; first += SIZE) run(std::integral_constant<int, SIZE>{}, first);
    if constexpr (sizeof...(SMALLER) > 0)
        in_groups<SMALLER...>(count, run, first);
    else
        static_assert(SIZE == 1, "else rows would be left");
}

}  // namespace
