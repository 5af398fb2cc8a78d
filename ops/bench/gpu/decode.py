"""Measures decode steps on a GPU in three ways: engine step, model alone, and CUDA graph."""

import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ops.bench.gpu.clock import Clock
from ops.bench.gpu.trials import Sizes
from ops.bench.probes.engine import EngineProbe
from shared.protocol.ids import AdapterVersion

WARM_UP_RUNS = 3
"""Number of warm-up runs before a graph capture.

The warm-up runs trigger compilation and first allocations, which can't be captured.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decode:
    """Durations of a step that decodes one token for each of `batch` sequences."""

    batch: int
    adapters: int
    """Number of distinct adapters. 0 means that all sequences use the base model."""
    step_ms: float
    """Duration of a whole engine step: scheduler, model and sampler."""
    forward_ms: float
    """Duration of the model's forward pass alone."""
    graph_ms: float | None
    """Duration of the forward pass replayed as a CUDA graph. None if there is no graph."""
    graph_error: str | None
    """Reason why there is no CUDA graph. None if there is a graph."""
    weights_ms: float
    """Time to read the weights of the base model's linear layers once."""
    kv_ms: float
    """Time to read the keys and values of all sequences once."""
    lora_ms: float
    """Time to read the weights of the batch's adapters once."""

    @property
    def floor_ms(self) -> float:
        """Time to read weights, keys, values and adapters once: a lower bound for `step_ms`."""
        return self.weights_ms + self.kv_ms + self.lora_ms

    def summary(self, base: "Decode") -> str:
        """Return one line with all figures.

        `base` is the result without adapters. The LoRA tax is the increase of `step_ms` relative
        to `base.step_ms`.
        """
        models = f"{self.adapters} adapters" if self.adapters else "base"
        tax = f", LoRA tax {100 * (self.step_ms / base.step_ms - 1):.0f} %" if self.adapters else ""
        graph = (
            f"no CUDA graph ({self.graph_error})"
            if self.graph_ms is None
            else f"{self.graph_ms:.2f} ms as a CUDA graph"
        )
        return (
            f"decode of {self.batch}, {models}: a step {self.step_ms:.2f} ms{tax}; the model "
            f"{self.forward_ms:.2f} ms, {graph}; floor {self.floor_ms:.2f} ms (weights "
            f"{self.weights_ms:.2f}, KV {self.kv_ms:.2f}, LoRA {self.lora_ms:.2f})"
        )


def measure_decode(
    probe: EngineProbe, sizes: Sizes, clock: Clock, bandwidth: float, steps: int
) -> Iterator[Decode]:
    """Yield the figures of the base model, then the figures for each number of adapters."""
    for number in (0, *sizes.adapters):
        used = probe.adapters[:number]
        versions: list[AdapterVersion | None] = [adapter.version for adapter in used] or [None]
        seconds = probe.decode_s(sizes.batch, sizes.context, versions, steps)
        forward, end = probe.decode_forward(sizes.batch, sizes.context, versions)
        forward_ms = clock.ms(forward)
        graph_ms, graph_error = _graph_ms(forward, clock)
        end()
        context = sizes.context + steps
        yield Decode(
            batch=sizes.batch,
            adapters=number,
            step_ms=1000 * statistics.median(seconds),
            forward_ms=forward_ms,
            graph_ms=graph_ms,
            graph_error=graph_error,
            weights_ms=1000 * probe.weight_bytes / bandwidth,
            kv_ms=1000 * sizes.batch * context * probe.kv_bytes_per_token / bandwidth,
            lora_ms=1000 * sum(a.num_bytes for a in used[: sizes.batch]) / bandwidth,
        )


def _graph_ms(forward: Callable[[], Tensor], clock: Clock) -> tuple[float | None, str | None]:
    """Return (milliseconds of a graph replay, None), or (None, reason) if there is no graph."""
    if not clock.is_cuda:
        return None, "not available on a CPU"
    try:
        return clock.ms(_captured(forward).replay), None
    except RuntimeError as error:  # raised by torch for operations that can't be captured
        return None, str(error).strip().splitlines()[0]


def _captured(forward: Callable[[], Tensor]) -> torch.cuda.CUDAGraph:
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(WARM_UP_RUNS):
            forward()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        forward()
    return graph
