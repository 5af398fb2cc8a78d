// Emulates AMX tiles in memory, for CPUs without AMX. It is included before the native kernels and
// replaces the intrinsics by the pseudocode of Intel's manual (Instruction Set Reference, TDPBF16PS and
// TDPBSUD), except that denormals are not flushed to zero. Invalid tile sizes end the process, as on a
// CPU.
#pragma once

#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdint>
#include <cstring>

struct EmulatedTiles {
    struct {
        uint8_t palette, start, reserved[14];
        uint16_t row_bytes[16];
        uint8_t rows[16];
    } sizes;
    struct {
        uint8_t bytes[16][64];
    } tiles[8];

    void use(const void* config) {
        std::memcpy(&sizes, config, sizeof sizes);
        std::memset(tiles, 0, sizeof tiles);
        for (int t = 0; t < 8; t++) {
            require(sizes.rows[t] <= 16 && sizes.row_bytes[t] <= 64);
            require((sizes.rows[t] == 0) == (sizes.row_bytes[t] == 0));
        }
    }

    static void require(bool condition) {
        if (!condition) __builtin_trap();
    }

    void zero(int t) { std::memset(&tiles[t], 0, sizeof tiles[t]); }

    void load(int t, const void* from, int64_t stride) {
        zero(t);
        for (int row = 0; row < sizes.rows[t]; row++)
            std::memcpy(tiles[t].bytes[row], (const char*)from + row * stride, sizes.row_bytes[t]);
    }

    void store(int t, void* to, int64_t stride) const {
        for (int row = 0; row < sizes.rows[t]; row++)
            std::memcpy((char*)to + row * stride, tiles[t].bytes[row], sizes.row_bytes[t]);
    }

    static float element(const uint8_t* row, int64_t i) {
        uint16_t half;
        std::memcpy(&half, row + 2 * i, sizeof half);
        uint32_t bits = (uint32_t)half << 16;
        float value;
        std::memcpy(&value, &bits, sizeof value);
        return value;
    }

    void require_sizes(int sum, int a, int b) const {
        require(sizes.rows[a] == sizes.rows[sum] && sizes.row_bytes[b] == sizes.row_bytes[sum]);
        require(sizes.row_bytes[a] == 4 * sizes.rows[b]);
    }

    // Adds products of signed bytes of `a` and unsigned bytes of `b`.
    void multiply_bytes(int sum, int a, int b) {
        require_sizes(sum, a, b);
        for (int m = 0; m < sizes.rows[sum]; m++)
            for (int n = 0; n < sizes.row_bytes[sum] / 4; n++) {
                int32_t value;
                std::memcpy(&value, &tiles[sum].bytes[m][4 * n], sizeof value);
                for (int k = 0; k < sizes.row_bytes[a]; k++)
                    value += (int8_t)tiles[a].bytes[m][k] * tiles[b].bytes[k / 4][4 * n + k % 4];
                std::memcpy(&tiles[sum].bytes[m][4 * n], &value, sizeof value);
            }
    }

    void multiply(int sum, int a, int b) {
        require_sizes(sum, a, b);
        const int num_columns = sizes.row_bytes[sum] / 4;
        for (int m = 0; m < sizes.rows[sum]; m++) {
            float even[16] = {}, odd[16] = {}, totals[16];
            for (int k = 0; k < sizes.row_bytes[a] / 4; k++) {
                const uint8_t *of_b = tiles[b].bytes[k], *of_a = tiles[a].bytes[m];
                const float even_a = element(of_a, 2 * k), odd_a = element(of_a, 2 * k + 1);
                for (int n = 0; n < 16; n++) {
                    even[n] = __builtin_fmaf(even_a, element(of_b, 2 * n), even[n]);
                    odd[n] = __builtin_fmaf(odd_a, element(of_b, 2 * n + 1), odd[n]);
                }
            }
            std::memcpy(totals, tiles[sum].bytes[m], sizeof totals);
            for (int n = 0; n < num_columns; n++) totals[n] += even[n] + odd[n];
            std::memcpy(tiles[sum].bytes[m], totals, sizeof totals);
        }
    }
};

static thread_local EmulatedTiles emulated_tiles;

#undef _tile_loadd
#undef _tile_stored
#undef _tile_zero
#undef _tile_dpbf16ps
#undef _tile_dpbsud
#define _tile_loadconfig(config) emulated_tiles.use(config)
#define _tile_release() ((void)0)
#define _tile_zero(t) emulated_tiles.zero(t)
#define _tile_loadd(t, from, stride) emulated_tiles.load(t, from, stride)
#define _tile_stored(t, to, stride) emulated_tiles.store(t, to, stride)
#define _tile_dpbf16ps(sum, a, b) emulated_tiles.multiply(sum, a, b)
#define _tile_dpbsud(sum, a, b) emulated_tiles.multiply_bytes(sum, a, b)
#define syscall(number, call, feature) ((void)(call), (void)(feature), 0L)  // permission is granted
#define __AMX_BF16__ 1
#define __AMX_INT8__ 1
