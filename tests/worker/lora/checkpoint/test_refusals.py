"""Adapters that can't be served exactly are refused, naming the field, tensor or file."""

import dataclasses
import json
import re
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig
from safetensors.torch import load_file, save_file
from tiny import save_adapter, tiny_model

from shared.errors import AdapterRejected
from worker.lora.base.modules import BaseModules, base_modules
from worker.lora.checkpoint.adapter import LoRAAdapter, read_checkpoint
from worker.lora.checkpoint.adapter_files import AdapterFiles
from worker.lora.checkpoint.config import _READ, _SUPPORTED_VALUES, _WITHOUT_EFFECT
from worker.lora.checkpoint.unsupported_config import REFUSAL_REASONS

Q0 = "base_model.model.model.layers.0.self_attn.q_proj"
Tensors = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def base() -> BaseModules:
    return base_modules(tiny_model("llama"))


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_adapter(
        tmp_path_factory.mktemp("good"), r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"]
    )


@pytest.fixture
def folder(good: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(good, tmp_path / "a"))


def read(base: BaseModules, folder: Path, dtype: torch.dtype = torch.float32) -> LoRAAdapter:
    return read_checkpoint("a", AdapterFiles(folder), base, dtype=dtype)


def refused(base: BaseModules, folder: Path, message: str, **kwargs: Any) -> None:
    with pytest.raises(AdapterRejected, match=message) as caught:
        read(base, folder, **kwargs)
    assert str(folder) in str(caught.value)


def set_field(folder: Path, **fields: Any) -> None:
    file = folder / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))


def test_the_adapter_that_these_tests_change_is_valid(base: BaseModules, folder: Path) -> None:
    assert len(read(base, folder).modules) == 4


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("peft_type", "LOHA"),
        ("task_type", "SEQ_CLS"),
        ("init_lora_weights", "pissa"),
        ("init_lora_weights", "pissa_niter_16"),
        ("init_lora_weights", "olora"),
        ("init_lora_weights", "corda"),
        ("init_lora_weights", "loftq"),
        ("init_lora_weights", "lora_ga"),
        ("init_lora_weights", "from_the_future"),
        ("modules_to_save", ["mlp"]),
        ("modules_to_save", "lm_head"),
        ("modules_to_save", [1]),
        ("target_parameters", ["experts.gate_up_proj"]),
        ("trainable_token_indices", [1, 262]),
        ("trainable_token_indices", [-1]),
        ("trainable_token_indices", [1, 1]),
        ("trainable_token_indices", [True]),
        ("trainable_token_indices", []),
        ("trainable_token_indices", {"q_proj": [1]}),
        ("trainable_token_indices", {"": [1]}),
        ("trainable_token_indices", {"lm_head": 1}),
        ("layer_replication", [[0, 2], [1, 2]]),
        ("loftq_config", {"loftq_bits": 4}),
        ("corda_config", {"corda_method": "kpm"}),
        ("lora_ga_config", {"direction": "ArB2r"}),
        ("kasa_config", {"beta": 1e-4, "gamma": 1e-3}),
        ("velora_config", {"num_groups": 64}),
        ("monteclora_config", {"x": 1}),
        ("alora_invocation_tokens", [1]),
        ("use_qalora", True),
        ("use_bdlora", {"nblocks": 2}),
        ("arrow_config", {"top_k": 3}),
        ("megatron_config", {"x": 1}),
        ("ensure_weight_tying", "yes"),
        ("a_field_from_the_future", True),
        ("r", 0),
        ("r", -8),
        ("r", 8.0),
        ("r", "8"),
        ("r", True),
        ("lora_alpha", "16"),
        ("lora_alpha", float("nan")),
        ("lora_alpha", 10**400),
        ("lora_alpha", None),
        ("use_rslora", "yes"),
        ("fan_in_fan_out", True),
        ("fan_in_fan_out", 1),
        ("rank_pattern", ["q_proj"]),
        ("rank_pattern", {"q_proj": 0}),
        ("rank_pattern", {"(": 8}),
        ("alpha_pattern", {"q_proj": "8"}),
        ("alpha_pattern", {"(": 8}),
        ("target_modules", 3),
        ("target_modules", "("),
        ("target_modules", ["norm"]),
        ("exclude_modules", "("),
        ("layers_to_transform", ["0"]),
        ("layers_to_transform", True),
        ("layers_pattern", "layers"),
    ],
    ids=str,
)
def test_an_unsupported_config_field(
    base: BaseModules, folder: Path, field: str, value: object
) -> None:
    set_field(folder, **{field: value})
    refused(base, folder, f"{field}.*{re.escape(REFUSAL_REASONS.get(field, ''))}")


def test_each_field_of_pefts_configuration_is_listed() -> None:
    """Fields of newer PEFT versions are refused when they are set, with a generic reason."""
    known = _READ | _WITHOUT_EFFECT | _SUPPORTED_VALUES.keys() | REFUSAL_REASONS.keys()
    assert {field.name for field in dataclasses.fields(LoraConfig)} == known


@pytest.mark.parametrize(
    "fields",
    [
        {"init_lora_weights": "gaussian"},
        {"init_lora_weights": "eva", "eva_config": {"rho": 2.0}},
        {"init_lora_weights": False},
        {"task_type": None, "auto_mapping": {"base_model_class": "LlamaForCausalLM"}},
        {"lora_dropout": 0.1, "inference_mode": False, "revision": "main"},
        {"runtime_config": {"ephemeral_gpu_offload": True}},
        {"ensure_weight_tying": True},  # the model ties nothing
        {"bias": "all"},  # the model has none
        {"modules_to_save": None, "use_dora": False, "a_field_from_the_future": None},
    ],
    ids=str,
)
def test_a_config_field_without_effect_on_the_answers_is_accepted(
    base: BaseModules, folder: Path, fields: dict[str, object]
) -> None:
    set_field(folder, **fields)
    assert len(read(base, folder).modules) == 4


def test_a_config_without_a_peft_type(base: BaseModules, folder: Path) -> None:
    (folder / "adapter_config.json").write_text('{"r": 4}')
    refused(base, folder, "peft_type is missing")


def test_layers_to_transform_with_a_regex_is_refused_as_by_peft(
    base: BaseModules, folder: Path
) -> None:
    set_field(folder, target_modules=".*q_proj", layers_to_transform=[0])
    refused(base, folder, "`layers_to_transform` cannot be used when `target_modules` is a str")


def drop(name: str) -> Callable[[Tensors], None]:
    return lambda tensors: tensors.__delitem__(name)


def put(name: str, tensor: torch.Tensor) -> Callable[[Tensors], None]:
    return lambda tensors: tensors.update({name: tensor})


A, B = f"{Q0}.lora_A.weight", f"{Q0}.lora_B.weight"
RANDOM = torch.randn(4, 64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (drop(A), f"tensor {A} is missing"),
        (drop(B), f"tensor {B} is missing"),
        (put(A, torch.ones(8, 64)), rf"tensor {A} has shape \[8, 64\], expected \[4, 64\]"),
        (put(A, torch.ones(64, 4)), rf"tensor {A} has shape \[64, 4\], expected \[4, 64\]"),
        (put(B, torch.ones(32, 4)), rf"tensor {B} has shape \[32, 4\], expected \[64, 4\]"),
        (put(B, torch.ones(4)), rf"tensor {B} has shape \[4\], expected \[64, 4\]"),
        (put(A, torch.full((4, 64), float("nan"))), f"tensor {A} holds NaN or Inf"),
        (put(B, torch.full((64, 4), float("inf"))), f"tensor {B} holds NaN or Inf"),
        (put(A, torch.ones(4, 64, dtype=torch.int8)), f"tensor {A} has dtype I8"),
        (put(A, RANDOM.to(torch.float8_e4m3fn)), f"tensor {A} has dtype F8_E4M3"),
        (put(f"{Q0}.lora_A.default.weight", RANDOM), "are for the same module"),
        (put(f"{Q0}.lora_magnitude_vector", RANDOM), "lora_magnitude_vector belongs to no"),
        (put(f"{Q0}.lora_B.bias", RANDOM), r"lora_B\.bias belongs to no module"),
        (put(f"{Q0}.base_layer.bias", RANDOM), r"base_layer\.bias belongs to no"),
        (put("lm_head.weight", RANDOM), r"lm_head\.weight belongs to no module"),
        (put("model.embed_tokens.lora_embedding_A", RANDOM), "lora_embedding_A belongs to no"),
        (put(A.replace("q_proj", "o_proj"), RANDOM), r"o_proj\.lora_A\.weight belongs to no"),
        (put(A.replace(".0.", ".9."), RANDOM), r"layers\.9\..* belongs to no module"),
        (put(A.removeprefix("base_model.model."), RANDOM), "belongs to no module"),
        (dict.clear, "is missing"),
    ],
)
def test_a_tensor_that_does_not_fit(
    base: BaseModules, folder: Path, change: Callable[[Tensors], None], message: str
) -> None:
    file = folder / "adapter_model.safetensors"
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file)
    refused(base, folder, message)


def test_weights_that_overflow_the_pools_dtype(base: BaseModules, folder: Path) -> None:
    file = folder / "adapter_model.safetensors"
    save_file(load_file(file) | {B: torch.full((64, 4), 60_000.0)}, file)
    assert read(base, folder).modules
    refused(base, folder, f"tensor {B} overflows torch.float16", dtype=torch.float16)


def header(text: bytes) -> bytes:
    return struct.pack("<Q", len(text)) + text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is truncated"),
        (b"12345", "is truncated"),
        (struct.pack("<Q", 100) + b"{}", "is truncated within its header"),
        (struct.pack("<Q", 1 << 40) + b"{}", "its header has 1099511627776 bytes, over"),
        (header(b"not JSON"), "its header isn't JSON"),
        (header(b"[" * 100_000), "its header is nested in more than 128 levels"),
        (header(b"[]"), "its header isn't a JSON object"),
        (header(b'{"x": 3}'), "invalid entry for tensor 'x'"),
        (header(b'{"x": {"dtype": "F32", "shape": [1]}}'), "invalid entry for tensor 'x'"),
        (
            header(b'{"x": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}'),
            "invalid entry for tensor 'x'",
        ),
        (
            header(b'{"x": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}'),
            "is truncated: it has 69 bytes, its header says 73",
        ),
        (header(b"{}") + b"0000", "is too long: it has 14 bytes, its header says 10"),
        (b"\x80\x02}q\x00.", "is truncated"),
    ],
)
def test_a_malformed_safetensors_file(
    base: BaseModules, folder: Path, content: bytes, message: str
) -> None:
    (folder / "adapter_model.safetensors").write_bytes(content)
    refused(base, folder, message)


def test_the_error_for_a_truncated_file_has_both_sizes(base: BaseModules, folder: Path) -> None:
    file = folder / "adapter_model.safetensors"
    content = file.read_bytes()
    file.write_bytes(content[:-100])
    refused(base, folder, rf"safetensors is truncated: it has {len(content) - 100} bytes, its he")


def test_a_header_whose_tensors_overlap(base: BaseModules, folder: Path) -> None:
    file = folder / "adapter_model.safetensors"
    content = file.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    fields = json.loads(content[8 : 8 + length])
    last = max((n for n in fields if n != "__metadata__"), key=lambda n: fields[n]["data_offsets"])
    fields[last]["data_offsets"][0] -= 4
    text = json.dumps(fields).encode()
    file.write_bytes(header(text) + content[8 + length :])
    refused(base, folder, "can't be read")


def test_the_error_for_a_pickled_adapter_says_how_to_convert_it(
    base: BaseModules, folder: Path
) -> None:
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
    refused(base, folder, r"safetensors is missing.*adapter_model\.bin.*convert it")


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors"])
def test_a_missing_file(base: BaseModules, folder: Path, name: str) -> None:
    (folder / name).unlink()
    refused(base, folder, f"{name} is missing")


@pytest.mark.parametrize(
    "name", ["adapter_config.json", "adapter_model.safetensors", "chat_template.jinja"]
)
def test_a_link_to_a_place_outside_the_folder(
    base: BaseModules, folder: Path, tmp_path: Path, name: str
) -> None:
    outside = tmp_path / "outside"
    outside.write_text("secret")
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to(outside)
    refused(base, folder, f"{name} is a link to a place outside its folder")


@pytest.mark.parametrize("text", ["", "{", "[]", "[" * 100_000, " " * (1 << 20) + "{}"])
def test_a_config_that_is_not_a_json_object(base: BaseModules, folder: Path, text: str) -> None:
    (folder / "adapter_config.json").write_text(text)
    refused(base, folder, "adapter_config.json (isn't|has more than)")


def test_a_config_that_cannot_be_read(base: BaseModules, folder: Path) -> None:
    (folder / "adapter_config.json").write_bytes(b"\xff\xfe\x00")
    refused(base, folder, "isn't JSON")


@pytest.mark.parametrize("source", ["/no/such/folder", "no-such-folder", "a/b/c", "../a", ""])
def test_a_source_that_is_neither_a_folder_nor_a_hub_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    monkeypatch.chdir(tmp_path)  # no other folder's neighbours count
    with pytest.raises(AdapterRejected, match="is neither a folder nor a hub id"):
        AdapterFiles.find(source)


@pytest.mark.parametrize("name", ["../a", "a..b", "a@1", "", "a b"])
def test_an_invalid_adapter_name(base: BaseModules, folder: Path, name: str) -> None:
    with pytest.raises(AdapterRejected, match="bad adapter name"):
        read_checkpoint(name, AdapterFiles(folder), base, dtype=torch.float32)


def test_gpt_2s_transposed_weights_need_fan_in_fan_out(tmp_path: Path) -> None:
    folder = save_adapter(
        tmp_path / "a", "gpt2", r=2, target_modules=["c_attn"], fan_in_fan_out=True
    )
    base = base_modules(tiny_model("gpt2"))
    assert len(read(base, folder).modules) == 2
    set_field(folder, fan_in_fan_out=False)
    refused(base, folder, "fan_in_fan_out=False doesn't fit")
