"""Tiny chatglm checkpoints as their repositories hold them, and their equations in plain torch."""

import base64
import json
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.nn.functional as F  # noqa: N812  (torch's own name for it)
from safetensors.torch import save_file
from torch import nn
from transformers.convert_slow_tokenizer import import_protobuf

Tensors = dict[str, torch.Tensor]
LAYERS = "transformer.encoder.layers"
CONFIG: dict[str, Any] = {
    "_name_or_path": "THUDM/chatglm2-6b",
    "model_type": "chatglm",
    "architectures": ["ChatGLMModel"],
    "auto_map": {
        "AutoConfig": "configuration_chatglm.ChatGLMConfig",
        "AutoModel": "modeling_chatglm.ChatGLMForConditionalGeneration",
    },
    "add_bias_linear": False,
    "add_qkv_bias": True,
    "apply_query_key_layer_scaling": True,
    "apply_residual_connection_post_layernorm": False,
    "attention_dropout": 0.0,
    "attention_softmax_in_fp32": True,
    "bias_dropout_fusion": True,
    "ffn_hidden_size": 80,
    "fp32_residual_connection": False,
    "hidden_dropout": 0.0,
    "hidden_size": 64,
    "kv_channels": 16,
    "layernorm_epsilon": 1e-5,
    "multi_query_attention": True,
    "multi_query_group_num": 2,
    "num_attention_heads": 4,
    "num_layers": 2,
    "original_rope": True,
    "padded_vocab_size": 384,
    "post_layer_norm": True,
    "quantization_bit": 0,
    "pre_seq_len": None,
    "prefix_projection": False,
    "rmsnorm": True,
    "seq_length": 512,
    "use_cache": True,
    "torch_dtype": "float16",
    "transformers_version": "4.27.1",
    "tie_word_embeddings": False,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
"""chatglm2's configuration, with other sizes."""
KINDS: dict[str, dict[str, Any]] = {
    "chatglm2": {},
    "chatglm2 32k": {"rope_ratio": 4},
    "chatglm3": {"_name_or_path": "THUDM/chatglm3-6b", "rope_ratio": 50},
    "glm4": {"_name_or_path": "THUDM/glm-4-9b-chat", "rope_ratio": 500, "num_hidden_layers": 2},
}
"""Fields that differ from chatglm2's."""
WORDS = ["▁[", "ou", "nd", "ound", "hi", "▁hi", "▁▁", "你好", "▁你"]
"""Pieces of several characters, best first. Chat prompts of chatglm2 begin with the first ones."""
TEXTS = "abcdefghijklmnopqrstuvwxyzR[]0123456789问：答你好▁.,"  # noqa: RUF001


def pieces() -> list[tuple[str, int]]:
    """Return the pieces of the tiny sentencepiece model and their types, in the order of ids."""
    special = [("<unk>", 2), ("<s>", 3), ("</s>", 3)]
    of_bytes = [(f"<0x{byte:02X}>", 6) for byte in range(256)]
    return [*special, *of_bytes, *((each, 1) for each in (*WORDS, *TEXTS))]


def save_sentencepiece(path: Path, **normalizer: bool) -> None:
    proto = import_protobuf().ModelProto()
    proto.trainer_spec.model_type = 2  # BPE
    proto.trainer_spec.byte_fallback = True
    for name, value in {"remove_extra_whitespaces": False, **normalizer}.items():
        setattr(proto.normalizer_spec, name, value)
    for number, (name, kind) in enumerate(pieces()):
        proto.pieces.add(piece=name, score=-float(number), type=kind)
    path.write_bytes(proto.SerializeToString())


def sentencepiece_ids(text: str) -> list[int]:
    """Return the ids that sentencepiece's BPE gives a text: the best pair is merged first."""
    ids = {name: number for number, (name, kind) in enumerate(pieces()) if kind == 1}
    parts = list("▁" + text.replace(" ", "▁"))
    while True:
        pairs = [(ids[a + b], i) for i, (a, b) in enumerate(pairwise(parts)) if a + b in ids]
        if not pairs:
            break
        _, i = min(pairs)
        parts[i : i + 2] = [parts[i] + parts[i + 1]]
    return [n for part in parts for n in ([ids[part]] if part in ids else _byte_ids(part))]


def _byte_ids(character: str) -> list[int]:
    return [3 + byte for byte in character.encode()]


RANKS = [bytes([byte]) for byte in range(256)]
RANKS += [b"he", b"ll", b"hell", b"hello", b" w", "你".encode()[:2], "你".encode(), b"\n\n"]
"""Tokens of the tiny tiktoken file, by rank."""


def save_tiktoken(path: Path) -> None:
    lines = [b"%s %d" % (base64.b64encode(token), rank) for rank, token in enumerate(RANKS)]
    path.write_bytes(b"\n".join(lines) + b"\n")


def tiktoken_ids(piece: str) -> list[int]:
    """Return the ids that tiktoken gives one piece of a text."""
    if piece.encode() in RANKS:
        return [RANKS.index(piece.encode())]
    parts = [bytes([byte]) for byte in piece.encode()]
    while True:
        joined = [a + b for a, b in pairwise(parts)]
        ranks = [(RANKS.index(token), i) for i, token in enumerate(joined) if token in RANKS]
        if not ranks:
            return [RANKS.index(part) for part in parts]
        _, i = min(ranks)
        parts[i : i + 2] = [parts[i] + parts[i + 1]]


def random_tensors(config: Mapping[str, Any], seed: int = 0) -> Tensors:
    """Return random weights under the checkpoint's names."""
    generator = torch.Generator().manual_seed(seed)
    hidden, ffn, vocab = (
        config[name] for name in ("hidden_size", "ffn_hidden_size", "padded_vocab_size")
    )
    width = config["num_attention_heads"] * config["kv_channels"]
    qkv = width + 2 * config["multi_query_group_num"] * config["kv_channels"]
    shapes: dict[str, tuple[int, ...]] = {
        "transformer.embedding.word_embeddings.weight": (vocab, hidden),
        "transformer.rotary_pos_emb.inv_freq": (config["kv_channels"] // 4,),
        "transformer.encoder.final_layernorm.weight": (hidden,),
        "transformer.output_layer.weight": (vocab, hidden),
    }
    for layer in range(config["num_layers"]):
        shapes |= {
            f"{LAYERS}.{layer}.input_layernorm.weight": (hidden,),
            f"{LAYERS}.{layer}.self_attention.query_key_value.weight": (qkv, hidden),
            f"{LAYERS}.{layer}.self_attention.query_key_value.bias": (qkv,),
            f"{LAYERS}.{layer}.self_attention.dense.weight": (hidden, width),
            f"{LAYERS}.{layer}.post_attention_layernorm.weight": (hidden,),
            f"{LAYERS}.{layer}.mlp.dense_h_to_4h.weight": (2 * ffn, hidden),
            f"{LAYERS}.{layer}.mlp.dense_4h_to_h.weight": (hidden, ffn),
        }
    tensors = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    return {n: 1 + 0.3 * t if "norm" in n else 0.2 * t for n, t in tensors.items()}


def save_chatglm(folder: Path, kind: str = "chatglm2", *, pickled: bool, **fields: Any) -> Tensors:
    """Save a checkpoint of `kind` in two files, and return its weights."""
    config = {**CONFIG, **KINDS[kind], **fields}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "ChatGLMTokenizer"}')
    (save_tiktoken if kind == "glm4" else save_sentencepiece)(folder / "tokenizer.model")
    tensors = random_tensors(config)
    names, index = sorted(tensors), {}
    stem, end = ("pytorch_model", "bin") if pickled else ("model", "safetensors")
    for number, part in enumerate((names[::2], names[1::2]), start=1):
        file = f"{stem}-0000{number}-of-00002.{end}"
        (torch.save if pickled else save_file)({n: tensors[n] for n in part}, folder / file)
        index |= dict.fromkeys(part, file)
    (folder / f"{stem}.{end}.index.json").write_text(json.dumps({"weight_map": index}))
    return tensors


OLD_FIELDS: dict[str, Any] = {
    "base_model_name_or_path": "THUDM/chatglm2-6b",
    "bias": "none",
    "fan_in_fan_out": False,
    "inference_mode": True,
    "init_lora_weights": True,
    "layers_pattern": None,
    "layers_to_transform": None,
    "lora_alpha": 8,
    "lora_dropout": 0.1,
    "modules_to_save": None,
    "peft_type": "LORA",
    "r": 4,
    "revision": None,
    "task_type": "CAUSAL_LM",
}
"""Configuration of a LoRA that PEFT 0.4 saved, without its `target_modules`."""


def save_pickled_adapter(
    folder: Path, tensors: Tensors, modules: Sequence[str], *, seed: int = 1
) -> Path:
    """Save a random LoRA as PEFT 0.4 did, in a pickle, and return its folder."""
    generator = torch.Generator().manual_seed(seed)
    config = {**OLD_FIELDS, "target_modules": list(modules)}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "adapter_config.json").write_text(json.dumps(config))
    saved = {}
    for name, weight in tensors.items():
        module, _, part = name.rpartition(".")
        if part == "weight" and module.rpartition(".")[2] in modules:
            for matrix, shape in (("A", (4, weight.shape[1])), ("B", (weight.shape[0], 4))):
                tensor = torch.randn(shape, generator=generator) * 0.3
                saved[f"base_model.model.{module}.lora_{matrix}.weight"] = tensor
    torch.save(saved, folder / "adapter_model.bin")
    return folder


def _linear(inputs: int, outputs: int, *, bias: bool = False) -> nn.Linear:
    return nn.Linear(inputs, outputs, bias=bias)


class Layer(nn.Module):
    """One layer, by the equations of `modeling_chatglm.py`."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        c = {**CONFIG, **KINDS[kind]}
        self.kind, self.dim = kind, c["kv_channels"]
        self.heads, self.groups = c["num_attention_heads"], c["multi_query_group_num"]
        hidden, width = c["hidden_size"], self.heads * self.dim
        self.input_layernorm = nn.RMSNorm(hidden, eps=c["layernorm_epsilon"])
        self.self_attention = nn.Module()
        joined = width + 2 * self.groups * self.dim
        self.self_attention.query_key_value = _linear(hidden, joined, bias=True)
        self.self_attention.dense = _linear(width, hidden)
        self.post_attention_layernorm = nn.RMSNorm(hidden, eps=c["layernorm_epsilon"])
        self.mlp = nn.Module()
        self.mlp.dense_h_to_4h = _linear(hidden, 2 * c["ffn_hidden_size"])
        self.mlp.dense_4h_to_h = _linear(c["ffn_hidden_size"], hidden)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the layer's output for `x` `[length, hidden]`."""
        x = x + self.self_attention.dense(self._attention(self.input_layernorm(x)))
        inner = self.mlp.dense_h_to_4h(self.post_attention_layernorm(x))
        gate, up = inner.chunk(2, -1)
        y: torch.Tensor = x + self.mlp.dense_4h_to_h(F.silu(gate) * up)
        return y

    def _attention(self, x: torch.Tensor) -> torch.Tensor:
        length, dim, shared = len(x), self.dim, self.heads // self.groups
        sizes = [self.heads * dim, self.groups * dim, self.groups * dim]
        q, k, v = self.self_attention.query_key_value(x).split(sizes, -1)
        q = _rotated(q.view(length, self.heads, dim), self.kind)
        k = _rotated(k.view(length, self.groups, dim), self.kind).repeat_interleave(shared, 1)
        v = v.view(length, self.groups, dim).repeat_interleave(shared, 1)
        scores = torch.einsum("thd,shd->hts", q, k) / dim**0.5
        future = torch.ones(length, length).triu(1).bool()
        weights = scores.masked_fill(future, float("-inf")).softmax(-1)
        return torch.einsum("hts,shd->thd", weights, v).reshape(length, -1)


class Reference(nn.Module):
    """The whole model, with the names of the original's modules, so that PEFT can adapt it."""

    config: ClassVar = {"model_type": "chatglm"}

    def __init__(self, kind: str, tensors: Tensors) -> None:
        super().__init__()
        c = {**CONFIG, **KINDS[kind]}
        hidden, vocab = c["hidden_size"], c["padded_vocab_size"]
        self.transformer = nn.Module()
        self.transformer.embedding = nn.Module()
        self.transformer.embedding.word_embeddings = nn.Embedding(vocab, hidden)
        self.transformer.encoder = nn.Module()
        layers = nn.ModuleList(Layer(kind) for _ in range(c["num_layers"]))
        self.transformer.encoder.layers = layers
        norm = nn.RMSNorm(hidden, eps=c["layernorm_epsilon"])
        self.transformer.encoder.final_layernorm = norm
        self.transformer.output_layer = _linear(hidden, vocab)
        self.load_state_dict({name: t for name, t in tensors.items() if "inv_freq" not in name})
        self.eval().requires_grad_(False)

    def prepare_inputs_for_generation(self) -> None:
        """PEFT asks for this method, but doesn't call it."""

    def forward(self, ids: Sequence[int]) -> torch.Tensor:
        """Return the logits `[len(ids), vocabulary]`."""
        x = self.transformer.embedding.word_embeddings(torch.tensor(ids))
        for layer in self.transformer.encoder.layers:
            x = layer(x)
        logits: torch.Tensor = self.transformer.output_layer(
            self.transformer.encoder.final_layernorm(x)
        )
        return logits

    @torch.inference_mode()
    def greedy(self, ids: Sequence[int], num_tokens: int) -> list[int]:
        """Return the first greedy tokens. Fails if rounding could choose others."""
        found = list(ids)
        for _ in range(num_tokens):
            best = self(found)[-1].topk(2)
            assert best.values[0] - best.values[1] > 1e-3, "choose another prompt"
            found.append(int(best.indices[0]))
        return found[len(ids) :]


def _rotated(x: torch.Tensor, kind: str) -> torch.Tensor:
    """Rotate the interleaved pairs of the first half of each head of `x` `[length, heads, dim]`."""
    ratio, width = KINDS[kind].get("rope_ratio", 1), x.shape[-1] // 2
    positions, base = torch.arange(len(x)).float(), 10_000.0
    if kind.startswith("chatglm2"):
        positions /= ratio
    else:
        base *= ratio
    angles = torch.outer(positions, base ** (-torch.arange(0, width, 2).float() / width))
    cos, sin = angles.cos()[:, None], angles.sin()[:, None]
    even, odd = x[..., :width:2], x[..., 1:width:2]
    pairs = torch.stack([even * cos - odd * sin, odd * cos + even * sin], -1)
    return torch.cat([pairs.flatten(-2), x[..., width:]], -1)
