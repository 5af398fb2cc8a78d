"""Modules are fused only where the native operations compute the same output."""

from itertools import product
from typing import Any

import pytest
import torch
from engines import load
from kernel_sets import native_kernels
from slow_cases import slow_unless
from tiny import tiny_model
from torch import nn
from transformers import PreTrainedModel

from shared.errors import ModelRejected
from worker.kernels.reference import ReferenceKernels
from worker.model.fuse import FusedAttention, FusedGatedMLP, FusedRMSNorm
from worker.model.loader import LoadedModel, prepare_model

DTYPES = [torch.float32, torch.bfloat16]


def small_model(
    model_type: str, dtype: torch.dtype = torch.float32, **overrides: Any
) -> PreTrainedModel:
    return tiny_model(model_type, **{"initializer_range": 0.02, **overrides}).to(dtype)


def load_native(model: PreTrainedModel) -> LoadedModel:
    """Prepare `model` with the native kernels."""
    kernels = native_kernels(model.dtype)
    return prepare_model(model, None, name="tiny", digest="0" * 64, source="tiny", kernels=kernels)


def count(model: nn.Module, cls: type) -> int:
    return sum(isinstance(module, cls) for module in model.modules())


QKV, GATE_UP = ["q_proj", "k_proj", "v_proj"], ["gate_proj", "up_proj"]
FOUND = {
    "llama": ([QKV, GATE_UP], (2, 2, 5)),
    "qwen2": ([QKV, GATE_UP], (2, 2, 5)),  # with biases on q, k and v only
    "qwen3": ([QKV, GATE_UP], (0, 2, 9)),  # norms between projection and rotation
    "gemma2": ([QKV, GATE_UP], (2, 0, 9)),  # GELU
    "mixtral": ([QKV], (2, 0, 5)),  # its experts aren't linears
    "phi3": ([], (0, 0, 5)),  # its linears are joined already
    "gpt2": ([], (0, 0, 0)),
    "gpt_neox": ([], (0, 0, 0)),
    "opt": ([QKV], (0, 0, 0)),
}


@pytest.mark.parametrize(
    ("model_type", "dtype"),
    slow_unless(
        lambda model_type, dtype: model_type == "llama" or dtype == torch.float32,
        product(FOUND, DTYPES),
    ),
    ids=str,
)
def test_siblings_and_fusible_modules_are_found(model_type: str, dtype: torch.dtype) -> None:
    groups, counts = FOUND[model_type]
    loaded = load_native(small_model(model_type, dtype))
    joined = [[n.rpartition(".")[2] for n in s.names] for s in loaded.siblings if len(s.names) > 1]
    assert joined == groups * 2
    fused = (FusedAttention, FusedGatedMLP, FusedRMSNorm)
    assert tuple(count(loaded.model, cls) for cls in fused) == counts


def test_gemmas_norm_adds_one_to_its_weight() -> None:
    model = small_model("gemma2")
    for name, parameter in model.named_parameters():
        if "norm" in name:
            parameter.data.normal_(std=0.5)
    loaded = load_native(model)
    norms = [m for m in loaded.model.modules() if isinstance(m, FusedRMSNorm)]
    assert len(norms) == 9
    assert {norm.params.offset for norm in norms} == {1.0}


NOT_FUSED: dict[str, dict[str, Any]] = {
    "cohere": {},  # rotates adjacent pairs, not halves
    "helium": {"head_dim": 16},  # the same
    "glm4": {"head_dim": 16},  # rotates a part of each head
    "stablelm": {},  # the same
    "ministral3": {},  # scales queries at late positions
    "olmo": {"clip_qkv": 8.0},  # clamps
}


@pytest.mark.parametrize(
    ("model_type", "dtype"),
    slow_unless(
        lambda model_type, dtype: model_type == "glm4" or dtype == torch.float32,
        product(NOT_FUSED, DTYPES),
    ),
    ids=str,
)
@pytest.mark.filterwarnings("ignore")
def test_attention_of_another_kind_is_not_fused(model_type: str, dtype: torch.dtype) -> None:
    loaded = load_native(small_model(model_type, dtype, **NOT_FUSED[model_type]))
    assert count(loaded.model, FusedAttention) == 0


def test_modules_that_only_look_alike_are_not_fused() -> None:
    class OtherRMSNorm(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight, self.eps = nn.Parameter(torch.ones(64)), 1e-5

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.weight * x / (x.abs().mean(-1, keepdim=True) + self.eps)

    model = small_model("llama")
    model.set_submodule("model.layers.1.input_layernorm", OtherRMSNorm())
    mlp: Any = model.get_submodule("model.layers.0.mlp")
    mlp.forward = lambda x: mlp.down_proj(mlp.act_fn(mlp.up_proj(x)) * mlp.gate_proj(x))
    clamped: Any = model.get_submodule("model.layers.1.mlp")
    clamped.forward = lambda x: clamped.down_proj(
        clamped.act_fn(clamped.gate_proj(x)).clamp(max=7.0) * clamped.up_proj(x)
    )
    loaded = load_native(model)
    assert count(loaded.model, FusedGatedMLP) == 0
    assert count(loaded.model, FusedRMSNorm) == 4


def test_other_kernels_fuse_nothing() -> None:
    loaded = prepare_model(
        small_model("llama"), None, name="t", digest="", source="t", kernels=ReferenceKernels()
    )
    assert count(loaded.model, FusedRMSNorm) == 0


@pytest.mark.parametrize("times", [0, 2])
def test_a_model_that_does_not_call_each_linear_once_is_refused(times: int) -> None:
    model = tiny_model("llama")
    mlp: Any = model.get_submodule("model.layers.1.mlp")

    def forward(x: torch.Tensor) -> torch.Tensor:
        gate = torch.nn.functional.linear(x, mlp.gate_proj.weight)
        for _ in range(times):
            gate = mlp.gate_proj(x)
        return mlp.down_proj(mlp.act_fn(gate) * mlp.up_proj(x))  # type: ignore[no-any-return]

    mlp.forward = forward
    with pytest.raises(
        ModelRejected, match=r"once per pass, so adapters on model\.layers\.1\.mlp\.gate_proj would"
    ):
        load(model)
