"""Weights go straight to the device, and a model without all of its weights is refused."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import save_tiny_model, tiny_model
from torch import nn

from shared.errors import ModelRejected
from worker.model.loader import load_model, prepare_model

WEIGHTS = "model.safetensors"


def test_the_whole_model_is_never_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def copy(*_: object) -> None:
        raise AssertionError("the model is copied after it was loaded")

    save_tiny_model(tmp_path)
    monkeypatch.setattr(nn.Module, "_apply", copy)
    assert load_model(str(tmp_path), dtype="bfloat16", device="cpu").dtype == torch.bfloat16


def test_missing_weights_are_named(tmp_path: Path) -> None:
    weights = load_file(save_tiny_model(tmp_path) / WEIGHTS)
    kept = {name: weight for name, weight in weights.items() if ".layers.1." not in name}
    save_file(kept, tmp_path / WEIGHTS, metadata={"format": "pt"})
    message = r"lack the weights model\.layers\.1\.input_layernorm\.weight, .* and 6 more; download"
    with pytest.raises(ModelRejected, match=message):
        load_model(str(tmp_path), dtype="float32")


def test_a_weight_of_another_shape_is_named(tmp_path: Path) -> None:
    weights = load_file(save_tiny_model(tmp_path) / WEIGHTS)
    name = "model.layers.0.mlp.up_proj.weight"
    weights[name] = weights[name].t().contiguous()
    save_file(weights, tmp_path / WEIGHTS, metadata={"format": "pt"})
    message = r"layers\.0\.mlp\.up_proj\.weight has the shape \[64, 96\], .* says \[96, 64\]"
    with pytest.raises(ModelRejected, match=message):
        load_model(str(tmp_path), dtype="float32")


def test_tied_weights_are_not_missing(tmp_path: Path) -> None:
    folder = save_tiny_model(tmp_path, tie_word_embeddings=True)
    assert "lm_head.weight" not in load_file(folder / WEIGHTS)
    loaded = load_model(str(folder), dtype="float32")
    assert loaded.model.lm_head.weight.shape == loaded.model.model.embed_tokens.weight.shape


def test_a_model_that_does_not_fit_on_the_device_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_memory(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 MiB.\nMore.")

    save_tiny_model(tmp_path)
    monkeypatch.setattr("transformers.PreTrainedModel.from_pretrained", no_memory)
    with pytest.raises(
        ModelRejected, match=r"doesn't fit into the memory of cpu .*20 MiB\.\); use"
    ):
        load_model(str(tmp_path), device="cpu")


def test_a_model_whose_forward_fails_is_refused_by_name() -> None:
    model = tiny_model()

    def fail(*_: object, **__: object) -> None:
        raise KeyError("pixel_values")

    model.model.layers[1].mlp.forward = fail
    message = (
        r"the native engine can't run LlamaForCausalLM \(KeyError: 'pixel_values'\); use --eng"
    )
    with pytest.raises(ModelRejected, match=message):
        prepare_model(model, None, name="tiny", digest="", source="tiny")


def test_a_window_that_a_layer_applies_by_its_mask_alone_is_refused() -> None:
    windows = {"use_sliding_window": True, "sliding_window": 64, "max_window_layers": 1}
    experts = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
    model = tiny_model("qwen2_moe", **windows, **experts)
    with pytest.raises(ModelRejected, match=r"layer 0 of Qwen2MoeFor.* its sliding window \(64\)"):
        prepare_model(model, None, name="tiny", digest="", source="tiny")
