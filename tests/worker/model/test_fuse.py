"""Modules, layers and stacks are fused where native operations compute the same bits."""

from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from engines import engine_of, greedy_request, load, random_prompt, run
from kernel_sets import NATIVE_DTYPES, linear_kernels, native_kernels
from slow_cases import slow_unless
from targets import targeting
from tiny import save_adapter, tiny_model
from torch import nn
from transformers import PreTrainedModel

from shared.errors import AdapterRejected, ModelRejected
from worker.engine.request import RequestId
from worker.kernels.interface import AttentionBatch
from worker.kernels.reference import ReferenceKernels
from worker.model.attention import AttentionStep, attention_step
from worker.model.fuse import FusedAttention, FusedGatedMLP, FusedRMSNorm
from worker.model.fused_layer import FusedLayer, FusedStack, LayerRun, fused_layer
from worker.model.kv_cache import KVCache
from worker.model.loader import LoadedModel


def small_model(
    model_type: str, dtype: torch.dtype = torch.float32, **overrides: Any
) -> PreTrainedModel:
    return tiny_model(model_type, **{"initializer_range": 0.02, **overrides}).to(dtype)


def load_native(model: PreTrainedModel) -> LoadedModel:
    """Prepare `model` with the native kernels."""
    return load(model, kernels=native_kernels(model.dtype))


def count(model: nn.Module, cls: type) -> int:
    return sum(isinstance(module, cls) for module in model.modules())


QKV, GATE_UP = ["q_proj", "k_proj", "v_proj"], ["gate_proj", "up_proj"]
FOUND = {
    "llama": ([QKV, GATE_UP], (2, 2, 5), 2),
    "qwen2": ([QKV, GATE_UP], (2, 2, 5), 2),  # with biases on q, k and v only
    "qwen3": ([QKV, GATE_UP], (0, 2, 9), 0),  # norms between projection and rotation
    "gemma2": ([QKV, GATE_UP], (2, 0, 9), 0),  # GELU
    "granite_swa": ([QKV, GATE_UP], (2, 2, 5), 0),  # sinks; scaled residual connections
    "mixtral": ([QKV], (2, 0, 5), 0),  # its experts aren't linears
    "phi3": ([], (0, 0, 5), 0),  # its linears are joined already
    "gpt2": ([], (0, 0, 0), 0),
    "gpt_neox": ([], (0, 0, 0), 0),
    "opt": ([QKV], (0, 0, 0), 0),
}
"""Joined linears of each layer, numbers of fused modules, and number of fused layers."""


@pytest.mark.parametrize(
    ("model_type", "dtype"),
    slow_unless(
        lambda model_type, dtype: model_type in ("llama", "qwen2") or dtype == torch.float32,
        product(FOUND, NATIVE_DTYPES),
    ),
    ids=str,
)
def test_siblings_fusible_modules_and_layers_are_found(model_type: str, dtype: torch.dtype) -> None:
    groups, counts, num_layers = FOUND[model_type]
    loaded = load_native(small_model(model_type, dtype))
    joined = [[n.rpartition(".")[2] for n in s.names] for s in loaded.siblings if len(s.names) > 1]
    assert joined == groups * 2
    fused = (FusedAttention, FusedGatedMLP, FusedRMSNorm)
    assert tuple(count(loaded.model, cls) for cls in fused) == counts
    if not native_kernels(dtype).can_pack(torch.empty(16, 16, dtype=dtype)):
        num_layers = 0
    assert count(loaded.model, FusedLayer) == num_layers
    assert count(loaded.model, FusedStack) == bool(num_layers)
    norms = [m for m in loaded.model.modules() if isinstance(m, FusedRMSNorm)]
    assert {norm.params.offset for norm in norms} <= {1.0 if model_type == "gemma2" else 0.0}


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
        product(NOT_FUSED, NATIVE_DTYPES),
    ),
    ids=str,
)
@pytest.mark.filterwarnings("ignore")
def test_attention_of_another_kind_is_not_fused(model_type: str, dtype: torch.dtype) -> None:
    loaded = load_native(small_model(model_type, dtype, **NOT_FUSED[model_type]))
    assert count(loaded.model, FusedAttention) == 0


def test_modules_that_only_look_alike_and_those_of_other_kernels_are_not_fused() -> None:
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
    other_kernels = load(small_model("llama"), kernels=ReferenceKernels())
    assert count(other_kernels.model, FusedRMSNorm) == 0


@torch.inference_mode()
@pytest.mark.parametrize("dtype", NATIVE_DTYPES, ids=str)
def test_a_fused_layer_computes_sinks_and_chunks_as_its_modules_do(dtype: torch.dtype) -> None:
    kernels = linear_kernels(dtype)
    loaded = load_native(tiny_model("llama").to(dtype))
    stack: Any = loaded.model.get_submodule("model")
    plain = stack.layers[0]
    params = plain.self_attn.params
    plain.self_attn.params = replace(params, chunk_size=4, sinks=torch.arange(4).to(dtype))
    limited = fused_layer(plain, kernels)
    assert limited is not None
    positions = torch.arange(13)
    batch = AttentionBatch(
        slots=positions,
        query_starts=torch.tensor([0, 13], dtype=torch.int32),
        context_lens=torch.tensor([13], dtype=torch.int32),
        block_tables=torch.zeros(1, 1, dtype=torch.int32),
    )
    cache = KVCache(loaded.cache.kv, 1, dtype=dtype, device=loaded.device)
    x = torch.randn(1, 13, 64, generator=torch.Generator().manual_seed(0)).to(dtype)
    given = {"position_embeddings": stack.rotary_emb(x, position_ids=positions[None])}
    with attention_step(AttentionStep(kernels, cache, batch)):
        expected = plain.forward_by_modules(x, attention_mask=None, **given)
        assert torch.equal(limited(x, **given), expected)
        assert not torch.equal(plain(x, **given), expected)


def test_a_model_that_does_not_call_each_linear_is_refused() -> None:
    model = tiny_model("llama", num_hidden_layers=5)
    for layer in model.model.layers[1:]:
        mlp = layer.mlp

        def forward(x: torch.Tensor, mlp: Any = mlp) -> torch.Tensor:
            gate = torch.nn.functional.linear(x, mlp.gate_proj.weight)
            return mlp.down_proj(mlp.act_fn(gate) * mlp.up_proj(x))  # type: ignore[no-any-return]

        mlp.forward = forward
    with pytest.raises(ModelRejected) as error:
        load(model, quantize="int8")
    assert str(error.value) == (
        "--model tiny: LlamaForCausalLM doesn't call each of its linears, so "
        "model.layers.1.mlp.gate_proj, model.layers.2.mlp.gate_proj, model.layers.3.mlp.gate_proj "
        "and 1 more can't be quantised; leave --quantize out, or try --engine vllm"
    )


def test_a_linear_that_is_called_several_times_needs_all_rows_in_each_call() -> None:
    model = tiny_model("llama")
    first, second = (layer.mlp for layer in model.model.layers)
    first.forward = lambda x: first.down_proj(first.gate_proj(x) + first.gate_proj(-2 * x).relu())
    first.up_proj = torch.nn.Identity()
    second.forward = lambda x: second.down_proj(
        torch.cat([second.gate_proj(x[:, :1]), second.gate_proj(x[:, 1:])], 1) * second.up_proj(x)
    )
    base = load(model).base
    assert "model.layers.0.mlp.gate_proj" in base.linears
    assert base.others["model.layers.1.mlp.gate_proj"] == "not called with a row for each token"


LINEARS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
ADAPTERS: dict[str, dict[str, Any]] = {
    "all": {"r": 24, "target_modules": LINEARS},
    "some": {"r": 5, "target_modules": ["k_proj", "down_proj"], "layers_to_transform": [1]},
}
WITH_SIDE_WEIGHTS: dict[str, dict[str, Any]] = {
    "dora": {"r": 8, "target_modules": LINEARS, "use_dora": True},
    "norms": {"r": 8, "target_modules": LINEARS, "modules_to_save": ["norm"]},
}


@pytest.mark.parametrize("others", [{}, WITH_SIDE_WEIGHTS], ids=["plain", "with side weights"])
@pytest.mark.parametrize("model_type", ["llama", "qwen2"])
@pytest.mark.parametrize("dtype", NATIVE_DTYPES, ids=str)
def test_layers_in_one_call_equal_their_modules_and_those_of_transformers(
    dtype: torch.dtype,
    model_type: str,
    others: dict[str, dict[str, Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folders = {
        name: save_adapter(tmp_path / name, base=small_model(model_type), seed=seed, **config)
        for seed, (name, config) in enumerate({**ADAPTERS, **others}.items())
    }

    def answers(of: LoadedModel) -> dict[RequestId, list[int]]:
        """Run requests of the base and the adapters in one batch, in chunks of a few tokens."""
        engine, versions = engine_of(of, folders, budget=13)
        names = [("base", *folders)[n % (len(folders) + 1)] for n in range(6)]
        requests = [
            greedy_request(str(n), random_prompt(n, 3 + 9 * n), 12 - n, versions.get(name))
            for n, name in enumerate(names)
        ]
        return run(engine, requests)

    fused = load_native(small_model(model_type, dtype))
    fused_answers = answers(fused)
    with monkeypatch.context() as patch:
        patch.setattr(LayerRun, "has_side_weights", True)
        assert answers(fused) == fused_answers
    monkeypatch.setattr("worker.model.fuse.fused_stack", lambda *_: None)
    assert answers(load_native(small_model(model_type, dtype))) == fused_answers


PHIMOE = {"num_local_experts": 4, "num_experts_per_tok": 2}


def test_adapters_cannot_change_modules_after_the_rows_are_selected() -> None:
    base = load(tiny_model("modernbert-decoder", sliding_window=8)).base
    assert base.head == "decoder"
    assert "lm_head.dense" not in base.linears
    assert "lm_head.norm" not in base.norms
    assert {"model.layers.0.attn.q_proj", "model.layers.1.mlp.Wo"} <= base.linears.keys()
    assert {"model.layers.1.attn_norm", "model.final_norm"} <= base.norms.keys()
    message = r"target_modules matches lm_head\.dense \(not called with a row for each token\)"
    with pytest.raises(AdapterRejected, match=message):
        base.targets(targeting(target_modules=["q_proj", "dense"]))


def test_a_linear_that_returns_several_tensors_cannot_be_changed() -> None:
    base = load(tiny_model("phimoe", **PHIMOE)).base
    assert {"model.layers.0.self_attn.q_proj", "lm_head"} <= base.linears.keys()
    assert base.targets(targeting(target_modules=["o_proj"])) == [
        "model.layers.0.self_attn.o_proj",
        "model.layers.1.self_attn.o_proj",
    ]
    message = r"target_modules matches model\.layers\.0\.mlp\.router \(doesn't return one tensor\)"
    with pytest.raises(AdapterRejected, match=message):
        base.targets(targeting(target_modules=["router"]))
