// The operations between the matrix products of a decoder layer. Each makes one pass over memory.

#include <cmath>

#include "../simd/vec.h"

namespace {

// y = x / rms(x) * (offset + weight). With `round_first`, x / rms(x) is rounded to T before the weight
// is applied, as in Llama's norm. Gemma's norm does not round there.
template <class T>
void rms_norm(const T* x, int64_t x_stride, const T* weight, T* y, int64_t rows, int64_t dim,
              float epsilon, float offset, bool round_first) {
    int64_t whole = dim / LANES * LANES;
#pragma omp parallel for if (rows * dim > WORTH_THREADS)
    for (int64_t row = 0; row < rows; row++) {
        const T* from = x + row * x_stride;
        T* to = y + row * dim;
        Vec squares{};
        for (int64_t i = 0; i < whole; i += LANES) squares += load(from + i) * load(from + i);
        float total = sum(squares);
        for (int64_t i = whole; i < dim; i++) total += to_float(from[i]) * to_float(from[i]);
        float factor = 1.0f / std::sqrt(total / dim + epsilon);
        for (int64_t i = 0; i < dim; i += LANES) {
            int64_t n = dim - i < LANES ? dim - i : LANES;
            Vec value = (n < LANES ? load_part(from + i, n) : load(from + i)) * factor;
            if (round_first) {
                T half[LANES];
                store(half, value);
                value = load(half);
            }
            value *= (n < LANES ? load_part(weight + i, n) : load(weight + i)) + offset;
            if (n < LANES)
                store_part(to + i, value, n);
            else
                store(to + i, value);
        }
    }
}

inline Vec silu(Vec x) {
    Vec negative = x < 0.0f ? x : -x;
    Vec e = exp_negative(negative);  // exp(-|x|) cannot overflow
    Vec numerator = x < 0.0f ? e : splat(1.0f);
    return x * numerator / (1.0f + e);
}

// y = silu(gate) * up. silu(gate) is rounded to T first, as torch does.
template <class T>
void silu_mul(const T* gate, const T* up, int64_t stride, T* y, int64_t rows, int64_t dim) {
#pragma omp parallel for if (rows * dim > WORTH_THREADS)
    for (int64_t row = 0; row < rows; row++) {
        const T *g = gate + row * stride, *u = up + row * stride;
        T* to = y + row * dim;
        for (int64_t i = 0; i < dim; i += LANES) {
            int64_t n = dim - i < LANES ? dim - i : LANES;
            T half[LANES];
            store(half, silu(n < LANES ? load_part(g + i, n) : load(g + i)));
            Vec value = load(half) * (n < LANES ? load_part(u + i, n) : load(u + i));
            if (n < LANES)
                store_part(to + i, value, n);
            else
                store(to + i, value);
        }
    }
}

// Rotates the two halves of each head in place (RoPE, arXiv 2104.09864):
// low' = low * cos - high * sin, high' = high * cos + low * sin.
template <class T>
void rope(T* x, int64_t stride, const T* cosine, const T* sine, int64_t rows, int64_t heads,
          int64_t dim) {
    int64_t half = dim / 2;
#pragma omp parallel for if (rows * heads * dim > WORTH_THREADS)
    for (int64_t row = 0; row < rows; row++) {
        const T *c = cosine + row * dim, *s = sine + row * dim;
        for (int64_t head = 0; head < heads; head++) {
            T *low = x + row * stride + head * dim, *high = low + half;
            int64_t i = 0;
            for (; i + LANES <= half; i += LANES) {
                Vec a = load(low + i), b = load(high + i);
                store(low + i, a * load(c + i) - b * load(s + i));
                store(high + i, b * load(c + half + i) + a * load(s + half + i));
            }
            for (; i < half; i++) {
                float a = to_float(low[i]), b = to_float(high[i]);
                from_float(low + i, a * to_float(c[i]) - b * to_float(s[i]));
                from_float(high + i, b * to_float(c[half + i]) + a * to_float(s[half + i]));
            }
        }
    }
}

// cache[slots[row]] = x[row], for rows of `width` elements.
template <class T>
void store_rows(const T* x, int64_t stride, T* cache, const int64_t* slots, int64_t rows,
                int64_t width) {
#pragma omp parallel for if (rows * width > WORTH_THREADS)
    for (int64_t row = 0; row < rows; row++)
        std::memcpy(cache + slots[row] * width, x + row * stride, width * sizeof(T));
}

}  // namespace

#define EXPORT(NAME, T)                                                                          \
    extern "C" void rms_norm_##NAME(const T* x, int64_t x_stride, const T* weight, T* y,          \
                                    int64_t rows, int64_t dim, float epsilon, float offset,       \
                                    int round_first) {                                            \
        rms_norm(x, x_stride, weight, y, rows, dim, epsilon, offset, round_first);                \
    }                                                                                             \
    extern "C" void silu_mul_##NAME(const T* gate, const T* up, int64_t stride, T* y,             \
                                    int64_t rows, int64_t dim) {                                  \
        silu_mul(gate, up, stride, y, rows, dim);                                                 \
    }                                                                                             \
    extern "C" void rope_##NAME(T* x, int64_t stride, const T* cosine, const T* sine,             \
                                int64_t rows, int64_t heads, int64_t dim) {                       \
        rope(x, stride, cosine, sine, rows, heads, dim);                                          \
    }                                                                                             \
    extern "C" void store_rows_##NAME(const T* x, int64_t stride, T* cache, const int64_t* slots, \
                                      int64_t rows, int64_t width) {                              \
        store_rows(x, stride, cache, slots, rows, width);                                         \
    }

EXPORT(f32, float)
EXPORT(bf16, bf16)
