"""Over a hundred invalid adapters, each with a pattern that its error message must match."""

import json
import os
import pickle
import re
import shutil
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from adapter_folders import CONFIG, WEIGHTS, Tensors, change_tensors, set_field
from safetensors.torch import load_file, save_file
from tiny import save_adapter

from worker.lora.checkpoint.unsupported_config import REFUSAL_REASONS

GOOD: dict[str, Any] = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"]}
Q0 = "base_model.model.model.layers.0.self_attn.q_proj"
A, B = f"{Q0}.lora_A.weight", f"{Q0}.lora_B.weight"
NAN, INF = float("nan"), float("inf")
NO_CONFIG, NO_WEIGHTS = "adapter_config.json is missing", "adapter_model.safetensors is missing"
OUTSIDE = "a link to a place outside its folder"
NO_TARGET = "target_modules matches no module"
BAD_ENTRY = "invalid entry for tensor"

Corruption = Callable[[Path], object]


@dataclass(frozen=True)
class Bad:
    """A change that makes a valid adapter's folder invalid, and a pattern of the error message."""

    name: str
    corrupt: Corruption
    reason: str


def save_good(folder: Path) -> Path:
    return save_adapter(folder, **GOOD)


def save_bad(good: Path, folder: Path, bad: Bad) -> Path:
    shutil.copytree(good, folder)
    bad.corrupt(folder)
    return folder


def _field(**fields: Any) -> Corruption:
    return lambda folder: set_field(folder, **fields)


def _without(field: str) -> Corruption:
    def corrupt(folder: Path) -> None:
        config = json.loads((folder / CONFIG).read_text())
        del config[field]
        (folder / CONFIG).write_text(json.dumps(config))

    return corrupt


def _bytes(file: str, content: bytes) -> Corruption:
    return lambda folder: (folder / file).write_bytes(content)


def _cut(file: str, size: int) -> Corruption:
    return lambda folder: os.truncate(folder / file, (folder / file).stat().st_size + size)


def _replace(file: str, make: Callable[[Path], object]) -> Corruption:
    """Replace a file by another object of its name."""

    def corrupt(folder: Path) -> None:
        (folder / file).unlink(missing_ok=True)
        make(folder / file)

    return corrupt


def _link_outside(path: Path) -> None:
    """Create a link to a valid file in the folder of another adapter."""
    other = path.parent.with_name(f"other-{path.parent.name}")
    save_good(other)
    path.symlink_to((other / path.name) if (other / path.name).exists() else other / CONFIG)


def _tensors(change: Callable[[Tensors], object]) -> Corruption:
    return lambda folder: change_tensors(folder, change)


def _put(name: str, tensor: torch.Tensor) -> Corruption:
    return _tensors(lambda tensors: tensors.update({name: tensor}))


def _drop(name: str) -> Corruption:
    return _tensors(lambda tensors: tensors.pop(name))


def _header(change: Callable[[dict[str, Any]], object]) -> Corruption:
    """Change the header and keep the bytes of the tensors."""

    def corrupt(folder: Path) -> None:
        raw = (folder / WEIGHTS).read_bytes()
        (length,) = struct.unpack("<Q", raw[:8])
        header = json.loads(raw[8 : 8 + length])
        changed = json.dumps(change(header) or header).encode()
        (folder / WEIGHTS).write_bytes(
            struct.pack("<Q", len(changed)) + changed + raw[8 + length :]
        )

    return corrupt


def _raw_header(header: bytes, *, length: int | None = None) -> Corruption:
    size = struct.pack("<Q", len(header) if length is None else length)
    return _bytes(WEIGHTS, size + header)


def _other(folder: Path, model_type: str = "llama", **config: Any) -> None:
    """Replace the adapter by one of another model."""
    shutil.rmtree(folder)
    save_adapter(folder, model_type, **{**GOOD, **config})


def _pickled(folder: Path) -> None:
    weights = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    torch.save(weights, folder / "adapter_model.bin")


def _narrower(folder: Path) -> None:
    """Shrink the tensors as if the base had half the width."""
    tensors = load_file(folder / WEIGHTS)
    half = {
        name: (t[:, :32] if "lora_A" in name else t[: len(t) // 2]).contiguous()
        for name, t in tensors.items()
    }
    save_file(half, folder / WEIGHTS)


def _touched(path: Path) -> Path:
    path.touch()
    return path


def _huge_rank(folder: Path) -> None:
    """Claim a rank too large for the adapter memory, without the data for it."""
    rank = 10**9
    _field(r=rank)(folder)

    def widen(header: dict[str, Any]) -> None:
        for name, entry in header.items():
            if "lora_A" in name:
                entry["shape"][0] = rank

    _header(widen)(folder)


def _sparse(folder: Path) -> None:
    """Extend the weights to a sparse file of 40 GiB."""

    def grow(header: dict[str, Any]) -> None:
        entries = [entry for name, entry in header.items() if name != "__metadata__"]
        max(entries, key=lambda entry: entry["data_offsets"])["data_offsets"][1] = 40 << 30

    _header(grow)(folder)
    (length,) = struct.unpack("<Q", (folder / WEIGHTS).read_bytes()[:8])
    os.truncate(folder / WEIGHTS, 8 + length + (40 << 30))


_FIELDS: Mapping[str, tuple[Any, ...]] = {
    "peft_type": ("LOHA", "IA3", "PREFIX_TUNING", None, 5),
    "task_type": ("SEQ_CLS", "TOKEN_CLS"),
    "init_lora_weights": ("pissa", "pissa_niter_4", "olora", "corda", "loftq", "lora_ga", "new"),
    "modules_to_save": (["mlp"], "lm_head", [1]),
    "target_parameters": (["experts.gate_up_proj"],),
    "trainable_token_indices": (
        *([1, 262], [-1], [1, 1], [True], []),
        *({"q_proj": [1]}, {"": [1]}, {"lm_head": 1}),
    ),
    "layer_replication": ([[0, 2], [1, 2]],),
    "loftq_config": ({"loftq_bits": 4},),
    "corda_config": ({"corda_method": "kpm"},),
    "lora_ga_config": ({"direction": "ArB2r"},),
    "kasa_config": ({"beta": 1e-4, "gamma": 1e-3},),
    "velora_config": ({"num_groups": 64},),
    "monteclora_config": ({"x": 1},),
    "alora_invocation_tokens": ([1],),
    "use_qalora": (True,),
    "use_bdlora": ({"nblocks": 2},),
    "arrow_config": ({"top_k": 3},),
    "megatron_config": ({"x": 1},),
    "ensure_weight_tying": ("yes",),
    "a_field_from_the_future": (True,),
    "r": (0, -8, 8.0, "8", True, None, [8]),
    "lora_alpha": ("16", NAN, INF, None, 10**400),
    "use_rslora": ("yes", 1),
    "fan_in_fan_out": (True, 1),
    "rank_pattern": (["q_proj"], {"q_proj": 0}, {"(": 8}),
    "alpha_pattern": ({"q_proj": "8"}, {"(": 8}, {"q_proj": NAN}),
    "target_modules": (3, "(", [1], ["norm"], "(?!a).*"),
    "exclude_modules": ("(", "(?!a).*"),
    "layers_to_transform": (["0"], True),
    "layers_pattern": ("layers",),
}
_CONFIGS = [
    Bad("no config", lambda f: (f / CONFIG).unlink(), NO_CONFIG),
    Bad("empty config", _bytes(CONFIG, b""), "isn't JSON"),
    Bad("config of text", _bytes(CONFIG, b"hello"), "isn't JSON"),
    Bad("config of bytes", _bytes(CONFIG, bytes(range(256))), "isn't JSON"),
    Bad("config of a list", _bytes(CONFIG, b"[]"), "isn't a JSON object"),
    Bad("config of null", _bytes(CONFIG, b"null"), "isn't a JSON object"),
    Bad("deep config", _bytes(CONFIG, b"[" * 200_000), "has more than 65536 arrays"),
    Bad("huge config", _bytes(CONFIG, b" " * (2 << 20)), "more than 1048576 bytes"),
    Bad("config is a folder", _replace(CONFIG, Path.mkdir), NO_CONFIG),
    Bad("config is a pipe", _replace(CONFIG, os.mkfifo), NO_CONFIG),
    Bad("config links outside", _replace(CONFIG, _link_outside), OUTSIDE),
    Bad(
        "config links to nothing",
        _replace(CONFIG, lambda path: path.symlink_to("nowhere")),
        NO_CONFIG,
    ),
    Bad("no peft_type", _without("peft_type"), "peft_type is missing"),
    Bad("no target", _field(target_modules=["nothing"]), NO_TARGET),
    Bad("empty targets", _field(target_modules=[]), NO_TARGET),
    Bad("no layer", _field(layers_to_transform=[7]), NO_TARGET),
    Bad("a norm", _field(target_modules=["q_proj", "norm"]), r"model\.norm \(LlamaRMSNorm\)"),
    Bad("no linear", _field(target_modules=["self_attn"]), r"0\.self_attn \(LlamaAttention\)"),
    Bad("another target", _field(target_modules=["q_proj"]), "v_proj"),
    Bad("one target more", _field(target_modules=["q_proj", "v_proj", "o_proj"]), "o_proj"),
    Bad("another rank", _field(r=8), r"expected \[8, 64\]"),
    Bad("another rank for one", _field(rank_pattern={"v_proj": 2}), r"expected \[2, 64\]"),
    Bad("fewer layers", _field(layers_to_transform=[0]), "layers.1"),
]
_FILES = [
    Bad("no weights", lambda f: (f / WEIGHTS).unlink(), NO_WEIGHTS),
    Bad("pickled weights", _pickled, f"{NO_WEIGHTS}.*can run code when it is read.*convert it"),
    Bad("a pickle by another name", _bytes(WEIGHTS, pickle.dumps({"a": 1})), "header|truncated"),
    Bad("empty weights", _bytes(WEIGHTS, b""), "truncated"),
    Bad("seven bytes", _bytes(WEIGHTS, b"1234567"), "truncated"),
    Bad("weights of text", _bytes(WEIGHTS, b"version https://git-lfs.github.com/spec"), "header"),
    Bad("huge header", _raw_header(b"{}", length=1 << 60), "header has 1152921504606846976 bytes"),
    Bad(
        "header beyond the file", _raw_header(b"{}", length=1 << 20), "truncated within its header"
    ),
    Bad("header of text", _raw_header(b"hello"), "header isn't JSON"),
    Bad("header of a list", _raw_header(b"[1]"), "header isn't a JSON object"),
    Bad("deep header", _raw_header(b"[" * 100_000), "header is nested in more than 128 levels"),
    Bad("deeper header", _raw_header(b"[" * 200_000), "header has more than 163840 arrays"),
    Bad("zero tensors", _raw_header(b"{}"), "is missing"),
    Bad("no data", _cut(WEIGHTS, -4096), r"truncated: it has \d+ bytes, its header"),
    Bad("trailing data", _cut(WEIGHTS, 4096), "too long"),
    Bad("no dtype", _header(lambda h: h[A].pop("dtype") and None), BAD_ENTRY),
    Bad("dtype of a number", _header(lambda h: h[A].update(dtype=7)), BAD_ENTRY),
    Bad("unknown dtype", _header(lambda h: h[A].update(dtype="F3")), "dtype F3"),
    Bad("no shape", _header(lambda h: h[A].pop("shape") and None), BAD_ENTRY),
    Bad("negative shape", _header(lambda h: h[A].update(shape=[-4, 64])), BAD_ENTRY),
    Bad("shape of text", _header(lambda h: h[A].update(shape="4x64")), BAD_ENTRY),
    Bad("no offsets", _header(lambda h: h[A].pop("data_offsets") and None), BAD_ENTRY),
    Bad("tensor of null", _header(lambda h: h.update({A: None})), BAD_ENTRY),
    Bad("shared bytes", _header(lambda h: h[A].update(data_offsets=h[B]["data_offsets"])), "read"),
    Bad("weights are a folder", _replace(WEIGHTS, Path.mkdir), NO_WEIGHTS),
    Bad("weights are a pipe", _replace(WEIGHTS, os.mkfifo), NO_WEIGHTS),
    Bad("weights link outside", _replace(WEIGHTS, _link_outside), OUTSIDE),
    Bad("weights are a device", _replace(WEIGHTS, lambda p: p.symlink_to("/dev/zero")), "missing"),
    Bad("a huge rank", _huge_rank, "over --adapter-memory-mb"),
    Bad("a sparse file", _sparse, "larger than the tensors"),
    Bad(
        "template links outside",
        lambda f: (f / "chat_template.jinja").symlink_to("/etc/hostname"),
        OUTSIDE,
    ),
    Bad("template is a folder", lambda f: (f / "tokenizer_config.json").mkdir(), "is missing"),
    Bad(
        "a sparse template",
        lambda f: os.truncate(_touched(f / "chat_template.jinja"), 40 << 30),
        "has more than",
    ),
]


_RANDOM = torch.randn(4, 64, generator=torch.Generator().manual_seed(0))
_TENSORS = [
    Bad("no A", _drop(A), "lora_A.weight is missing"),
    Bad("no B", _drop(B), "lora_B.weight is missing"),
    Bad("A of another rank", _put(A, torch.ones(8, 64)), r"shape \[8, 64\]"),
    Bad("A transposed", _put(A, torch.ones(64, 4)), r"shape \[64, 4\], expected \[4, 64\]"),
    Bad("A of another width", _put(A, torch.ones(4, 32)), r"shape \[4, 32\]"),
    Bad("B of another height", _put(B, torch.ones(32, 4)), r"shape \[32, 4\]"),
    Bad("B of one dimension", _put(B, torch.ones(256)), r"shape \[256\]"),
    Bad("B of three dimensions", _put(B, torch.ones(64, 4, 1)), r"shape \[64, 4, 1\]"),
    Bad("A without rows", _put(A, torch.ones(0, 64)), r"shape \[0, 64\]"),
    Bad("NaN", _put(A, torch.full((4, 64), NAN)), "NaN or Inf"),
    Bad("one NaN", _tensors(lambda t: t[B].view(-1)[7:8].fill_(NAN)), "NaN or Inf"),
    Bad("infinite", _put(B, torch.full((64, 4), INF)), "NaN or Inf"),
    Bad("minus infinite", _put(B, torch.full((64, 4), -INF)), "NaN or Inf"),
    Bad(
        "too large numbers",
        _put(B, torch.full((64, 4), 1e300, dtype=torch.float64)),
        "overflow|NaN or Inf",
    ),
    Bad("integers", _put(A, torch.ones(4, 64, dtype=torch.int8)), "dtype I8"),
    Bad("booleans", _put(A, torch.ones(4, 64, dtype=torch.bool)), "dtype BOOL"),
    Bad("float8", _put(A, _RANDOM.to(torch.float8_e4m3fn)), "dtype F8_E4M3"),
    Bad("A twice", _put(f"{Q0}.lora_A.default.weight", _RANDOM), "lora_A"),
    Bad("another layer", _put(A.replace(".0.", ".9."), _RANDOM), r"layers\.9"),
    Bad("another module", _put(A.replace("q_proj", "o_proj"), _RANDOM), "o_proj"),
    Bad("an unknown module", _put(A.replace("q_proj", "x_proj"), _RANDOM), "x_proj"),
    Bad("no prefix", _put(A.removeprefix("base_model.model."), _RANDOM), "layers.0"),
    Bad("a bias on B", _put(f"{Q0}.lora_B.bias", _RANDOM), r"lora_B\.bias belongs to no module"),
    Bad("a stray tensor", _put("noise", _RANDOM), "noise"),
    Bad("a base weight", _put(f"{Q0}.weight", torch.ones(64, 64)), "q_proj.weight"),
    Bad("another head", _put("lm_head.weight", torch.ones(4, 64)), "lm_head"),
    Bad("a narrower base", _narrower, r"shape \[4, 32\]"),
    Bad(
        "a foreign base",
        partial(_other, model_type="gpt_neox", target_modules=["dense"]),
        "target_modules",
    ),
    Bad(
        "a foreign base's names",
        partial(_other, model_type="gpt_neox", target_modules=["query_key_value"]),
        "target_modules",
    ),
]


def _bad_field(name: str, value: Any) -> Bad:
    reason = f"{name}.*{re.escape(REFUSAL_REASONS.get(name, ''))}"
    return Bad(f"{name}={json.dumps(value)[:40]}", _field(**{name: value}), reason)


BAD = [
    *(_bad_field(name, value) for name, values in _FIELDS.items() for value in values),
    *_CONFIGS,
    *_FILES,
    *_TENSORS,
]
