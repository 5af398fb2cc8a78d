// Tiles of up to 16 rows by 64 bytes (AMX), of which a CPU multiplies two at once.
#pragma once

#if defined(__AMX_BF16__) && defined(__AVX512BF16__) && defined(__linux__)
#define HAS_TILES 1

#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <vector>

#include "vec.h"

namespace tile {

constexpr int64_t HEIGHT = 16;  // rows
constexpr int64_t WIDTH = 16;   // columns of sums
constexpr int64_t DEPTH = 32;   // inputs that are summed
constexpr int64_t TILE = 512;   // elements of bfloat16

}  // namespace tile

// Whether Linux keeps the tiles' state for this process, which it asks for.
static inline bool may_use_tiles() {
    constexpr int ARCH_REQ_XCOMP_PERM = 0x1023, XTILEDATA = 18;
    static const bool may = syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XTILEDATA) == 0;
    return may;
}

// GCC doesn't know that its intrinsics for tiles read memory.
static inline void store_before_tiles() { __asm__ volatile("" ::: "memory"); }

// The sizes of a thread's tiles, for as long as it multiplies. Setting them zeroes the tiles.
class TileSizes {
public:
    TileSizes() {
        for (int tile = 0; tile < 8; tile++) set(tile, 16, 64);
    }
    ~TileSizes() { _tile_release(); }

    void set(int tile, int64_t rows, int64_t row_bytes) {
        config.rows[tile] = (uint8_t)rows, config.row_bytes[tile] = (uint16_t)row_bytes;
    }

    void use() {
        store_before_tiles();
        _tile_loadconfig(&config);
    }

private:
    struct alignas(64) {
        uint8_t palette = 1, start = 0, reserved[14] = {};
        uint16_t row_bytes[16] = {};
        uint8_t rows[16] = {};
    } config;
};

// Memory for tiles, which grows as it must. Their rows fill lines of the cache.
class TileBuffer {
public:
    bf16* fit(int64_t size) {
        int64_t num_lines = std::max<int64_t>(1, round_up(size, LINE) / LINE);
        if ((int64_t)lines.size() < num_lines) lines.resize(num_lines);
        return lines[0].x;
    }

    bf16* data() { return lines[0].x; }

private:
    static constexpr int64_t LINE = 32;
    struct alignas(64) Line {
        bf16 x[LINE];
    };
    std::vector<Line> lines;
};

#else
#define HAS_TILES 0
#endif
