"""GGUF files are served as transformers serves the model with the same weights."""

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from engines import engine_of, greedy_request, outputs_of, random_prompt
from gguf import GGMLQuantizationType as Type
from gguf_files import SIZES, VOCAB_SIZE, save_gguf
from kernel_sets import linear_kernels
from reference import check_greedy_along, logits_along, with_adapter
from tiny import CHAT_TEMPLATE, roughen, save_adapter, tiny_model, tiny_tokenizer
from transformers import AutoConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from ops.doctor.base_model import find_base
from shared.errors import ModelRejected
from shared.settings import WorkerSettings
from worker.model.loader import load_model
from worker.model.loading.architecture import read_config
from worker.model.loading.gguf_file import gguf_config
from worker.model.loading.weights import load_weights
from worker.startup.check_files import check_files

CPU = torch.device("cpu")
KINDS = (Type.F32, Type.F16, Type.BF16, Type.Q8_0, Type.Q4_0, Type.Q4_1, Type.Q5_0, Type.Q5_1)
KINDS += (Type.Q2_K, Type.Q3_K, Type.Q4_K, Type.Q5_K, Type.Q6_K)


def model_of(model_type: str, **overrides: Any) -> Any:
    return roughen(tiny_model(model_type, vocab_size=VOCAB_SIZE, **{**SIZES, **overrides}))


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_weights_equal_those_of_the_package_gguf(kind: Type, tmp_path: Path) -> None:
    path = tmp_path / "tiny.gguf"
    values = save_gguf(path, model_of("llama"), kind)
    config = read_config(str(path), path)
    loaded = load_weights(str(path), path, config, dtype=torch.bfloat16, device=CPU)
    weights = loaded.state_dict()
    assert weights.keys() == values.keys()
    for name, expected in values.items():
        assert torch.equal(weights[name], expected.bfloat16()), name


@pytest.mark.parametrize(
    ("model_type", "kind"), [("llama", Type.Q4_K), ("qwen2", Type.Q8_0), ("qwen3", Type.Q5_1)]
)
@pytest.mark.parametrize("is_tied", [False, True])
def test_answers_equal_those_of_transformers_with_adapters(
    model_type: str, kind: Type, is_tied: bool, tmp_path: Path
) -> None:
    reference = model_of(model_type, tie_word_embeddings=is_tied)
    values = save_gguf(tmp_path / "tiny-Q4_K_M.gguf", reference, kind)
    reference.load_state_dict(values)
    settings = {"r": 8, "target_modules": "all-linear"}
    base = model_of(model_type, tie_word_embeddings=is_tied)
    adapter = save_adapter(tmp_path / "adapter", base=base, scale=0.1, **settings)
    loaded = load_model(str(tmp_path / "tiny-Q4_K_M.gguf"), dtype="float32", device="cpu")
    assert loaded.name == "tiny-Q4_K_M"
    assert loaded.eos_ids == {2}
    assert loaded.max_model_len == 512
    engine, versions = engine_of(loaded, {"a": adapter})
    requests = [
        greedy_request(f"{who}{seed}", random_prompt(seed, 20), 16, versions.get(who))
        for who in "-a"
        for seed in range(3)
    ]
    outputs = outputs_of(engine, requests)
    for who, model in (("-", reference), ("a", None)):
        for seed in range(3):
            model = model or with_adapter(reference, adapter)
            tokens = [output.token_id for output in outputs[f"{who}{seed}"]]
            check_greedy_along(logits_along(model, random_prompt(seed, 20), tokens), tokens)


def test_the_tokenizer_and_its_chat_template_are_read_from_the_file(tmp_path: Path) -> None:
    path = tmp_path / "tiny.gguf"
    save_gguf(path, model_of("llama"), Type.F16)
    tokenizer = load_model(str(path), dtype="float32", device="cpu").tokenizer
    assert tokenizer.chat_template == CHAT_TEMPLATE
    text = tokenizer.apply_chat_template([{"role": "user", "content": "hé?"}], tokenize=False)
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert ids == tiny_tokenizer()(text, add_special_tokens=False)["input_ids"]
    assert tokenizer("he")["input_ids"] == [VOCAB_SIZE - 1]
    assert tokenizer.decode(ids) == text


@pytest.mark.parametrize("kind", [Type.Q8_0, Type.Q4_K])
def test_linears_are_quantised_to_int8_when_they_are_read(kind: Type, tmp_path: Path) -> None:
    linear_kernels(torch.float32)
    path = tmp_path / "tiny.gguf"
    save_gguf(path, model_of("llama"), kind)
    plain, int8 = (
        load_model(str(path), dtype="float32", device="cpu", quantize=each)
        for each in (None, "int8")
    )
    assert plain.digest != int8.digest
    assert int8.weight_bytes < 0.5 * plain.weight_bytes


ROTATIONS = {
    "linear": {"llama__rope__scaling__type": "linear", "llama__rope__scaling__factor": 4},
    "yarn": {
        "llama__rope__scaling__type": "yarn",
        "llama__rope__scaling__factor": 4,
        "llama__rope__scaling__original_context_length": 128,
    },
}


@pytest.mark.parametrize("kind", ROTATIONS)
def test_longer_rotations_are_read(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "tiny.gguf"
    save_gguf(path, model_of("llama"), Type.F16, **ROTATIONS[kind])
    rope = read_config(str(path), path).rope_parameters
    assert (rope["rope_type"], rope["factor"]) == (kind, 4.0)
    assert kind == "linear" or rope["original_max_position_embeddings"] == 128


def test_the_rotation_of_llama_3_is_recognised_by_its_factors(tmp_path: Path) -> None:
    path = tmp_path / "tiny.gguf"
    rope = {"rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0}
    rope |= {"low_freq_factor": 1.0, "high_freq_factor": 4.0}
    rope |= {"original_max_position_embeddings": 8192}
    config = AutoConfig.for_model("llama", **SIZES, num_attention_heads=4, rope_parameters=rope)
    inverse, _ = ROPE_INIT_FUNCTIONS["llama3"](config, CPU)
    dim = config.head_dim
    usual = 10000.0 ** -(torch.arange(0, dim, 2) / dim)
    save_gguf(path, model_of("llama"), Type.F16, usual / inverse)
    found = read_config(str(path), path).rope_parameters
    assert found == {**rope, "factor": pytest.approx(8)}
    others = usual / inverse * torch.linspace(1, 2, dim // 2)
    save_gguf(path, model_of("llama"), Type.F16, others)
    with pytest.raises(ModelRejected, match="aren't the factors of Llama 3's rotation"):
        read_config(str(path), path)


def test_files_that_cannot_be_served_are_refused_with_the_reason(tmp_path: Path) -> None:
    path = tmp_path / "tiny.gguf"
    save_gguf(path, model_of("llama"), Type.F16, split__count=3)
    with pytest.raises(ModelRejected, match="one of several parts; merge them"):
        read_config(str(path), path)
    writer = gguf.GGUFWriter(path, "mamba")
    writer.add_tensor("token_embd.weight", np.zeros((4, 4), np.float32))
    for write in ("header", "kv_data", "tensors"):
        getattr(writer, f"write_{write}_to_file")()
    writer.close()
    with pytest.raises(ModelRejected, match="architecture 'mamba' can't be read yet"):
        gguf_config("m", path)
    save_gguf(path, model_of("llama"), Type.F16, llama__attention__head_count=0)
    with pytest.raises(ModelRejected, match="this GGUF file can't be read"):
        read_config(str(path), path)
    path.write_bytes(b"GGUF" + bytes(40))
    with pytest.raises(ModelRejected, match="this GGUF file can't be read"):
        read_config(str(path), path)


def test_doctor_reads_the_shape_of_the_model_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "tiny.gguf"
    model = model_of("qwen3")
    save_gguf(path, model, Type.Q8_0)
    base = find_base(WorkerSettings(model=str(path), device="cpu"), str(path))
    assert base.facts.problem is None
    assert base.folder == path
    assert base.facts.num_parameters == sum(each.numel() for each in model.parameters())
    on_vllm = find_base(WorkerSettings(model=str(path), engine="vllm"), str(path))
    assert "--engine vllm takes no GGUF files" in on_vllm.facts.problem.text


def test_the_files_are_checked_before_anything_is_started(tmp_path: Path) -> None:
    path = tmp_path / "tiny.gguf"
    with pytest.raises(ModelRejected, match="this file doesn't exist"):
        check_files(WorkerSettings(model=str(path)))
    path.write_bytes(b"GGUF")
    assert check_files(WorkerSettings(model=str(path))).base == path
    with pytest.raises(ModelRejected, match=f"name a GGUF file itself: {path}"):
        check_files(WorkerSettings(model=str(tmp_path)))
    path.write_bytes(b"<html>")
    with pytest.raises(ModelRejected, match="isn't a GGUF file"):
        check_files(WorkerSettings(model=str(path)))
