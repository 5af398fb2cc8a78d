// AMX tiles: registers of up to 16 rows of 64 bytes that one instruction multiplies.
#pragma once

// Whether bfloat16 is multiplied on tiles.
#if defined(__AMX_BF16__) && defined(__AVX512BF16__) && defined(__linux__)
#define HAS_TILES 1
#else
#define HAS_TILES 0
#endif

// Whether int8 is multiplied on tiles.
#if defined(__AMX_INT8__) && defined(__AVX512VNNI__) && defined(__linux__)
#define HAS_INT8_TILES 1
#else
#define HAS_INT8_TILES 0
#endif

#if HAS_TILES || HAS_INT8_TILES

#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <vector>

#include "vec.h"

namespace tile {

constexpr int64_t HEIGHT = 16;  // rows of a tile
constexpr int64_t WIDTH = 16;   // fp32 sums in a row
constexpr int64_t DEPTH = 32;   // bfloat16 inputs in a row
constexpr int64_t TILE = 512;   // bfloat16 elements of a tile

}  // namespace tile

// Asks Linux for permission to use tiles, once per process; returns whether it is granted.
static inline bool may_use_tiles() {
    constexpr int ARCH_REQ_XCOMP_PERM = 0x1023, XTILEDATA = 18;
    static const bool may = syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XTILEDATA) == 0;
    return may;
}

// Compiler barrier: GCC does not know that its tile intrinsics read memory.
static inline void store_before_tiles() { __asm__ volatile("" ::: "memory"); }

// Tile configuration of the current thread; releases the tiles on destruction. use() zeroes all tiles.
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

// Growing buffer for packed tiles, aligned to cache lines.
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

#endif
