"""Defines the parts of the `gpu` benchmark, their order and their time limits."""

import gc
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

import torch

from ops.lab.bench.gpu.clock import BUFFER_BYTES, Clock
from ops.lab.bench.gpu.kernels import Accuracy, Speed, accuracies, speeds
from ops.lab.bench.gpu.launches import KernelTime, Launches, kernel_times, launches
from ops.lab.bench.gpu.model import ServedModel
from ops.lab.bench.gpu.part import NotMeasured, Part
from ops.lab.bench.gpu.peers.peft_steps import BesidePeft, beside_peft
from ops.lab.bench.gpu.peers.vllm_steps import Vllm, vllm_steps
from ops.lab.bench.gpu.sampling import Sampling, samplings
from ops.lab.bench.gpu.sizes import Sizes
from ops.lab.bench.gpu.steps import (
    DecodeStep,
    GraphReplay,
    Prefill,
    decode_steps,
    graph_replays,
    prefills,
)
from worker.kernels.interface import Kernels
from worker.kernels.reference import ReferenceKernels

NO_TRITON = "Triton's kernels run on a GPU, or with TRITON_INTERPRET=1 on a CPU"


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """Measured memory bandwidth of the device. The other parts compare their figures with it."""

    gb_per_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """Facts about the model that the following parts measure."""

    kernels: str
    not_triton_because: str | None
    weights_gib: float
    """Size of the linears' weights, which each decode step reads."""
    adapters: int
    adapter_mib: float
    kv_bytes_per_token: int


class GpuBench:
    """Measures all parts on one device. The parts share a clock, kernels and a model."""

    def __init__(self, sizes: Sizes) -> None:
        self.sizes = sizes
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        is_cuda = self.device.type == "cuda"
        self._dtype = torch.bfloat16 if is_cuda else torch.float32
        self._clock = Clock(self.device) if is_cuda else Clock(self.device, repeats=1)
        self._model: ServedModel | None = None

    def parts(self) -> list[Part]:
        """Return all parts.

        The sum of their time limits exceeds the benchmark's limit, because most parts need less.

        Graphs come late, because a failed capture can disturb the parts that run after it.
        """
        return [
            Part("memory", "Memory bandwidth", 20, self._memory),
            Part("results", "Results against the reference kernels", 100, self._results),
            Part("kernels", "Kernels against their bytes", 60, self._speeds),
            Part("model", "Model with random weights", 90, self._load),
            Part("decode", "Decode steps", 90, self._decode),
            Part("launches", "Launches and synchronisations of a step", 40, self._launches),
            Part("step_kernels", "Kernels of the largest step", 20, self._kernel_times),
            Part("sampling", "Sampling", 30, self._sampling),
            Part("prefill", "Prefill", 30, self._prefill),
            Part("peft", "Decode steps beside PEFT", 60, self._peft),
            Part("graph", "CUDA graph of the model's part", 40, self._graph),
            Part("vllm", "vLLM, base model", 240, self._vllm),
        ]

    @cached_property
    def _bandwidth(self) -> float:
        """Memory bandwidth of the device when it reads, in bytes per second."""
        return self._clock.bandwidth(BUFFER_BYTES if self._clock.is_cuda else BUFFER_BYTES // 64)

    @cached_property
    def _kernels(self) -> tuple[Kernels, str | None]:
        """The kernels that the model uses, and the reason if they aren't Triton's."""
        if not self._has_triton:
            return ReferenceKernels(), NO_TRITON
        from worker.kernels.triton.check import NotUsable, usable_kernels

        try:
            return usable_kernels(self.device, self._dtype), None
        except NotUsable as error:
            return ReferenceKernels(), str(error)

    @property
    def _has_triton(self) -> bool:
        return self._clock.is_cuda or os.environ.get("TRITON_INTERPRET") == "1"

    @property
    def _loaded(self) -> ServedModel:
        """The model that the part "model" created.

        Raises:
            NotMeasured: the part "model" failed.
        """
        if self._model is None:
            raise NotMeasured("there is no model; its part has the reason")
        return self._model

    def _memory(self) -> Iterator[Memory]:
        yield Memory(gb_per_s=self._bandwidth / 1e9)

    def _results(self) -> Iterator[Accuracy]:
        return accuracies(self._triton(), self.sizes, self._dtype, self.device)

    def _speeds(self) -> Iterator[Speed]:
        return speeds(
            self._triton(), self.sizes, self._dtype, self._clock, self._bandwidth, self.device
        )

    def _triton(self) -> Kernels:
        """Return Triton's kernels, whether or not their results are right.

        Raises:
            NotMeasured: Triton's kernels can't run here.
        """
        if not self._has_triton:
            raise NotMeasured(NO_TRITON)
        from worker.kernels.triton.kernels import TritonKernels

        return TritonKernels()

    def _load(self) -> Iterator[Loaded]:
        kernels, reason = self._kernels
        self._model = model = ServedModel(self.sizes, kernels, self._dtype, self.device)
        yield Loaded(
            kernels=kernels.name,
            not_triton_because=reason,
            weights_gib=model.weight_bytes / 2**30,
            adapters=len(model.versions),
            adapter_mib=model.adapter_bytes / 2**20,
            kv_bytes_per_token=model.kv_bytes_per_token,
        )

    def _decode(self) -> Iterator[DecodeStep]:
        return decode_steps(self._loaded, self._clock, self._bandwidth)

    def _launches(self) -> Iterator[Launches]:
        return launches(self._loaded, self._clock)

    def _kernel_times(self) -> Iterator[KernelTime]:
        return kernel_times(self._loaded, self._clock)

    def _sampling(self) -> Iterator[Sampling]:
        return samplings(self.sizes, self._clock, self.device)

    def _prefill(self) -> Iterator[Prefill]:
        return prefills(self._loaded, self._clock)

    def _graph(self) -> Iterator[GraphReplay]:
        return graph_replays(self._loaded, self._clock)

    def _peft(self) -> Iterator[BesidePeft]:
        return beside_peft(self._loaded, self._dtype, self._clock)

    def _vllm(self) -> Iterable[Vllm]:
        self._model = None  # vLLM needs the memory
        gc.collect()
        if self._clock.is_cuda:
            torch.cuda.empty_cache()
        return vllm_steps(self.sizes, self._dtype)
