// Software prefetching, spread evenly over other work.
#pragma once

#include <cstdint>
#include <vector>

namespace {

// Prefetches cache lines of given memory, a few at each call. A burst of prefetches would stall.
class Prefetcher {
public:
    void clear() { pieces.clear(), num_lines = 0; }

    void add(const void* start, int64_t bytes) {
        const char* first = (const char*)((uintptr_t)start / LINE * LINE);
        pieces.push_back({first, (const char*)start + bytes});
        num_lines += (pieces.back().end - first + LINE - 1) / LINE;
    }

    // Spreads the prefetches of all added memory over `num_calls` calls of advance().
    void spread_over(int64_t num_calls) {
        piece = 0, line = end = nullptr;
        due = 0, due_per_call = num_lines * ONE / num_calls + 1;
    }

    // Issues the prefetches that are due.
    void advance() {
        for (due += due_per_call; due >= ONE; due -= ONE, line += LINE) {
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
    size_t piece = 0;  // index of the next piece
    const char *line = nullptr, *end = nullptr;
    int64_t num_lines = 0;
    int64_t due = 0, due_per_call = 0;  // fixed point: lines * ONE

    bool next_piece() {
        if (piece == pieces.size()) return due = due_per_call = 0, false;
        line = pieces[piece].start, end = pieces[piece].end, piece++;
        return true;
    }
};

}  // namespace
