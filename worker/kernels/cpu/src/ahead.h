// Asking memory for what is read next.
#pragma once

#include <cstdint>

namespace {

// Rows in memory, line by line.
struct Lines {
    const char* const* rows = nullptr;
    int64_t num_rows = 0;
    int64_t lines_of_row = 0;

    template <class T>
    Lines(const T* const* rows, int64_t num_rows, int64_t row_length)
        : rows((const char* const*)rows),
          num_rows(num_rows),
          lines_of_row((row_length * (int64_t)sizeof(T) + LINE - 1) / LINE) {}
    Lines() = default;

    static constexpr int64_t LINE = 64;  // bytes

    int64_t count() const { return num_rows * lines_of_row; }
};

// Asks memory for lines that are needed soon, a few at a time: in bursts it would stall.
class Ahead {
public:
    // Two sets of lines, to be asked for in so many times.
    void start(const Lines& first, const Lines& second, int64_t times) {
        now = first, then = second;
        row = line = 0;
        lines_each = (first.count() + second.count() + times - 1) / times;
    }

    void ask() {
        for (int64_t i = 0; i < lines_each; i++) {
            if (row == now.num_rows) {
                if (then.num_rows == 0) return;
                now = then, then = Lines(), row = 0;
            }
            __builtin_prefetch(now.rows[row] + line * Lines::LINE, 0, 2);
            if (++line == now.lines_of_row) line = 0, row++;
        }
    }

private:
    Lines now, then;
    int64_t row = 0, line = 0;  // of `now`
    int64_t lines_each = 0;
};

}  // namespace
