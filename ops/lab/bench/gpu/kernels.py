"""Checks kernels against the reference kernels, and compares their speed with the bandwidth."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ops.lab.bench.gpu.clock import Clock
from ops.lab.bench.gpu.part import first_line
from ops.lab.bench.gpu.sizes import Sizes
from ops.lab.bench.gpu.trials import Attention, Heads, LoRA, StoreKV, Trial
from worker.kernels.interface import Kernels
from worker.kernels.reference import ReferenceKernels

TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 2e-2}
"""Largest allowed error of a result, divided by the largest value of the float32 result."""
GROUPS = ((8, 2), (8, 8), (8, 1))
"""Numbers of query heads and of key heads of each attention layer whose results are checked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Accuracy:
    """Errors of one kernel call against the reference kernels in float32."""

    trial: str
    max_error: float = 0.0
    """Largest absolute error."""
    relative_error: float = 0.0
    """`max_error` divided by the largest value of the float32 result."""
    torch_relative_error: float = 0.0
    """`relative_error` of the reference kernels in the measured dtype."""
    tolerance: float
    is_right: bool
    error: str | None = None
    """Error of the call, such as one of Triton's compiler. The other figures are then 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """Duration of one kernel call."""

    trial: str
    ms: float
    gb_per_s: float
    """Bytes that the call must read and write, divided by its duration."""
    bandwidth_share: float
    """`gb_per_s` divided by the measured memory bandwidth."""
    torch_ms: float
    """Duration of the reference kernels."""


def accuracies(
    kernels: Kernels,
    sizes: Sizes,
    dtype: torch.dtype,
    device: torch.device,
) -> Iterator[Accuracy]:
    """Compare `kernels` with the reference kernels on random inputs."""
    for trial in _trials_of_results(sizes, device):
        try:
            yield accuracy(trial, kernels, dtype)
        except Exception as error:  # noqa: BLE001  (Triton and its compilers raise any type)
            reason = first_line(error)
            tolerance = TOLERANCE[dtype]
            yield Accuracy(trial=trial.name, tolerance=tolerance, is_right=False, error=reason)


@torch.inference_mode()
def accuracy(trial: Trial, kernels: Kernels, dtype: torch.dtype) -> Accuracy:
    """Compare `kernels` with the reference kernels in one trial."""
    reference, tolerance = ReferenceKernels(), TOLERANCE[dtype]
    expected = trial.run(reference, trial.inputs(torch.float32))
    largest = float(expected.abs().max())
    error = _error(trial.run(kernels, trial.inputs(dtype)), expected)
    torch_error = _error(trial.run(reference, trial.inputs(dtype)), expected)
    return Accuracy(
        trial=trial.name,
        max_error=error,
        relative_error=error / largest,
        torch_relative_error=torch_error / largest,
        tolerance=tolerance,
        is_right=error <= tolerance * largest,  # False for NaN
    )


def speeds(
    kernels: Kernels,
    sizes: Sizes,
    dtype: torch.dtype,
    clock: Clock,
    bandwidth: float,
    device: torch.device,
) -> Iterator[Speed]:
    """Measure the duration of calls of `kernels` with the model's sizes."""
    for trial in _trials_of_speed(sizes, device):
        yield _speed(trial, kernels, dtype, clock, bandwidth)


@torch.inference_mode()
def _speed(
    trial: Trial, kernels: Kernels, dtype: torch.dtype, clock: Clock, bandwidth: float
) -> Speed:
    inputs, num_bytes = trial.inputs(dtype), trial.num_bytes * dtype.itemsize / 2
    ms = clock.ms(lambda: trial.run(kernels, inputs))
    rate = 1000 * num_bytes / ms
    return Speed(
        trial=trial.name,
        ms=ms,
        gb_per_s=rate / 1e9,
        bandwidth_share=rate / bandwidth,
        torch_ms=clock.ms(lambda: trial.run(ReferenceKernels(), inputs)),
    )


def _trials_of_results(sizes: Sizes, device: torch.device) -> Iterator[Trial]:
    """Yield the trials whose results are compared with those of the reference kernels.

    Trials with the shapes of served models come first. Each shape takes seconds to compile, so the
    time limit may end the comparison early.
    """
    context = sizes.context
    yield StoreKV("KV store", Heads(8, 2, sizes.head_dims[0]), context, device)
    for ranks in (sizes.ranks, *((rank,) * 3 for rank in sizes.ranks)):
        label = str(ranks[0]) if len(set(ranks)) == 1 else "mixed"
        for num_tokens in (len(ranks), context):
            name = f"LoRA, rank {label}, {num_tokens} tokens"
            yield _qkv(name, sizes, num_tokens, ranks, device)
    decode = [(context + 37 * n, 1) for n in range(4)]
    prefill = [(context + 5, context - 3), (90, 7), (300, 1)]
    for head_dim in sizes.head_dims:
        for num_heads, num_kv_heads in GROUPS:
            heads = Heads(num_heads, num_kv_heads, head_dim)
            shape = f"{num_heads} / {num_kv_heads} heads of {head_dim}"
            yield Attention(f"attention, decode, {shape}", heads, decode, device)
            yield Attention(f"attention, prefill, {shape}", heads, prefill, device)
    for name, sequences in (("decode", decode), ("prefill", prefill)):
        yield Attention(f"attention, {name}", sizes.heads, sequences, device, has_sinks=True)


def _trials_of_speed(sizes: Sizes, device: torch.device) -> Iterator[Trial]:
    heads, context = sizes.heads, sizes.context
    for batch in sorted({batch for batch, _ in sizes.decodes}):
        name = f"attention, decode of {batch} x {context}"
        for has_sinks in (False, True):
            yield Attention(name, heads, [(context, 1)] * batch, device, has_sinks=has_sinks)
    batch = sizes.max_sequences
    for adapters in sorted({n for _, n in sizes.decodes if n}):
        ranks = (sizes.rank,) * adapters
        name = f"decode of {batch}, {adapters} adapters"
        yield _qkv(f"LoRA qkv, {name}", sizes, batch, ranks, device)
        yield LoRA(
            f"LoRA down, {name}",
            num_in=sizes.intermediate,
            outs=(sizes.hidden,),
            num_tokens=batch,
            ranks=ranks,
            device=device,
        )
    for length in sizes.prefills[:2]:
        for has_sinks in (False, True):
            name, prompt = f"attention, prefill of {length}", [(length, length)]
            yield Attention(name, heads, prompt, device, has_sinks=has_sinks)
        yield _qkv(f"LoRA qkv, prefill of {length}", sizes, length, (sizes.rank,), device)
        yield StoreKV(f"KV store, {length} tokens", heads, length, device)


def _qkv(
    name: str, sizes: Sizes, num_tokens: int, ranks: Sequence[int], device: torch.device
) -> LoRA:
    return LoRA(
        name,
        num_in=sizes.hidden,
        outs=sizes.qkv,
        num_tokens=num_tokens,
        ranks=ranks,
        device=device,
    )


def _error(got: Tensor, expected: Tensor) -> float:
    return float((got.float() - expected).abs().max())
