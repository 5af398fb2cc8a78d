"""Converts the configurations of chatglm2, chatglm3 and glm-4 to that of transformers' GLM.

Their repositories contain Python code, which is never run. The equations are those of
`modeling_chatglm.py` in THUDM/chatglm2-6b, THUDM/chatglm3-6b and THUDM/glm-4-9b on the hub.
"""

from collections.abc import Mapping
from enum import IntEnum
from pathlib import Path, PurePath
from typing import Any

from transformers import GlmConfig

from shared.errors import ModelRejected, first_line
from worker.lora.base.dialect import Dialect
from worker.model.loading.folder import TOKENIZER_FILE, config_fields, is_chatglm

_ATTENTION = "transformer.encoder.layers.#.self_attention"
_MLP = "transformer.encoder.layers.#.mlp"
CHATGLM = Dialect(
    model_type="chatglm",
    modules={
        "transformer.embedding.word_embeddings": ("model.embed_tokens",),
        "transformer.encoder.layers.#.input_layernorm": ("model.layers.#.input_layernorm",),
        f"{_ATTENTION}.query_key_value": (
            "model.layers.#.self_attn.q_proj",
            "model.layers.#.self_attn.k_proj",
            "model.layers.#.self_attn.v_proj",
        ),
        f"{_ATTENTION}.dense": ("model.layers.#.self_attn.o_proj",),
        "transformer.encoder.layers.#.post_attention_layernorm": (
            "model.layers.#.post_attention_layernorm",
        ),
        f"{_MLP}.dense_h_to_4h": ("model.layers.#.mlp.gate_up_proj",),
        f"{_MLP}.dense_4h_to_h": ("model.layers.#.mlp.down_proj",),
        "transformer.encoder.final_layernorm": ("model.norm",),
        "transformer.output_layer": ("lm_head",),
    },
    ignored=frozenset({"transformer.rotary_pos_emb.inv_freq"}),
)

_SIZES = {
    "padded_vocab_size": "vocab_size",
    "hidden_size": "hidden_size",
    "ffn_hidden_size": "intermediate_size",
    "num_layers": "num_hidden_layers",
    "num_attention_heads": "num_attention_heads",
    "multi_query_group_num": "num_key_value_heads",
    "kv_channels": "head_dim",
    "seq_length": "max_position_embeddings",
}
"""Fields of config.json that are sizes, with their names in `GlmConfig`."""
_FIXED = {
    "add_bias_linear": False,
    "apply_residual_connection_post_layernorm": False,
    "fp32_residual_connection": False,
    "multi_query_attention": True,
    "original_rope": True,
    "post_layer_norm": True,
    "rmsnorm": True,
}
"""Fields of config.json that select equations, with the only value that GLM supports."""
_READ = frozenset(
    (
        *_SIZES,
        *_FIXED,
        *("add_qkv_bias", "eos_token_id", "layernorm_epsilon", "pad_token_id", "rope_ratio"),
    )
)
_WITHOUT_EFFECT = frozenset(
    (
        *("model_type", "architectures", "auto_map", "_name_or_path", "transformers_version"),
        *("torch_dtype", "dtype", "use_cache", "vocab_size", "num_hidden_layers"),
        *("attention_dropout", "classifier_dropout", "hidden_dropout", "bias_dropout_fusion"),
        # Scores are divided by the layer's number and multiplied by it again.
        *("apply_query_key_layer_scaling", "attention_softmax_in_fp32"),
    )
)
_ROPE_THETA = 10_000.0


class Generation(IntEnum):
    """Generations of models whose `model_type` is "chatglm"."""

    CHATGLM2 = 2
    CHATGLM3 = 3
    GLM4 = 4


def find_dialect(folder: Path) -> Dialect | None:
    """Return the dialect of the checkpoint in `folder`.

    Return None if its modules have the same names as those of the served model.
    """
    return CHATGLM if is_chatglm(folder) else None


def glm_config(source: str, folder: Path) -> GlmConfig:
    """Return the configuration of the chatglm checkpoint in `folder` in the form for GLM.

    Raises:
        ModelRejected: a size is missing, or a field has a value for which the model computes
            something other than GLM does. The message names the field.
    """
    fields = config_fields(folder)
    _check_fields(source, fields)
    eos = fields.get("eos_token_id")
    rope = _rope(source, folder, fields.get("rope_ratio", 1))
    try:
        return GlmConfig(
            **{name: fields[field] for field, name in _SIZES.items()},
            rms_norm_eps=fields["layernorm_epsilon"],
            attention_bias=bool(fields.get("add_qkv_bias", False)),
            rope_parameters=rope,
            tie_word_embeddings=False,
            pad_token_id=fields.get("pad_token_id"),
            eos_token_id=[] if eos is None else eos,
        )
    except Exception as error:  # transformers raises error types of its own for bad values
        raise ModelRejected(f"--model {source}: config.json: {first_line(error)}") from error


def generation(source: str, folder: Path) -> Generation:
    """Find the generation of the chatglm model in `folder` by its tokenizer's files or its name.

    Raises:
        ModelRejected: neither the files nor the name tell chatglm2 from chatglm3.
    """
    if is_tiktoken(folder / TOKENIZER_FILE):
        return Generation.GLM4
    settings = folder / "tokenizer_config.json"
    if settings.is_file() and "<|user|>" in settings.read_text(encoding="utf-8", errors="replace"):
        return Generation.CHATGLM3
    for name in (str(config_fields(folder).get("_name_or_path")), source, str(folder.resolve())):
        shown = PurePath(name).name.lower().replace("-", "").replace("_", "")
        for found in Generation:
            if f"glm{found.value}" in shown:
                return found
    raise ModelRejected(
        f"--model {source}: its files don't say whether it is chatglm2 or chatglm3, whose prompts "
        'differ; set "_name_or_path" in its config.json to "THUDM/chatglm2-6b" or '
        '"THUDM/chatglm3-6b"'
    )


def is_tiktoken(path: Path) -> bool:
    """Return whether a file is in tiktoken's format: each line has a base64 token and its rank."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        token, _, rank = file.readline(200).strip().partition(b" ")
    return bool(token) and rank.isdigit()


def _check_fields(source: str, fields: Mapping[str, Any]) -> None:
    for name, value in fields.items():
        if name in _FIXED and value is not _FIXED[name]:
            raise _refusal(source, name, value, f"supported: {_json(_FIXED[name])}")
        if value and name not in _READ and name not in _WITHOUT_EFFECT:
            raise _refusal(source, name, value, "this model of chatglm computes something else")
    for name in (*_SIZES, "layernorm_epsilon"):
        _check_positive(source, name, fields.get(name), int if name in _SIZES else float)


def _rope(source: str, folder: Path, ratio: Any) -> dict[str, Any]:
    """Return GLM's parameters for a rotation of the first half of each head.

    `ratio` is the value of the field `rope_ratio`. chatglm2 divides positions by this value. Later
    models multiply the rotation's base by it.

    Raises:
        ModelRejected: `ratio` isn't a positive number.
    """
    _check_positive(source, "rope_ratio", ratio, float)
    half = {"rope_type": "default", "rope_theta": _ROPE_THETA, "partial_rotary_factor": 0.5}
    if ratio == 1:
        return half
    if generation(source, folder) is Generation.CHATGLM2:
        return {**half, "rope_type": "linear", "factor": float(ratio)}
    return {**half, "rope_theta": _ROPE_THETA * ratio}


def _check_positive(source: str, name: str, value: Any, kind: type[int] | type[float]) -> None:
    is_number = type(value) is int or (type(value) is float and kind is float)
    if not is_number or not value > 0:
        raise _refusal(source, name, value, "expected a positive number")


def _json(value: bool) -> str:
    return str(value).lower()


def _refusal(source: str, name: str, value: Any, reason: str) -> ModelRejected:
    return ModelRejected(
        f"--model {source}: {name}={value!r} in its config.json isn't supported: {reason}"
    )
