"""Triton kernels whose compilations are recorded. Torch computes their results."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction

from worker.kernels.interface import (
    AttentionBatch,
    AttentionParams,
    LayerCache,
    LoRAPlan,
    LoRASites,
)
from worker.kernels.reference import ReferenceKernels
from worker.kernels.triton.kernels import TritonKernels

Compilation = tuple[str, str]
"""Name of a kernel, and Triton's key of the variant."""


class Target:
    """Driver of a GPU for which kernels are compiled, but which doesn't exist."""

    def __init__(self, capability: int) -> None:
        self._capability = capability

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", self._capability, 32)


@contextmanager
def recorded_compilations(capability: int = 90) -> Iterator[set[Compilation]]:
    """Collect the variants that launches ask for, instead of compiling and launching them."""
    found: set[Compilation] = set()
    used: set[JITFunction[Any]] = set()

    def record(function: JITFunction[Any], key: str, *_: object) -> None:
        found.add((function.fn.__name__, key))
        used.add(function)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(driver, "_active", Target(capability))
        patch.setattr(JITFunction, "_do_compile", record)
        yield found
    for function in used:
        function.device_caches.clear()


class RecordedKernels(TritonKernels):
    """Launches the Triton kernels, whose results are missing, and computes them with torch."""

    def __init__(self) -> None:
        self._torch = ReferenceKernels()

    def store_kv(
        self, key: Tensor, value: Tensor, key_cache: Tensor, value_cache: Tensor, slots: Tensor
    ) -> None:
        super().store_kv(key, value, key_cache, value_cache, slots)
        self._torch.store_kv(key, value, key_cache, value_cache, slots)

    def paged_attention(
        self, query: Tensor, cache: LayerCache, batch: AttentionBatch, params: AttentionParams
    ) -> Tensor:
        super().paged_attention(query, cache, batch, params)
        return self._torch.paged_attention(query, cache, batch, params)

    def add_lora_(self, y: Tensor, x: Tensor, sites: LoRASites, plan: LoRAPlan) -> None:
        super().add_lora_(y, x, sites, plan)
        self._torch.add_lora_(y, x, sites, plan)
