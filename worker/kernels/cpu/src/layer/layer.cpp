// Decoder layers in one call, for layers with a norm before attention and before the MLP, such as
// Llama's:
//
//     h = x + o(attention(rope(qkv(norm(x)))))        y = h + down(silu(gate(norm(h))) * up(norm(h)))
//
// Each linear includes its LoRA terms. The steps call the other files' functions, so the result has the
// same bits as separate calls, without the overhead of calling from Python.
// worker/kernels/cpu/layer.py mirrors the structs.

#include <algorithm>
#include <vector>

#include "../attention/attention.h"
#include "../lora/lora.h"
#include "../simd/vec.h"

// Exported functions of the other files for tensors of T.
template <class T>
struct Kernels;

#define DECLARE(NAME, T)                                                                          \
    extern "C" void rms_norm_##NAME(const T*, int64_t, const T*, T*, int64_t, int64_t, float,      \
                                    float, int);                                                  \
    extern "C" void silu_mul_##NAME(const T*, const T*, int64_t, T*, int64_t, int64_t);            \
    extern "C" void rope_##NAME(T*, int64_t, const T*, const T*, int64_t, int64_t, int64_t);       \
    extern "C" void store_rows_##NAME(const T*, int64_t, T*, const int64_t*, int64_t, int64_t);    \
    extern "C" void linear_##NAME(const T*, int64_t, const T*, const T*, T*, int64_t, int64_t,     \
                                  int64_t, int64_t);                                              \
    extern "C" void linear_int8_##NAME(const T*, int64_t, const uint8_t*, const T*, T*, int64_t,   \
                                       int64_t, int64_t, int64_t);                                \
    template <>                                                                                   \
    struct Kernels<T> {                                                                           \
        static constexpr auto rms_norm = rms_norm_##NAME;                                         \
        static constexpr auto silu_mul = silu_mul_##NAME;                                         \
        static constexpr auto rope = rope_##NAME;                                                 \
        static constexpr auto store_rows = store_rows_##NAME;                                     \
        static constexpr auto linear = linear_##NAME;                                             \
        static constexpr auto linear_int8 = linear_int8_##NAME;                                   \
        static constexpr auto add_lora = add_lora_##NAME;                                         \
        static constexpr auto attention = paged_attention_##NAME;                                 \
    };

DECLARE(f32, float)
DECLARE(bf16, bf16)

namespace {

template <class T>
struct Norm {
    const T* weight;
    float epsilon;
    float offset;
    int64_t round_first;
};

template <class T>
struct Linear {
    const void* packed;
    const T* bias;  // null: no bias
    int64_t out_features;
    int64_t in_features;
    int64_t is_int8;  // 0: the weights have type T
};

template <class T>
struct Layer {
    Norm<T> norms[2];
    Linear<T> qkv, o, gate_up, down;
    int64_t num_heads;
    int64_t num_kv_heads;
    int64_t head_dim;
    int64_t window;  // 0: no sliding window
    int64_t chunk;   // 0: no chunks
    float scaling;
    float softcap;  // 0: no softcap
    const float* sinks;  // [num_heads]; null: no attention sinks
};

constexpr int64_t NUM_LINEARS = 4;  // of a layer: qkv, o, gate_up, down

// What consecutive layers compute. An array with an element for each layer is called [layers].
template <class T>
struct Step {
    const T* x;  // [tokens, hidden]
    T* y;        // [tokens, hidden]
    const T* cosine;       // [tokens, head_dim]
    const T* sine;         // [tokens, head_dim]
    const int64_t* slots;  // [tokens]
    const Layer<T>* const* layers;  // [layers]
    T* const* keys;                 // [layers]: cache
    T* const* values;               // [layers]
    LoRAArgs* const* lora;          // [layers][NUM_LINEARS]; null: no LoRA terms, everywhere or in a linear
    AttentionArgs* attention;       // filled in with the fields that all layers share
    int64_t num_layers;
    int64_t num_tokens;
};

template <class T>
struct Buffers {
    std::vector<T> normed, qkv, heads, gate_up, gated, term;
};

template <class T>
T* fit(std::vector<T>& buffer, int64_t size) {
    if ((int64_t)buffer.size() < size) buffer.resize(size);
    return buffer.data();
}

template <class T>
void normalise(const Norm<T>& norm, const T* x, T* y, int64_t rows, int64_t dim) {
    Kernels<T>::rms_norm(x, dim, norm.weight, y, rows, dim, norm.epsilon, norm.offset, norm.round_first);
}

template <class T>
void project(const Linear<T>& by, LoRAArgs* lora, const T* x, T* y, int64_t rows) {
    int64_t k = by.in_features, n = by.out_features;
    if (by.is_int8)
        Kernels<T>::linear_int8(x, k, (const uint8_t*)by.packed, by.bias, y, n, rows, n, k);
    else
        Kernels<T>::linear(x, k, (const T*)by.packed, by.bias, y, n, rows, n, k);
    if (!lora) return;
    lora->x = x, lora->y = y;
    lora->in_features = lora->x_stride = by.in_features;
    lora->y_stride = by.out_features;
    Kernels<T>::add_lora(lora);
}

// sum = x + term
template <class T>
void add(const T* x, const T* term, T* sum, int64_t size) {
    int64_t whole = size / LANES * LANES;
#pragma omp parallel for if (size > WORTH_THREADS)
    for (int64_t i = 0; i < whole; i += LANES) store(sum + i, load(x + i) + load(term + i));
    for (int64_t i = whole; i < size; i++) from_float(sum + i, to_float(x[i]) + to_float(term[i]));
}

// Computes attention of the layer's `qkv` [tokens, num_heads + 2 * num_kv_heads, head_dim] to `out`
// [tokens, num_heads, head_dim]. Rotates `qkv` in place and stores its keys and values in the cache.
template <class T>
void attend(const Step<T>& step, int64_t index, T* qkv, T* out) {
    const Layer<T>& layer = *step.layers[index];
    T *cached_keys = step.keys[index], *cached_values = step.values[index];
    int64_t stride = layer.qkv.out_features, kv_width = layer.num_kv_heads * layer.head_dim;
    T* keys = qkv + layer.num_heads * layer.head_dim;
    Kernels<T>::rope(qkv, stride, step.cosine, step.sine, step.num_tokens,
                     layer.num_heads + layer.num_kv_heads, layer.head_dim);
    Kernels<T>::store_rows(keys, stride, cached_keys, step.slots, step.num_tokens, kv_width);
    Kernels<T>::store_rows(keys + kv_width, stride, cached_values, step.slots, step.num_tokens, kv_width);
    AttentionArgs& args = *step.attention;
    args.query = qkv, args.query_stride = stride, args.out = out;
    args.keys = cached_keys, args.values = cached_values;
    args.num_heads = layer.num_heads, args.num_kv_heads = layer.num_kv_heads;
    args.key_dim = args.value_dim = layer.head_dim;
    args.window = layer.window, args.chunk = layer.chunk, args.sinks = layer.sinks;
    args.scaling = layer.scaling, args.softcap = layer.softcap;
    Kernels<T>::attention(&args);
}

// Computes one of the step's layers from `x` to the step's `y`, which may be the same.
template <class T>
void decoder_layer(const Step<T>& step, int64_t index, const T* x) {
    static thread_local Buffers<T> buffers;
    static constexpr LoRAArgs* NO_LORA[NUM_LINEARS] = {};
    const Layer<T>& layer = *step.layers[index];
    LoRAArgs* const* lora = step.lora ? step.lora + index * NUM_LINEARS : NO_LORA;
    int64_t rows = step.num_tokens, hidden = layer.o.out_features;
    int64_t inner = layer.down.in_features;
    T* normed = fit(buffers.normed, rows * hidden);
    T* qkv = fit(buffers.qkv, rows * layer.qkv.out_features);
    T* heads = fit(buffers.heads, rows * layer.o.in_features);
    T* term = fit(buffers.term, rows * hidden);
    normalise(layer.norms[0], x, normed, rows, hidden);
    project(layer.qkv, lora[0], normed, qkv, rows);
    attend(step, index, qkv, heads);
    project(layer.o, lora[1], heads, term, rows);
    add(x, term, step.y, rows * hidden);

    T* gate_up = fit(buffers.gate_up, rows * 2 * inner);
    T* gated = fit(buffers.gated, rows * inner);
    normalise(layer.norms[1], step.y, normed, rows, hidden);
    project(layer.gate_up, lora[2], normed, gate_up, rows);
    Kernels<T>::silu_mul(gate_up, gate_up + inner, 2 * inner, gated, rows, inner);
    project(layer.down, lora[3], gated, term, rows);
    add(step.y, term, step.y, rows * hidden);
}

template <class T>
void decoder_layers(const Step<T>* step) {
    for (int64_t index = 0; index < step->num_layers; index++)
        decoder_layer(*step, index, index ? step->y : step->x);
}

}  // namespace

extern "C" void decoder_layers_f32(const Step<float>* step) { decoder_layers(step); }

extern "C" void decoder_layers_bf16(const Step<bf16>* step) { decoder_layers(step); }
