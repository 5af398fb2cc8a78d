// A decoder layer with norms in front of attention and MLP, as Llama's, in one call:
//
//     h = x + o(attention(rope(qkv(norm(x)))))        y = h + down(silu(gate(norm(h))) * up(norm(h)))
//
// in bfloat16, each linear with its LoRA terms. The steps are those of the other files, so that
// the result is the same to the bit; what is saved are the calls.

#include <algorithm>
#include <vector>

#include "attention.h"
#include "lora.h"
#include "vec.h"

extern "C" {
void rms_norm_bf16(const bf16*, int64_t, const bf16*, bf16*, int64_t, int64_t, float, float, int);
void silu_mul_bf16(const bf16*, const bf16*, int64_t, bf16*, int64_t, int64_t);
void rope_bf16(bf16*, int64_t, const bf16*, const bf16*, int64_t, int64_t, int64_t);
void store_rows_bf16(const bf16*, int64_t, bf16*, const int64_t*, int64_t, int64_t);
void linear_bf16(const bf16*, int64_t, const bf16*, const bf16*, bf16*, int64_t, int64_t, int64_t, int64_t);
}

namespace {

struct Norm {
    const bf16* weight;
    float epsilon;
    float offset;
    int64_t round_first;
};

struct Linear {
    const bf16* packed;
    const bf16* bias;  // null: none
    int64_t out_features;
    int64_t in_features;
};

struct Layer {
    Norm norms[2];
    Linear qkv, o, gate_up, down;
    int64_t num_heads;
    int64_t num_kv_heads;
    int64_t head_dim;
    int64_t window;  // 0: none
    float scaling;
    float softcap;  // 0: none
};

struct Step {
    const bf16* x;  // [T, hidden]
    bf16* y;        // [T, hidden]
    const bf16* cosine;
    const bf16* sine;
    const int64_t* slots;
    bf16* keys;
    bf16* values;
    AttentionArgs* attention;  // with what all layers share
    LoRAArgs* lora[4];         // of qkv, o, gate_up, down; null: none
    int64_t num_tokens;
};

struct Buffers {
    std::vector<bf16> normed, qkv, heads, gate_up, gated, term;
};

bf16* fit(std::vector<bf16>& buffer, int64_t size) {
    if ((int64_t)buffer.size() < size) buffer.resize(size);
    return buffer.data();
}

void normalise(const Norm& norm, const bf16* x, bf16* y, int64_t rows, int64_t dim) {
    rms_norm_bf16(x, dim, norm.weight, y, rows, dim, norm.epsilon, norm.offset, norm.round_first);
}

void project(const Linear& by, LoRAArgs* lora, const bf16* x, bf16* y, int64_t rows) {
    linear_bf16(x, by.in_features, by.packed, by.bias, y, by.out_features, rows, by.out_features,
                by.in_features);
    if (!lora) return;
    lora->x = x, lora->y = y;
    lora->in_features = lora->x_stride = by.in_features;
    lora->y_stride = by.out_features;
    add_lora_bf16(lora);
}

// sum = x + term
void add(const bf16* x, const bf16* term, bf16* sum, int64_t size) {
    int64_t whole = size / LANES * LANES;
#pragma omp parallel for if (size > WORTH_THREADS)
    for (int64_t i = 0; i < whole; i += LANES) store(sum + i, load(x + i) + load(term + i));
    for (int64_t i = whole; i < size; i++) from_float(sum + i, to_float(x[i]) + to_float(term[i]));
}

// Attention of `qkv` [T, heads of all three, head_dim] to `out` [T, num_heads, head_dim].
void attend(const Layer& layer, const Step& step, bf16* qkv, bf16* out) {
    int64_t stride = layer.qkv.out_features, kv_width = layer.num_kv_heads * layer.head_dim;
    bf16* keys = qkv + layer.num_heads * layer.head_dim;
    rope_bf16(qkv, stride, step.cosine, step.sine, step.num_tokens,
              layer.num_heads + layer.num_kv_heads, layer.head_dim);
    store_rows_bf16(keys, stride, step.keys, step.slots, step.num_tokens, kv_width);
    store_rows_bf16(keys + kv_width, stride, step.values, step.slots, step.num_tokens, kv_width);
    AttentionArgs& args = *step.attention;
    args.query = qkv, args.query_stride = stride, args.out = out;
    args.keys = step.keys, args.values = step.values;
    args.num_heads = layer.num_heads, args.num_kv_heads = layer.num_kv_heads;
    args.key_dim = args.value_dim = layer.head_dim;
    args.window = layer.window, args.scaling = layer.scaling, args.softcap = layer.softcap;
    paged_attention_bf16(&args);
}

}  // namespace

extern "C" void decoder_layer(const Layer* layer, const Step* step) {
    static thread_local Buffers buffers;
    int64_t rows = step->num_tokens, hidden = layer->o.out_features;
    int64_t inner = layer->down.in_features;
    bf16* normed = fit(buffers.normed, rows * hidden);
    bf16* qkv = fit(buffers.qkv, rows * layer->qkv.out_features);
    bf16* heads = fit(buffers.heads, rows * layer->o.in_features);
    bf16* term = fit(buffers.term, rows * hidden);
    normalise(layer->norms[0], step->x, normed, rows, hidden);
    project(layer->qkv, step->lora[0], normed, qkv, rows);
    attend(*layer, *step, qkv, heads);
    project(layer->o, step->lora[1], heads, term, rows);
    add(step->x, term, step->y, rows * hidden);

    bf16* gate_up = fit(buffers.gate_up, rows * 2 * inner);
    bf16* gated = fit(buffers.gated, rows * inner);
    normalise(layer->norms[1], step->y, normed, rows, hidden);
    project(layer->gate_up, step->lora[2], normed, gate_up, rows);
    silu_mul_bf16(gate_up, gate_up + inner, 2 * inner, gated, rows, inner);
    project(layer->down, step->lora[3], gated, term, rows);
    add(step->y, term, step->y, rows * hidden);
}
