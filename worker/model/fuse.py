"""Replaces modules of transformers with modules that use native operations.

Modules are found by their structure, not by the architecture's name. A module that looks like a
known kind is replaced if the replacement computes the same output for a recorded input. The
original may have steps that affect only other inputs, such as a clamp or a factor for late
positions. The comparison misses such steps. Attention modules and MLPs are therefore replaced only
if their code uses no names besides those of the known steps. The same rule applies to the model's
stack of layers. In addition, the stack's replacement must compute exactly the same bits.
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
from worker.model.fused_layer import FusedStack, fused_layer, fused_stack
from worker.model.kv_cache import KVShape
from worker.model.module_calls import Call
from worker.upstream.outputs import ModelOutput

# Largest allowed deviation from the original output, relative to the output's largest value.
_TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2e-2}
_QUANTISED = 5e-2
"""Largest allowed deviation between outputs if the linears quantise their inputs to int8."""

_ROTATE = "apply_rotary_pos_emb"
"""Name of the function in transformers that rotates queries and keys."""
_ATTENTION_NAMES = {"q_proj", "k_proj", "v_proj", "o_proj", "head_dim", "scaling", "layer_idx"}
_ATTENTION_NAMES |= {"shape", "view", "reshape", "transpose", "contiguous", "update", _ROTATE}
_ATTENTION_NAMES |= {"ALL_ATTENTION_FUNCTIONS", "get_interface", "eager_attention_forward"}
_ATTENTION_NAMES |= {"config", "_attn_implementation", "training", "attention_dropout", "getattr"}
_ATTENTION_NAMES |= {
    "sliding_window",
    "attn_logit_softcapping",
    "sinks",
}  # of the attention function
_GATED_MLP_NAMES = {"gate_proj", "up_proj", "down_proj", "act_fn"}
_LAYER_NAMES = {"input_layernorm", "self_attn", "post_attention_layernorm", "mlp"}
_STACK_PARTS = {"embed_tokens", "rotary_emb", "layers", "norm"}
_STACK_NAMES = _STACK_PARTS | {"num_hidden_layers", "layer_types", "BaseModelOutputWithPast"}
_STACK_NAMES |= {"create_causal_mask", "create_sliding_window_causal_mask"}  # both give None here
_STACK_NAMES |= {"has_sliding_layers", "sliding_window", "config"}
_STACK_NAMES |= {"isinstance", "dict", "enumerate"}
_STACK_NAMES |= {"DynamicCache", "get_seq_length", "ValueError"}  # without positions or a cache
_STACK_NAMES |= {"torch", "arange", "shape", "device", "unsqueeze"}


def fusible(model: nn.Module) -> list[str]:
    """Return the names of the modules that `fuse` can replace. It needs their recorded calls."""
    return [
        name
        for name, module in model.named_modules()
        if _is_rms_norm(module)
        or _is_gated_mlp(module)
        or _is_attention(module)
        or _is_layer(module)
        or (name and _is_stack(module))
    ]


@torch.inference_mode()
def fuse(
    model: nn.Module,
    kernels: NativeKernels,
    probe: LayerProbe,
    calls: Sequence[Call],
    *,
    is_quantised: bool = False,
) -> list[str]:
    """Replace modules of `model` with native ones where possible.

    The linears of `model` must already be served linears. Call this inside the attention step in
    which `calls` of the original modules were recorded. `probe` has the layers' attention
    parameters. Set `is_quantised` if linears now quantise their inputs, and didn't when `calls`
    were recorded.

    Returns:
        The names of the replaced modules.
    """
    calls_of: dict[str, list[Call]] = {}
    for call in calls:
        calls_of.setdefault(call.name, []).append(call)
    fused = []
    for name, its_calls in calls_of.items():
        original = model.get_submodule(name)
        for candidate in _candidates(original, kernels, probe, its_calls[0]):
            if all(_agrees(candidate, original, c, is_quantised=is_quantised) for c in its_calls):
                model.set_submodule(name, candidate)
                fused.append(name)
                break
    return fused


def _candidates(
    module: nn.Module, kernels: NativeKernels, probe: LayerProbe, call: Call
) -> Iterator[nn.Module]:
    if _is_attention(module):
        siblings = _joined_siblings(module, "q_proj", "k_proj", "v_proj")
        layer = int(module.layer_idx)  # type: ignore[arg-type]  # an int in every model
        shape = probe.shapes[layer]
        is_known = shape.key_dim == shape.value_dim and _rotates(kernels, module, call, shape)
        if siblings is not None and is_known:
            yield FusedAttention(module, kernels, siblings, probe.params[layer], shape.key_dim)
    elif _is_layer(module) or _is_stack(module):
        fuse_parts = fused_layer if _is_layer(module) else fused_stack
        fused = fuse_parts(module, kernels)
        yield from (fused,) if fused is not None else ()
    elif len(call.args) != 1 or call.kwargs:
        return  # the module computes more than its replacement
    elif _is_rms_norm(module):
        for offset, round_first in ((0.0, True), (0.0, False), (1.0, False)):
            params = NormParams(module.weight.data, _epsilon(module), offset, round_first)  # type: ignore[arg-type]
            yield FusedRMSNorm(module, kernels, params)
    elif _is_gated_mlp(module) and (siblings := _joined_siblings(module, "gate_proj", "up_proj")):
        yield FusedGatedMLP(module, kernels, siblings)


def _rotates(kernels: NativeKernels, module: nn.Module, call: Call, shape: KVShape) -> bool:
    """Return whether the module rotates heads in the same way as `NativeKernels.rope_`.

    This compares rotated heads, not the module's outputs, because the rotation barely affects the
    outputs if the module's weights are small.
    """
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
    return _is_near(heads, expected[0], _TOLERANCE[heads.dtype])


def _agrees(candidate: nn.Module, original: nn.Module, call: Call, *, is_quantised: bool) -> bool:
    got = _tensor(candidate(*call.args, **call.kwargs))
    if isinstance(candidate, FusedStack):  # the original calls the same fused layers
        return torch.equal(got, _tensor(original(*call.args, **call.kwargs)))
    expected = _tensor(call.output)
    rounds_inputs = is_quantised and not isinstance(candidate, FusedRMSNorm)
    return _is_near(got, expected, _QUANTISED if rounds_inputs else _TOLERANCE[expected.dtype])


def _is_near(got: Tensor, expected: Tensor, tolerance: float) -> bool:
    deviation = (got.float() - expected.float()).abs().max()
    return bool(deviation <= tolerance * expected.float().abs().max())


def _tensor(output: Any) -> Tensor:
    tensor: Tensor = output[0] if isinstance(output, tuple | ModelOutput) else output
    return tensor


def _joined_siblings(module: nn.Module, *names: str) -> Siblings | None:
    """Return the `Siblings` of those linears of the module that have these `names`.

    Return None if these linears aren't served linears, or if they have other siblings.
    """
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
    return has_silu and _names_in(module) == _GATED_MLP_NAMES


def _is_layer(module: nn.Module) -> bool:
    return _names_in(module) == _LAYER_NAMES


def _is_stack(module: nn.Module) -> bool:
    names = _names_in(module)
    return names >= _STACK_PARTS and names <= _STACK_NAMES


def _is_attention(module: nn.Module) -> bool:
    names = _names_in(module)
    has_parts = names.issuperset({"q_proj", "k_proj", "v_proj", "o_proj", "layer_idx", _ROTATE})
    return has_parts and names <= _ATTENTION_NAMES


def _names_in(module: nn.Module) -> set[str]:
    """Return the names of the globals and attributes that a module's `forward` uses."""
    code = getattr(inspect.unwrap(module.forward), "__code__", None)
    return set(code.co_names) if code is not None else set()
