"""Fused layers, and the fused stack of them, equal their modules bit for bit."""

from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from engines import engine_of, greedy_request, random_prompt, run
from kernel_sets import NATIVE_DTYPES, native_kernels
from slow_cases import slow_unless
from tiny import save_adapter, tiny_model

from worker.engine.request import RequestId
from worker.model.fused_layer import FusedLayer, FusedStack, LayerRun
from worker.model.loader import LoadedModel, prepare_model

LAYERS = {"llama": 2, "qwen2": 2, "qwen3": 0, "gemma2": 0, "mixtral": 0, "gpt_neox": 0}
LINEARS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
ADAPTERS: dict[str, dict[str, Any]] = {
    "all": {"r": 24, "target_modules": LINEARS},
    "some": {"r": 5, "target_modules": ["k_proj", "down_proj"], "layers_to_transform": [1]},
}


def loaded(model_type: str, dtype: torch.dtype) -> LoadedModel:
    model = tiny_model(model_type, initializer_range=0.02).to(dtype)
    kernels = native_kernels(dtype)
    return prepare_model(model, None, name="t", digest="0" * 64, source="t", kernels=kernels)


def fused_layers(of: LoadedModel) -> list[FusedLayer]:
    return [module for module in of.model.modules() if isinstance(module, FusedLayer)]


def saved(folder: Path, model_type: str, configs: dict[str, dict[str, Any]]) -> dict[str, Path]:
    """Save adapters with these configurations, and return their folders by name."""
    return {
        name: save_adapter(
            folder / name,
            base=tiny_model(model_type, initializer_range=0.02),  # PEFT changes it
            seed=seed,
            **config,
        )
        for seed, (name, config) in enumerate(configs.items())
    }


def answers(of: LoadedModel, folders: dict[str, Path]) -> dict[RequestId, list[int]]:
    """Run requests of the base and the adapters in one batch, in chunks of a few tokens."""
    engine, versions = engine_of(of, folders, budget=13)
    names = ["base", *folders]
    requests = [
        greedy_request(
            str(n), random_prompt(n, 3 + 9 * n), 12 - n, versions.get(names[n % len(names)])
        )
        for n in range(6)
    ]
    return run(engine, requests)


@pytest.mark.parametrize(
    ("model_type", "dtype"),
    slow_unless(
        lambda model_type, dtype: LAYERS[model_type] or dtype == torch.float32,
        product(LAYERS, NATIVE_DTYPES),
    ),
    ids=str,
)
def test_only_layers_of_the_known_kind_and_their_stack_are_fused(
    model_type: str, dtype: torch.dtype
) -> None:
    of = loaded(model_type, dtype)
    can_fuse = native_kernels(dtype).can_pack(torch.empty(16, 16, dtype=dtype))
    assert len(fused_layers(of)) == (LAYERS[model_type] if can_fuse else 0)
    num_stacks = sum(isinstance(module, FusedStack) for module in of.model.modules())
    assert num_stacks == (1 if LAYERS[model_type] and can_fuse else 0)


WITH_SIDE_WEIGHTS: dict[str, dict[str, Any]] = {
    "dora": {"r": 8, "target_modules": LINEARS, "use_dora": True},
    "norms": {"r": 8, "target_modules": LINEARS, "modules_to_save": ["norm"]},
}


@pytest.mark.parametrize("others", [{}, WITH_SIDE_WEIGHTS], ids=["plain", "with side weights"])
@pytest.mark.parametrize("model_type", ["llama", "qwen2"])
@pytest.mark.parametrize("dtype", NATIVE_DTYPES, ids=str)
def test_layers_in_one_call_equal_their_modules(
    dtype: torch.dtype,
    model_type: str,
    others: dict[str, dict[str, Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folders = saved(tmp_path, model_type, {**ADAPTERS, **others})
    of = loaded(model_type, dtype)
    fused_answers = answers(of, folders)

    monkeypatch.setattr(LayerRun, "has_side_weights", True)
    assert answers(of, folders) == fused_answers


@pytest.mark.parametrize("model_type", ["llama", "qwen2"])
@pytest.mark.parametrize("dtype", NATIVE_DTYPES, ids=str)
def test_a_fused_stack_equals_transformers_own(
    dtype: torch.dtype, model_type: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = saved(tmp_path, model_type, {**ADAPTERS, **WITH_SIDE_WEIGHTS})
    fused_answers = answers(loaded(model_type, dtype), folders)
    monkeypatch.setattr("worker.model.fuse.fused_stack", lambda *_: None)
    assert answers(loaded(model_type, dtype), folders) == fused_answers
