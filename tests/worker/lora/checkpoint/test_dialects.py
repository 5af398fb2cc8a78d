"""Tensors of checkpoints and adapters with other names than the served model's."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from adapter_folders import read_adapter
from chatglm import CONFIG, Reference, Tensors, random_tensors, save_chatglm
from hypothesis import given
from hypothesis import strategies as st
from lora import wrap
from safetensors.torch import load_file, save_file
from tiny import save_adapter
from transformers import GlmForCausalLM

from shared.errors import AdapterRejected, ModelRejected
from worker.lora.base.modules import BaseModules
from worker.lora.checkpoint.adapter_files import AdapterFiles
from worker.lora.checkpoint.header_report import report_headers
from worker.model.loading.architecture import read_config
from worker.model.loading.chatglm import CHATGLM
from worker.model.loading.stored_weights import served_weights, translated

TENSORS = random_tensors(CONFIG)
QKV = "transformer.encoder.layers.0.self_attention.query_key_value"
Change = Callable[[Tensors], object]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> GlmForCausalLM:
    folder = tmp_path_factory.mktemp("model")
    save_chatglm(folder, pickled=False)
    return GlmForCausalLM(read_config(str(folder), folder)).float().eval()


@pytest.fixture(scope="module")
def shapes(model: GlmForCausalLM) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in model.state_dict().items()}


@pytest.fixture(scope="module")
def base(model: GlmForCausalLM) -> BaseModules:
    return replace(wrap(model).base, dialect=CHATGLM)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = {"r": 4, "target_modules": ["query_key_value", "dense", "dense_4h_to_h"]}
    base = Reference("chatglm2", TENSORS)
    return save_adapter(tmp_path_factory.mktemp("adapter"), base=base, **config)


def swapped(one: str, other: str) -> Change:
    return lambda found: found.update({one: found[other], other: found[one]})


def changes(names: list[str]) -> st.SearchStrategy[Change]:
    """Return changes of tensors with these names that must be noticed."""
    name = st.sampled_from(names)
    return st.one_of(
        st.builds(swapped, name, name),
        name.map(lambda lost: lambda found: found.pop(lost)),
        name.map(lambda one: lambda found: found.update({f"{one}.more": found[one]})),
        name.map(lambda one: lambda found: found.update({one.replace(".0.", ".7."): found[one]})),
        name.map(lambda one: lambda found: found.update({one: found[one].repeat(2, 1)})),
    )


WEIGHTS = [name for name in TENSORS if name not in CHATGLM.ignored]


@given(changes(WEIGHTS))
def test_weights_that_are_swapped_missing_or_unknown_are_refused(
    shapes: dict[str, torch.Size], change: Change
) -> None:
    found = dict(TENSORS)
    change(found)
    if {n: t.shape for n, t in found.items()} == {n: t.shape for n, t in TENSORS.items()}:
        return  # swapped with one of the same shape, which no reader can tell
    with pytest.raises(ValueError, match=r"the tensor .* (belongs to|has the shape)|lack "):
        translated(CHATGLM, found, shapes)


def test_weights_are_cut_by_rows_and_each_row_is_served_once(shapes: dict[str, torch.Size]) -> None:
    served = {name: rows[...] for name, rows in translated(CHATGLM, TENSORS, shapes).items()}
    assert {name: tensor.shape for name, tensor in served.items()} == shapes
    parts = [served[f"model.layers.0.self_attn.{part}_proj.weight"] for part in "qkv"]
    assert torch.equal(torch.cat(parts), TENSORS[f"{QKV}.weight"])


def test_a_tensor_in_two_files_is_refused_by_name(
    tmp_path: Path, shapes: dict[str, torch.Size]
) -> None:
    save_file(TENSORS, tmp_path / "model-1.safetensors")
    save_file({f"{QKV}.bias": TENSORS[f"{QKV}.bias"]}, tmp_path / "model-2.safetensors")
    with pytest.raises(ModelRejected, match=rf"--model x: .*{QKV}\.bias is in two files"):
        served_weights("x", tmp_path, CHATGLM, shapes)


def test_a_pickle_with_anything_but_tensors_is_refused(
    tmp_path: Path, shapes: dict[str, torch.Size]
) -> None:
    for content in ({"a": Path("/")}, [1], {"a": 1}):
        torch.save(content, tmp_path / "pytorch_model.bin")
        with pytest.raises(ModelRejected, match=r"can't be read|doesn't hold tensors"):
            served_weights("x", tmp_path, CHATGLM, shapes)
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x02}q\x00.")
    with pytest.raises(ModelRejected, match=r"isn't a file of torch 1\.6"):
        served_weights("x", tmp_path, CHATGLM, shapes)


def test_a_term_on_joined_modules_shares_a_and_cuts_b_by_rows(
    base: BaseModules, folder: Path
) -> None:
    stored = load_file(folder / "adapter_model.safetensors")
    modules = read_adapter(base, folder).modules
    parts = [modules[f"model.layers.0.self_attn.{part}_proj"] for part in "qkv"]
    a, b = (stored[f"base_model.model.{QKV}.lora_{matrix}.weight"] for matrix in "AB")
    assert all(torch.equal(part.a, a) for part in parts)
    assert torch.equal(torch.cat([part.b for part in parts]), b * parts[0].scaling)
    report = report_headers(AdapterFiles(folder), base)
    assert (len(report.matched), report.unmatched) == (len(stored), ())


def test_an_adapter_with_the_served_models_own_names_is_served_too(
    base: BaseModules, model: GlmForCausalLM, tmp_path: Path
) -> None:
    folder = save_adapter(tmp_path, base=GlmForCausalLM(model.config), target_modules=["k_proj"])
    assert len(read_adapter(base, folder).modules) == 2


ADAPTER = [
    f"base_model.model.transformer.encoder.layers.{layer}.{module}.lora_{matrix}.weight"
    for layer in (0, 1)
    for module in ("self_attention.query_key_value", "self_attention.dense", "mlp.dense_4h_to_h")
    for matrix in "AB"
]


SERVED = "base_model.model.model.layers.0.self_attn.q_proj.lora_A"


@given(
    st.one_of(
        changes(ADAPTER),
        st.sampled_from(ADAPTER).map(
            lambda one: lambda found: found.update({one.replace("weight", "d.weight"): found[one]})
        ),
        st.just(lambda found: found.update({f"{SERVED}.weight": found[ADAPTER[0]]})),
    )
)
def test_tensors_of_adapters_that_are_swapped_missing_unknown_or_doubled_are_refused(
    base: BaseModules, folder: Path, tmp_path_factory: pytest.TempPathFactory, change: Change
) -> None:
    made = tmp_path_factory.mktemp("changed")
    tensors = load_file(folder / "adapter_model.safetensors")
    before = {name: tensor.shape for name, tensor in tensors.items()}
    change(tensors)
    if {name: tensor.shape for name, tensor in tensors.items()} == before:
        return
    save_file({n: t.clone() for n, t in tensors.items()}, made / "adapter_model.safetensors")
    (made / "adapter_config.json").write_text((folder / "adapter_config.json").read_text())
    with pytest.raises(AdapterRejected, match=r"tensors? .* (is missing|belongs|has|are for)"):
        read_adapter(base, made)
