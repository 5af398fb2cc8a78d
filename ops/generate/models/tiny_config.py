"""Shrinks the default configuration of a model type, so that its model has few weights."""

from collections.abc import Iterable
from typing import Any

from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoConfig, PreTrainedTokenizerFast

VOCAB_SIZE = 320
"""Number of tokens of each tiny model."""


def _all(names: str, value: Any) -> dict[str, Any]:
    return dict.fromkeys(names.split(), value)


_SIZES: dict[str, Any] = {
    **_all("vocab_size decoder_vocab_size vocab_size_per_layer_input", VOCAB_SIZE),
    **_all("unpadded_vocab_size encoder_hash_byte_group_vocab", VOCAB_SIZE),
    **_all(
        "hidden_size d_model n_embd dim_model embedding_size embedding_dim emb_dim lru_width", 64
    ),
    **_all("word_embed_proj_dim attention_hidden_size backbone_hidden_size embed_dim", 64),
    **_all("input_embedding_size output_embedding_size shape_embed_dim", 64),
    **_all("pronunciation_embed_dim text_hidden_size output_dim projection_dim", 64),
    **_all("num_hidden_layers n_layer n_layers num_layers decoder_layers encoder_layers", 2),
    **_all("num_decoder_layers num_encoder_layers depth num_global_layers num_blocks", 2),
    **_all("num_attention_heads n_head n_heads num_heads attention_heads index_n_heads", 4),
    **_all("decoder_attention_heads encoder_attention_heads num_decoder_attention_heads", 4),
    **_all("num_encoder_attention_heads swa_num_attention_heads linear_num_value_heads", 4),
    **_all("linear_num_heads cross_attention_heads num_global_attention_heads", 4),
    **_all("num_key_value_heads num_kv_heads swa_num_key_value_heads linear_num_key_heads", 2),
    **_all("num_global_key_value_heads num_query_groups swa_num_kv_heads", 2),
    **_all("head_dim v_head_dim swa_head_dim linear_key_head_dim linear_value_head_dim", 16),
    **_all("linear_head_dim index_head_dim dim_head d_head global_head_dim swa_v_head_dim", 16),
    **_all("attention_head_size kv_channels query_pre_attn_scalar", 16),
    **_all("qk_nope_head_dim qk_rope_head_dim rotary_dim", 8),
    **_all("q_lora_rank kv_lora_rank o_lora_rank laurel_rank loop_gate_rank gated_norm_rank", 16),
    **_all("intermediate_size ffn_dim ffn_hidden_size decoder_ffn_dim encoder_ffn_dim dff", 96),
    **_all("dim_ff d_inner feed_forward_size intermediate_size_mlp dense_intermediate_size", 96),
    **_all("moe_intermediate_size shared_expert_intermediate_size expert_ffn_hidden_size", 32),
    **_all("shared_intermediate_size moe_shared_expert_intermediate_size router_hidden_size", 32),
    **_all("shared_experts_intermediate_size hidden_size_per_layer_input prompt_mid_dim", 32),
    **_all("num_experts num_local_experts n_routed_experts moe_num_experts zero_expert_num", 4),
    **_all("num_experts_per_tok num_experts_per_token moe_topk moe_k top_k_experts", 2),
    **_all("n_group topk_group num_expert_group", 1),
    **_all("max_position_embeddings n_positions n_ctx max_seq_len model_max_length", 512),
    **_all("max_target_positions max_source_positions context_length", 512),
    **_all("sliding_window sliding_window_size window_size local_attention", 8),
    **_all("attention_window_size attention_chunk_size local_attention_window_len", 8),
    **_all("mamba_d_state state_size ssm_state_size mamba_d_head mamba_head_dim", 16),
    **_all("pad_token_id", 0),
    **_all("bos_token_id", 1),
    **_all("eos_token_id", 2),
    **_all("initializer_range init_std", 0.1),
}
"""Values of fields by name. They apply to every configuration that has the field."""
_SLIDING, _FULL, _LINEAR = "sliding_attention", "full_attention", "linear_attention"
_MAMBA_HEADS = {"mamba_n_heads": 8, "mamba_d_head": 16}
_ROPE = {"rope_type": "default", "rope_theta": 1e4}
_OF_TYPE: dict[str, dict[str, Any]] = {
    "bamba": _MAMBA_HEADS,
    "cohere_compass_text": {"rope_parameters": {_SLIDING: _ROPE, _FULL: _ROPE}},
    "dbrx": {
        "attn_config": {"kv_n_heads": 2, "rope_theta": 1e4, "clip_qkv": 8.0},
        "ffn_config": {"ffn_hidden_size": 96, "moe_num_experts": 4, "moe_top_k": 2},
    },
    "dory": {
        "layer_types": [_SLIDING, "mlp", _SLIDING, "mlp", _FULL, "mlp"],
        "num_hidden_layers": 6,
        **_all("n_input_layers n_recurrent_layers n_output_layers", 2),
    },
    "deepseek_v2": {**_all("n_group topk_group", 1), "num_experts_per_tok": 2},
    "dots1": {"n_routed_experts": 4, "num_experts_per_tok": 2, "n_shared_experts": 1},
    "dots3_note_text": {"head_dim": 16, "per_layer_config": {}},
    "falcon_h1": {**_MAMBA_HEADS, "mamba_d_ssm": 128},
    "gemma3n_text": {
        "layer_types": [_SLIDING, _FULL, _SLIDING, _FULL],
        "activation_sparsity_pattern": [0.95, 0.95, 0.0, 0.0],
        "num_hidden_layers": 4,
        "num_kv_shared_layers": 2,
    },
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "granitemoehybrid": _MAMBA_HEADS,
    "hunyuan_v1_dense": {"head_dim": 16},
    "hunyuan_v1_moe": {"head_dim": 16},
    "lfm2": {"layer_types": ["conv", _FULL]},
    "lfm2_moe": {"layer_types": ["conv", _FULL], "num_dense_layers": 1},
    "longcat_flash": {"head_dim": 8},
    "mamba2": {"num_heads": 8},
    "ministral": {"head_dim": 16},
    "mllama_text_model": {"cross_attention_layers": [1]},
    "modernbert-decoder": {"local_attention": 16},
    "nemotron": {"num_key_value_heads": 2},
    "qwen4_exp_text": {
        "indexer_budget": 16,
        "indexer_compress_ratio": 4,
        "indexer_head_dim": 16,
        "indexer_n_heads": 4,
        "indexer_kv_heads": 1,
    },
    "reformer": {"is_decoder": True, "axial_pos_shape": [16, 32], "axial_pos_embds_dim": [16, 48]},
    "xmod": {"default_language": "en_XX"},
    "zamba": {
        "attention_hidden_size": 128,
        "attention_head_dim": 32,
        "layers_block_type": [_LINEAR, "hybrid", _LINEAR, "hybrid"],
        "num_hidden_layers": 4,
    },
    "zamba2": {"attention_hidden_size": 128, "attention_head_dim": 32},
    "zaya": {"num_experts_per_tok": 1},
}
"""Fields of types whose configurations need other values."""


def tiny_config(model_type: str) -> Any:
    """Return a configuration of this type for a model of a few layers.

    The model keeps one layer of each kind that the default configuration has.
    """
    default = AutoConfig.for_model(model_type)
    return type(default)(**_tiny_fields(default, model_type))


def _tiny_fields(default: Any, model_type: str) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    given = default.to_dict()
    num_layers = given.get("num_hidden_layers")
    per_layer = {name: value for name, value in given.items() if _is_list_of(value, num_layers)}
    layers = _kept_layers(per_layer.values())
    for name, value in given.items():
        if isinstance(value, dict) and hasattr(part := getattr(default, name), "to_dict"):
            fields[name] = type(part)(**_tiny_fields(part, part.model_type))
        elif name in _SIZES and value is not None:
            fields[name] = _SIZES[name]
        elif name in per_layer:
            fields[name] = [value[layer] for layer in layers]
        elif num_layers and value == list(range(num_layers)):
            fields[name] = list(range(len(layers) or _SIZES["num_hidden_layers"]))
    if layers:
        fields["num_hidden_layers"] = len(layers)
    if "qk_rope_head_dim" in fields:
        fields.pop("head_dim", None)  # derived from the parts of a head
        fields["num_key_value_heads"] = _SIZES["num_attention_heads"]
    return fields | _OF_TYPE.get(model_type, {})


def _is_list_of(value: Any, num_layers: int | None) -> bool:
    """Return whether `value` describes each layer, and isn't a list of layer numbers."""
    return isinstance(value, list) and len(value) == num_layers and value != list(range(num_layers))


def _kept_layers(lists: Iterable[list[Any]]) -> list[int]:
    """Return the first layer of each kind, or the first two layers if all are of one kind."""
    first: dict[Any, int] = {}
    for layer, kind in enumerate(zip(*lists, strict=True)):
        first.setdefault(kind, layer)
    layers = sorted(first.values())
    return [0, 1] if len(layers) == 1 else layers


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """Return a tokenizer that maps each byte to one token."""
    special = ["<pad>", "<bos>", "<eos>"]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {token: i for i, token in enumerate([*special, *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<bos>", eos_token="<eos>"
    )
