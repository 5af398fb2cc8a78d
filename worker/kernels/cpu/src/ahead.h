// Asking memory for what is read next.
#pragma once

#include <cstdint>
#include <vector>

namespace {

// Asks memory for lines that are needed soon, a few at a time: in bursts it would stall.
class Ahead {
public:
    void clear() { pieces.clear(), num_lines = 0; }

    void add(const void* start, int64_t bytes) {
        const char* first = (const char*)((uintptr_t)start / LINE * LINE);
        pieces.push_back({first, (const char*)start + bytes});
        num_lines += (pieces.back().end - first + LINE - 1) / LINE;
    }

    // All that was added is to be asked for in so many times.
    void start(int64_t times) {
        piece = 0, line = end = nullptr;
        due = 0, due_each = num_lines * ONE / times + 1;
    }

    void ask() {
        for (due += due_each; due >= ONE; due -= ONE, line += LINE) {
            if (line >= end && !next_piece()) return;
            __builtin_prefetch(line, 0, 2);
        }
    }

private:
    static constexpr int64_t LINE = 64;  // bytes
    static constexpr int64_t ONE = 1 << 16;

    struct Piece {
        const char *start, *end;
    };

    std::vector<Piece> pieces;
    size_t piece = 0;  // the next one
    const char *line = nullptr, *end = nullptr;
    int64_t num_lines = 0;
    int64_t due = 0, due_each = 0;  // in lines * ONE

    bool next_piece() {
        if (piece == pieces.size()) return due = due_each = 0, false;
        line = pieces[piece].start, end = pieces[piece].end, piece++;
        return true;
    }
};

}  // namespace
