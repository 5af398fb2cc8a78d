"""Measures prefill, CUDA graphs and decode steps.

A decode step's duration is compared with the time that reading its bytes takes.
"""

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ops.lab.bench.gpu.clock import Clock
from ops.lab.bench.gpu.decoding import forward
from ops.lab.bench.gpu.model import ServedModel
from ops.lab.bench.gpu.part import NotMeasured, first_line
from worker.engine.scheduler import Chunk

WARM_UP_RUNS = 3
"""Number of runs before a measurement or a graph capture.

They trigger compilation and first allocations, which can't be captured.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodeStep:
    """Durations of a step that decodes one token for each of `batch` sequences."""

    batch: int
    adapters: int
    """Number of distinct adapters. 0 means that all sequences use the base model."""
    step_ms: float
    """Duration of a whole step: scheduler, model and sampler."""
    tokens_per_s: float
    floor_ms: float
    """Time to read weights, keys, values and adapters once: a lower bound for `step_ms`."""
    times_floor: float
    forward_ms: float
    """Duration of the model's forward pass alone."""
    host_ms: float
    """Time that the host takes to build the batch and to launch the forward pass.

    If the launches fill the device's queue, the time includes waiting until the queue has room.
    """
    weights_ms: float
    kv_ms: float
    lora_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphReplay:
    """Duration of the forward pass of a decode step, with and without a CUDA graph."""

    batch: int
    adapters: int
    eager_ms: float
    graph_ms: float | None
    """Duration with a CUDA graph; None if the graph can't be captured."""
    largest_difference: float | None
    """Largest difference of the logits with and without the graph, divided by the largest logit."""
    error: str | None
    """Reason why the graph can't be captured; None if it can."""


def decode_steps(model: ServedModel, clock: Clock, bandwidth: float) -> Iterator[DecodeStep]:
    """Measure decode steps for each combination of batch and adapters."""
    for batch, adapters in model.sizes.decodes:
        yield _decode_step(model, clock, bandwidth, batch, adapters)


def graph_replays(model: ServedModel, clock: Clock) -> Iterator[GraphReplay]:
    """Capture the forward pass of decode steps in CUDA graphs, and measure the graphs' replays.

    Raises:
        NotMeasured: the device isn't a GPU.
    """
    if not clock.is_cuda:
        raise NotMeasured("CUDA graphs need a GPU")
    for batch, adapters in reversed(model.sizes.decodes):
        yield _graph_replay(model, clock, batch, adapters)


def step_ms(model: ServedModel, clock: Clock, batch: int, adapters: int) -> float:
    """Return the median duration of a decode step in ms."""
    with model.decoding(batch, adapters) as decoding:
        durations = []
        for _ in range(WARM_UP_RUNS + model.sizes.steps):
            clock.wait()
            start = time.perf_counter()
            decoding.step()
            clock.wait()
            durations.append(1000 * (time.perf_counter() - start))
    return statistics.median(durations[WARM_UP_RUNS:])


def _decode_step(
    model: ServedModel, clock: Clock, bandwidth: float, batch: int, adapters: int
) -> DecodeStep:
    whole_ms = step_ms(model, clock, batch, adapters)
    with model.decoding(batch, adapters) as decoding:
        forward_ms = clock.ms(decoding.forward())
        host_ms = clock.host_ms(decoding.launch)
    weights_ms, kv_ms, lora_ms = model.floor_ms(batch, adapters, bandwidth)
    floor_ms = weights_ms + kv_ms + lora_ms
    return DecodeStep(
        batch=batch,
        adapters=adapters,
        step_ms=whole_ms,
        tokens_per_s=1000 * batch / whole_ms,
        floor_ms=floor_ms,
        times_floor=whole_ms / floor_ms,
        forward_ms=forward_ms,
        host_ms=host_ms,
        weights_ms=weights_ms,
        kv_ms=kv_ms,
        lora_ms=lora_ms,
    )


def _graph_replay(model: ServedModel, clock: Clock, batch: int, adapters: int) -> GraphReplay:
    with model.decoding(batch, adapters) as decoding:
        run = decoding.forward()
        expected = run().clone()
        eager_ms, graph_ms, difference, reason = clock.ms(run), None, None, None
        try:
            graph, logits = _captured(run)
            graph_ms = clock.ms(graph.replay)
            difference = float((logits - expected).abs().max() / expected.abs().max())
        except RuntimeError as error:  # raised by torch for operations that can't be captured
            reason = first_line(error)
    return GraphReplay(
        batch=batch,
        adapters=adapters,
        eager_ms=eager_ms,
        graph_ms=graph_ms,
        largest_difference=difference,
        error=reason,
    )


def _captured(run: Callable[[], Tensor]) -> tuple[torch.cuda.CUDAGraph, Tensor]:
    """Return the graph of `run`, and the tensor to which each replay writes the result."""
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(WARM_UP_RUNS):
            run()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = run()
    return graph, result


@dataclass(frozen=True, slots=True, kw_only=True)
class Prefill:
    """Duration of a step that computes one whole prompt with the base model."""

    tokens: int
    ms: float
    tokens_per_s: float


def prefills(model: ServedModel, clock: Clock) -> Iterator[Prefill]:
    """Measure the prefill of a prompt of each length."""
    for length in model.sizes.prefills:
        with model.prompt(length) as prompt:
            chunk = Chunk(prompt, 0, length, samples=True)
            ms = clock.ms(forward(model.runner, [chunk], model.device))
        yield Prefill(tokens=length, ms=ms, tokens_per_s=1000 * length / ms)
