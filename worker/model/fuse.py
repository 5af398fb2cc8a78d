"""Puts native operations in the place of what transformers computes in many small ones.

Which modules a model has isn't taken from its name: whatever looks like a known one is replaced
only if the replacement gives what the original gave for the same input. What acts on other inputs
alone, like a clamp or a factor at late positions, no output shows: attention and MLPs are replaced
only if their code mentions nothing else than the steps that the replacement has.
"""

import inspect
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from worker.kernels.cpu.layer import NormParams
from worker.kernels.cpu.native import NativeKernels
from worker.lora.layers import ServedLinear, Siblings
from worker.model.attention import LayerProbe
from worker.model.fused import FusedAttention, FusedGatedMLP, FusedRMSNorm
from worker.model.fused_layer import fused_layer
from worker.model.kv_cache import KVShape
from worker.model.trace import Call

# Deviation from the original's output, relative to its largest value.
_TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2e-2}

_ROTATE = "apply_rotary_pos_emb"
"""What transformers calls the function that rotates queries and keys."""
_OF_ATTENTION = {"q_proj", "k_proj", "v_proj", "o_proj", "head_dim", "scaling", "layer_idx"}
_OF_ATTENTION |= {"shape", "view", "reshape", "transpose", "contiguous", "update", _ROTATE}
_OF_ATTENTION |= {"ALL_ATTENTION_FUNCTIONS", "get_interface", "eager_attention_forward"}
_OF_ATTENTION |= {"config", "_attn_implementation", "training", "attention_dropout", "getattr"}
_OF_ATTENTION |= {"sliding_window", "attn_logit_softcapping"}  # arguments of the attention function
_OF_GATED_MLP = {"gate_proj", "up_proj", "down_proj", "act_fn"}
_OF_LAYER = {"input_layernorm", "self_attn", "post_attention_layernorm", "mlp"}


def fusible(model: nn.Module) -> list[str]:
    """The modules whose calls `fuse` wants to see."""
    return [
        name
        for name, module in model.named_modules()
        if _is_rms_norm(module)
        or _is_gated_mlp(module)
        or _is_attention(module)
        or _is_layer(module)
    ]


@torch.inference_mode()
def fuse(
    model: nn.Module, kernels: NativeKernels, probe: LayerProbe, calls: Sequence[Call]
) -> list[str]:
    """Replace what can be replaced; the names of it.

    Args:
        model: its linears are served already.
        kernels: what computes the replacements.
        probe: what its layers ask of attention.
        calls: of the original modules; run inside the attention step that they were recorded in.
    """
    fused = []
    for call in calls:
        original = model.get_submodule(call.name)
        for candidate in _candidates(original, kernels, probe, call):
            if _agrees(candidate, call):
                model.set_submodule(call.name, candidate)
                fused.append(call.name)
                break
    return fused


def _candidates(
    module: nn.Module, kernels: NativeKernels, probe: LayerProbe, call: Call
) -> Iterator[nn.Module]:
    if _is_attention(module):
        siblings = _common(module, "q_proj", "k_proj", "v_proj")
        layer = int(module.layer_idx)  # type: ignore[arg-type]  # an int in every model
        shape = probe.shapes[layer]
        is_known = shape.key_dim == shape.value_dim and _rotates(kernels, module, call, shape)
        if siblings is not None and is_known:
            yield FusedAttention(module, kernels, siblings, probe.params[layer], shape.key_dim)
    elif _is_layer(module):
        if (fused := fused_layer(module, kernels)) is not None:
            yield fused
    elif len(call.args) != 1 or call.kwargs:
        return  # it computes something else besides
    elif _is_rms_norm(module):
        for offset, round_first in ((0.0, True), (0.0, False), (1.0, False)):
            params = NormParams(module.weight.data, _epsilon(module), offset, round_first)  # type: ignore[arg-type]
            yield FusedRMSNorm(module, kernels, params)
    elif _is_gated_mlp(module) and (siblings := _common(module, "gate_proj", "up_proj")):
        yield FusedGatedMLP(module, kernels, siblings)


def _rotates(kernels: NativeKernels, module: nn.Module, call: Call, shape: KVShape) -> bool:
    """Whether heads are rotated as by `rope_`: where weights are small, no output shows it."""
    embeddings = call.kwargs.get("position_embeddings")
    if not isinstance(embeddings, tuple):
        return False
    cosine, sine = embeddings
    expected_shape = (1, cosine.shape[1], shape.key_dim)
    if cosine.shape != expected_shape or cosine.dtype != _tensor(call.output).dtype:
        return False
    heads = torch.randn(expected_shape, generator=torch.Generator().manual_seed(0)).to(cosine.dtype)
    rotate = inspect.unwrap(module.forward).__globals__[_ROTATE]
    expected, _ = rotate(heads[None], heads[None], cosine, sine)
    kernels.rope_(heads[0].unsqueeze(1), cosine[0], sine[0])
    return _is_near(heads, expected[0])


def _agrees(candidate: nn.Module, call: Call) -> bool:
    return _is_near(_tensor(candidate(*call.args, **call.kwargs)), _tensor(call.output))


def _is_near(got: Tensor, expected: Tensor) -> bool:
    deviation = (got.float() - expected.float()).abs().max()
    return bool(deviation <= _TOLERANCE[expected.dtype] * expected.float().abs().max())


def _tensor(output: Any) -> Tensor:
    tensor: Tensor = output[0] if isinstance(output, tuple) else output
    return tensor


def _common(module: nn.Module, *names: str) -> Siblings | None:
    """The siblings that consist of exactly these linears of the module."""
    linears = [getattr(module, name) for name in names]
    if not all(isinstance(linear, ServedLinear) for linear in linears):
        return None
    siblings: Siblings = linears[0].siblings
    wanted = [name.rpartition(".")[2] for name in siblings.names]
    return siblings if wanted == list(names) else None


def _is_rms_norm(module: nn.Module) -> bool:
    weight = getattr(module, "weight", None)
    is_vector = isinstance(weight, Tensor) and weight.dim() == 1
    return type(module).__name__.endswith("RMSNorm") and is_vector and _epsilon(module) > 0


def _epsilon(module: Any) -> float:
    return float(getattr(module, "variance_epsilon", None) or getattr(module, "eps", None) or 0.0)


def _is_gated_mlp(module: nn.Module) -> bool:
    has_silu = "SiLU" in type(getattr(module, "act_fn", None)).__name__
    return has_silu and _names_in(module) == _OF_GATED_MLP


def _is_layer(module: nn.Module) -> bool:
    return _names_in(module) == _OF_LAYER


def _is_attention(module: nn.Module) -> bool:
    names = _names_in(module)
    has_parts = names.issuperset({"q_proj", "k_proj", "v_proj", "o_proj", "layer_idx", _ROTATE})
    return has_parts and names <= _OF_ATTENTION


def _names_in(module: nn.Module) -> set[str]:
    """What a module's forward mentions: functions, attributes, globals."""
    code = getattr(inspect.unwrap(module.forward), "__code__", None)
    return set(code.co_names) if code is not None else set()
