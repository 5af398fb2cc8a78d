"""Over a hundred ways to spoil an adapter, each with a word of the reason that must be told."""

import json
import os
import pickle
import shutil
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tiny import save_adapter

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
GOOD: dict[str, Any] = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"]}
Q0 = "base_model.model.model.layers.0.self_attn.q_proj"
A, B = f"{Q0}.lora_A.weight", f"{Q0}.lora_B.weight"
NAN, INF = float("nan"), float("inf")

Tensors = dict[str, torch.Tensor]
Spoil = Callable[[Path], object]


@dataclass(frozen=True)
class Bad:
    """What is done to a folder that holds a good adapter, and a pattern of the reason."""

    name: str
    spoil: Spoil
    reason: str


def save_good(folder: Path) -> Path:
    """The adapter that is spoilt."""
    return save_adapter(folder, **GOOD)


def save_bad(good: Path, folder: Path, bad: Bad) -> Path:
    """A spoilt copy of it."""
    shutil.copytree(good, folder)
    bad.spoil(folder)
    return folder


def _field(**fields: Any) -> Spoil:
    def spoil(folder: Path) -> None:
        config = json.loads((folder / CONFIG).read_text())
        (folder / CONFIG).write_text(json.dumps(config | fields))

    return spoil


def _without(field: str) -> Spoil:
    def spoil(folder: Path) -> None:
        config = json.loads((folder / CONFIG).read_text())
        del config[field]
        (folder / CONFIG).write_text(json.dumps(config))

    return spoil


def _bytes(file: str, content: bytes) -> Spoil:
    return lambda folder: (folder / file).write_bytes(content)


def _cut(file: str, size: int) -> Spoil:
    return lambda folder: os.truncate(folder / file, (folder / file).stat().st_size + size)


def _instead(file: str, make: Callable[[Path], object]) -> Spoil:
    """Something else under the file's name."""

    def spoil(folder: Path) -> None:
        (folder / file).unlink(missing_ok=True)
        make(folder / file)

    return spoil


def _link_out(path: Path) -> None:
    """A link to a good file of the folder beside, which is another adapter's."""
    beside = path.parent.with_name(f"beside-{path.parent.name}")
    save_good(beside)
    path.symlink_to((beside / path.name) if (beside / path.name).exists() else beside / CONFIG)


def _tensors(change: Callable[[Tensors], object]) -> Spoil:
    def spoil(folder: Path) -> None:
        tensors = load_file(folder / WEIGHTS)
        change(tensors)
        save_file(tensors, folder / WEIGHTS)

    return spoil


def _put(name: str, tensor: torch.Tensor) -> Spoil:
    return _tensors(lambda tensors: tensors.update({name: tensor}))


def _drop(name: str) -> Spoil:
    return _tensors(lambda tensors: tensors.pop(name))


def _header(change: Callable[[dict[str, Any]], object]) -> Spoil:
    """The same bytes behind a header that was changed."""

    def spoil(folder: Path) -> None:
        raw = (folder / WEIGHTS).read_bytes()
        (length,) = struct.unpack("<Q", raw[:8])
        header = json.loads(raw[8 : 8 + length])
        changed = json.dumps(change(header) or header).encode()
        (folder / WEIGHTS).write_bytes(
            struct.pack("<Q", len(changed)) + changed + raw[8 + length :]
        )

    return spoil


def _raw_header(header: bytes, *, says: int | None = None) -> Spoil:
    size = struct.pack("<Q", len(header) if says is None else says)
    return _bytes(WEIGHTS, size + header)


def _other(folder: Path, model_type: str = "llama", **config: Any) -> None:
    """Another model's adapter in its place."""
    shutil.rmtree(folder)
    save_adapter(folder, model_type, **{**GOOD, **config})


def _pickled(folder: Path) -> None:
    weights = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    torch.save(weights, folder / "adapter_model.bin")


def _narrower(folder: Path) -> None:
    """As if its base had half the width."""
    tensors = load_file(folder / WEIGHTS)
    half = {
        name: (t[:, :32] if "lora_A" in name else t[: len(t) // 2]).contiguous()
        for name, t in tensors.items()
    }
    save_file(half, folder / WEIGHTS)


def _touched(path: Path) -> Path:
    path.touch()
    return path


def _wide(folder: Path) -> None:
    """A rank that the adapter memory can't hold, and a file that holds nothing of it."""
    rank = 10**9
    _field(r=rank)(folder)

    def widen(header: dict[str, Any]) -> None:
        for name, entry in header.items():
            if "lora_A" in name:
                entry["shape"][0] = rank

    _header(widen)(folder)


def _hollow(folder: Path) -> None:
    """A file of many GB that takes no room on the disk."""

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
    "target_parameters": (["experts.gate_up_proj"],),
    "layer_replication": ([[0, 2], [1, 2]],),
    "alora_invocation_tokens": ([1],),
    "use_qalora": (True,),
    "use_bdlora": ({"nblocks": 2},),
    "arrow_config": ({"top_k": 3},),
    "megatron_config": ({"x": 1},),
    "a_field_from_the_future": (True,),
    "r": (0, -8, 8.0, "8", True, None, [8]),
    "lora_alpha": ("16", NAN, INF, None),
    "use_rslora": ("yes", 1),
    "fan_in_fan_out": (True, 1),
    "rank_pattern": (["q_proj"], {"q_proj": 0}, {"(": 8}),
    "alpha_pattern": ({"q_proj": "8"}, {"(": 8}, {"q_proj": NAN}),
    "target_modules": (3, "(", [1]),
    "exclude_modules": ("(",),
    "layers_to_transform": (["0"], True),
}
_CONFIGS = [
    Bad("no config", lambda f: (f / CONFIG).unlink(), "adapter_config.json is missing"),
    Bad("empty config", _bytes(CONFIG, b""), "isn't JSON"),
    Bad("config of text", _bytes(CONFIG, b"hello"), "isn't JSON"),
    Bad("config of bytes", _bytes(CONFIG, bytes(range(256))), "isn't JSON"),
    Bad("config of a list", _bytes(CONFIG, b"[]"), "isn't a JSON object"),
    Bad("config of null", _bytes(CONFIG, b"null"), "isn't a JSON object"),
    Bad("deep config", _bytes(CONFIG, b"[" * 200_000), "isn't JSON"),
    Bad("huge config", _bytes(CONFIG, b" " * (2 << 20)), "more than 1048576 bytes"),
    Bad("config is a folder", _instead(CONFIG, Path.mkdir), "adapter_config.json is missing"),
    Bad("config is a pipe", _instead(CONFIG, os.mkfifo), "adapter_config.json is missing"),
    Bad("config leads out", _instead(CONFIG, _link_out), "a link out of its folder"),
    Bad(
        "config leads nowhere",
        _instead(CONFIG, lambda path: path.symlink_to("nowhere")),
        "adapter_config.json is missing",
    ),
    Bad("no peft_type", _without("peft_type"), "peft_type is missing"),
    Bad("no target", _field(target_modules=["nothing"]), "target_modules matches no module"),
    Bad("empty targets", _field(target_modules=[]), "target_modules"),
    Bad("another target", _field(target_modules=["q_proj"]), "v_proj"),
    Bad("one target more", _field(target_modules=["q_proj", "v_proj", "o_proj"]), "o_proj"),
    Bad("another rank", _field(r=8), r"expected \[8, 64\]"),
    Bad("another rank for one", _field(rank_pattern={"v_proj": 2}), r"expected \[2, 64\]"),
    Bad("fewer layers", _field(layers_to_transform=[0]), "layers.1"),
]
_FILES = [
    Bad("no weights", lambda f: (f / WEIGHTS).unlink(), "adapter_model.safetensors is missing"),
    Bad("pickled weights", _pickled, "can run code when it is read"),
    Bad("a pickle by another name", _bytes(WEIGHTS, pickle.dumps({"a": 1})), "header|truncated"),
    Bad("empty weights", _bytes(WEIGHTS, b""), "truncated"),
    Bad("seven bytes", _bytes(WEIGHTS, b"1234567"), "truncated"),
    Bad("weights of text", _bytes(WEIGHTS, b"version https://git-lfs.github.com/spec"), "header"),
    Bad("huge header", _raw_header(b"{}", says=1 << 60), "header has 1152921504606846976 bytes"),
    Bad("header beyond the file", _raw_header(b"{}", says=1 << 20), "truncated within its header"),
    Bad("header of text", _raw_header(b"hello"), "header isn't JSON"),
    Bad("header of a list", _raw_header(b"[1]"), "header isn't a JSON object"),
    Bad("deep header", _raw_header(b"[" * 200_000), "header isn't JSON"),
    Bad("zero tensors", _raw_header(b"{}"), "is missing"),
    Bad("no data", _cut(WEIGHTS, -4096), "truncated"),
    Bad("data to spare", _cut(WEIGHTS, 4096), "too long"),
    Bad("no dtype", _header(lambda h: h[A].pop("dtype") and None), "makes no sense"),
    Bad("dtype of a number", _header(lambda h: h[A].update(dtype=7)), "makes no sense"),
    Bad("unknown dtype", _header(lambda h: h[A].update(dtype="F3")), "dtype F3"),
    Bad("no shape", _header(lambda h: h[A].pop("shape") and None), "makes no sense"),
    Bad("negative shape", _header(lambda h: h[A].update(shape=[-4, 64])), "makes no sense"),
    Bad("shape of text", _header(lambda h: h[A].update(shape="4x64")), "makes no sense"),
    Bad("no offsets", _header(lambda h: h[A].pop("data_offsets") and None), "makes no sense"),
    Bad("tensor of null", _header(lambda h: h.update({A: None})), "makes no sense"),
    Bad("shared bytes", _header(lambda h: h[A].update(data_offsets=h[B]["data_offsets"])), "read"),
    Bad("weights are a folder", _instead(WEIGHTS, Path.mkdir), "safetensors is missing"),
    Bad("weights are a pipe", _instead(WEIGHTS, os.mkfifo), "safetensors is missing"),
    Bad("weights lead out", _instead(WEIGHTS, _link_out), "a link out of its folder"),
    Bad("weights are a device", _instead(WEIGHTS, lambda p: p.symlink_to("/dev/zero")), "missing"),
    Bad("a rank for a giant", _wide, "over --adapter-memory-mb"),
    Bad("a hollow file", _hollow, "larger than the tensors"),
    Bad(
        "template leads out",
        lambda f: (f / "chat_template.jinja").symlink_to("/etc/hostname"),
        "a link out of its folder",
    ),
    Bad("template is a folder", lambda f: (f / "tokenizer_config.json").mkdir(), "is missing"),
    Bad(
        "hollow template",
        lambda f: os.truncate(_touched(f / "chat_template.jinja"), 40 << 30),
        "has more than",
    ),
]


_RANDOM = torch.randn(4, 64, generator=torch.Generator().manual_seed(0))
_TENSORS = [
    Bad("no A", _drop(A), "lora_A.weight is missing"),
    Bad("no B", _drop(B), "lora_B.weight is missing"),
    Bad("A of another rank", _put(A, torch.ones(8, 64)), r"shape \[8, 64\]"),
    Bad("A turned", _put(A, torch.ones(64, 4)), r"shape \[64, 4\], expected \[4, 64\]"),
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
    Bad("whole numbers", _put(A, torch.ones(4, 64, dtype=torch.int8)), "dtype I8"),
    Bad("truth values", _put(A, torch.ones(4, 64, dtype=torch.bool)), "dtype BOOL"),
    Bad("eight bits", _put(A, _RANDOM.to(torch.float8_e4m3fn)), "dtype F8_E4M3"),
    Bad("A twice", _put(f"{Q0}.lora_A.default.weight", _RANDOM), "lora_A"),
    Bad("another layer", _put(A.replace(".0.", ".9."), _RANDOM), r"layers\.9"),
    Bad("another module", _put(A.replace("q_proj", "o_proj"), _RANDOM), "o_proj"),
    Bad("a module that isn't", _put(A.replace("q_proj", "x_proj"), _RANDOM), "x_proj"),
    Bad("no prefix", _put(A.removeprefix("base_model.model."), _RANDOM), "layers.0"),
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


BAD = [
    *(
        Bad(f"{name}={json.dumps(value)}", _field(**{name: value}), name)
        for name, values in _FIELDS.items()
        for value in values
    ),
    *_CONFIGS,
    *_FILES,
    *_TENSORS,
]
