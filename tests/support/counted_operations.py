"""Counts what a device would be asked to do: operations, reads of results, and copies to it."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, Self

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakIdKeyDictionary

from worker.kernels.interface import (
    AttentionBatch,
    AttentionParams,
    Kernels,
    LayerCache,
    LoRAPlan,
    LoRASites,
)

_NOTHING = {"lift_fresh", "detach_", "empty", "empty_like", "empty_strided", "new_empty", "set_"}
"""Operations that start no kernel on a device. Views don't, either."""
_WAITING = {"_local_scalar_dense", "nonzero", "masked_select", "_unique2", "unique_dim"}
"""Operations that return only after the host has read a result of the device."""
_INDEXING = {"index", "index_put_", "_index_put_impl_"}
"""Operations that wait, too, if an index is a mask, as its number of elements isn't known."""
_READS = {"tolist", "cpu", "numpy"}
"""Methods that copy a tensor to the host."""
_CONSTRUCTORS = {"tensor", "as_tensor"}
"""Functions that make a tensor of values of the host, and copy it to a device if one is named."""
_MADE_ON_HOST = {*_CONSTRUCTORS, "lift_fresh", "empty"}
"""Functions whose results are on the host if no device is named. `from_numpy` is `lift_fresh`."""


@dataclass(frozen=True, slots=True)
class Counts:
    """Counts of calls, by the name of the function."""

    operations: dict[str, int] = field(default_factory=dict)
    """Calls of torch that start kernels, and calls of `Kernels`."""
    reads: dict[str, int] = field(default_factory=dict)
    """Copies of results to the host. Each waits for the device."""
    uploads: dict[str, int] = field(default_factory=dict)
    """Copies of the host's values to the device."""


def add_one(counts: dict[str, int], name: str) -> None:
    counts[name] = counts.get(name, 0) + 1


class OperationCounter:
    """Counts what a computation on the CPU would ask of a device."""

    def __init__(self) -> None:
        self.counts: Counts | None = None
        """Where calls are counted at the moment; None counts nothing."""
        self._modes = ExitStack()

    def __enter__(self) -> Self:
        self._modes.enter_context(_Functions(self))
        self._modes.enter_context(_Dispatches(self))
        return self

    def __exit__(self, *error: object) -> None:
        self._modes.close()

    @contextmanager
    def into(self, counts: Counts | None) -> Iterator[None]:
        before, self.counts = self.counts, counts
        try:
            yield
        finally:
            self.counts = before


class CountingKernels:
    """Kernels whose calls each count as one operation, whatever they do inside."""

    def __init__(self, kernels: Kernels, counter: OperationCounter) -> None:
        self.name = kernels.name
        self._kernels = kernels
        self._counter = counter

    def store_kv(
        self, key: Tensor, value: Tensor, key_cache: Tensor, value_cache: Tensor, slots: Tensor
    ) -> None:
        with self._call("store_kv"):
            self._kernels.store_kv(key, value, key_cache, value_cache, slots)

    def paged_attention(
        self, query: Tensor, cache: LayerCache, batch: AttentionBatch, params: AttentionParams
    ) -> Tensor:
        with self._call("paged_attention"):
            return self._kernels.paged_attention(query, cache, batch, params)

    def add_lora_(self, y: Tensor, x: Tensor, sites: LoRASites, plan: LoRAPlan) -> None:
        with self._call("add_lora_"):
            self._kernels.add_lora_(y, x, sites, plan)

    @contextmanager
    def _call(self, name: str) -> Iterator[None]:
        if self._counter.counts is not None:
            add_one(self._counter.counts.operations, name)
        with self._counter.into(None):
            yield


class _Dispatches(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch has no types here
    """Sees every operator that torch runs."""

    def __init__(self, counter: OperationCounter) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._counter = counter

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        # In inference mode, operators arrive before they are divided into those that compute.
        with self:
            parts = func.decompose(*args, **(kwargs or {}))
        if parts is not NotImplemented:
            return parts
        if self._counter.counts is not None:
            _count_operator(func, args, self._counter.counts)
        return func(*args, **(kwargs or {}))


class _Functions(TorchFunctionMode):
    """Sees calls of Python that copy between host and device, which are no operators on a CPU."""

    def __init__(self, counter: OperationCounter) -> None:
        super().__init__()
        self._counter = counter
        self._on_host = WeakIdKeyDictionary()
        """Tensors that would be on the host: those made or read there, and what follows of them."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        name = func.__name__.partition(".")[0]
        is_on_host = any(isinstance(arg, Tensor) and arg in self._on_host for arg in args)
        is_copied = name == "to" and any(isinstance(arg, torch.device) for arg in args[1:])
        is_upload = _is_upload(name, args, kwargs) or (is_copied and is_on_host)
        if (counts := self._counter.counts) is not None:
            if name in _READS and not is_on_host:
                add_one(counts.reads, name)
            if is_upload:
                add_one(counts.uploads, name)
        result = func(*args, **kwargs)
        if isinstance(result, Tensor):
            is_made = name in _MADE_ON_HOST and kwargs.get("device") is None
            self._place(result, on_host=not is_copied and (is_made or is_on_host or name == "cpu"))
        return result

    def _place(self, tensor: Tensor, *, on_host: bool) -> None:
        if on_host:
            self._on_host[tensor] = True
        else:
            self._on_host.pop(tensor, None)  # type: ignore[no-untyped-call]


def _count_operator(func: Any, args: Sequence[Any], counts: Counts) -> None:
    name = func.overloadpacket.__name__
    if name in _WAITING or (name in _INDEXING and _has_mask(args[1])):
        add_one(counts.reads, name)
    if not (func.is_view or name in _NOTHING or name == "_local_scalar_dense"):
        add_one(counts.operations, name)


def _is_upload(name: str, args: Sequence[Any], kwargs: Any) -> bool:
    if name in _CONSTRUCTORS:
        return kwargs.get("device") is not None
    return name in {"__getitem__", "__setitem__"} and isinstance(args[1], list)


def _has_mask(indices: Sequence[Tensor | None]) -> bool:
    return any(index is not None and index.dtype is torch.bool for index in indices)


@contextmanager
def counted() -> Iterator[Counts]:
    """Count what is computed in the context, without gradients."""
    counts = Counts()
    with torch.inference_mode(), OperationCounter() as counter, counter.into(counts):
        yield counts
