"""Counts the device operations of a decode step: kernels, copy operations, synchronisations."""

import warnings
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from ops.lab.bench.gpu.clock import Clock
from ops.lab.bench.gpu.decoding import Decoding
from ops.lab.bench.gpu.model import ServedModel
from ops.lab.bench.gpu.part import NotMeasured
from ops.lab.bench.gpu.steps import WARM_UP_RUNS

NUM_LISTED = 12
"""Number of kernels that `kernel_times` lists, beginning with the one that takes longest."""
COPIES = ("Memcpy", "Memset")
"""First words of the names that the profiler gives to operations that copy or set memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Launches:
    """Numbers of device operations of one greedy decode step."""

    batch: int
    adapters: int
    kernels: int
    copies_to_device: int
    copies_to_host: int
    other_copies: int
    """Number of operations that copy memory within the device or set it."""
    syncs: int
    """Number of times that the host waits for the device."""
    busy_ms: float
    """Milliseconds in which the device runs kernels or copies memory. Otherwise, it is idle."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelTime:
    """Number of launches and total time of one kernel, in a decode step of the largest batch."""

    kernel: str
    launches: int
    ms: float


def launches(model: ServedModel, clock: Clock) -> Iterator[Launches]:
    """Count the launches and synchronisations of decode steps.

    Raises:
        NotMeasured: the device isn't a GPU.
    """
    _check(clock)
    for batch, adapters in reversed(model.sizes.decodes):
        with model.decoding(batch, adapters) as decoding:
            events = _events(decoding)
            yield launches_of(batch, adapters, events, _num_syncs(decoding))


def kernel_times(model: ServedModel, clock: Clock) -> Iterator[KernelTime]:
    """List the kernels of a decode step of the largest batch, the longest first.

    Raises:
        NotMeasured: the device isn't a GPU.
    """
    _check(clock)
    with model.decoding(*model.sizes.decodes[-1]) as decoding:
        events = _events(decoding)
    by_name: dict[str, list[float]] = defaultdict(list)
    for event in events:
        by_name[event.name].append(_ms(event))
    longest = sorted(by_name.items(), key=lambda item: -sum(item[1]))
    for name, durations in longest[:NUM_LISTED]:
        yield KernelTime(kernel=name[:80], launches=len(durations), ms=sum(durations))


def _check(clock: Clock) -> None:
    if not clock.is_cuda:
        raise NotMeasured("launches are counted on a GPU; `operations` counts them on a CPU")


def launches_of(batch: int, adapters: int, events: Sequence[Any], num_syncs: int) -> Launches:
    """Count the events of one step by kind."""
    names = [event.name for event in events]
    to_device = sum("HtoD" in name for name in names)
    to_host = sum("DtoH" in name for name in names)
    copies = sum(name.startswith(COPIES) for name in names)
    return Launches(
        batch=batch,
        adapters=adapters,
        kernels=len(names) - copies,
        copies_to_device=to_device,
        copies_to_host=to_host,
        other_copies=copies - to_device - to_host,
        syncs=num_syncs,
        busy_ms=sum(map(_ms, events)),
    )


def _events(decoding: Decoding) -> list[Any]:
    """Return the profiler's events of one step on the device."""
    for _ in range(WARM_UP_RUNS):
        decoding.step()
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
        decoding.step()
        torch.cuda.synchronize()
    return [event for event in profiler.events() if event.device_type.name == "CUDA"]


def _num_syncs(decoding: Decoding) -> int:
    """Return how often the host waits for the device in one step."""
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            decoding.step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return sum("synchronizing CUDA operation" in str(warning.message) for warning in caught)


def _ms(event: Any) -> float:
    return float(event.time_range.elapsed_us()) / 1000
