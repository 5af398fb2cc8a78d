"""The native kernels for CPUs: C++ with OpenMP, called through ctypes with tensor addresses."""

import ctypes
import os
import sys
from collections.abc import Callable, Sequence
from ctypes import c_float, c_int32, c_int64, c_void_p
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from worker.kernels.cpu.attention_args import AttentionArgs, prepare_batch
from worker.kernels.cpu.build import OnCompiled, ignore, load_library
from worker.kernels.cpu.layer import LayersStep, NativeLayers, pointers
from worker.kernels.cpu.lora_args import NativePlan, NativeSites, prepare_plan, prepare_sites
from worker.kernels.cpu.quantised import QuantisedKernels, contiguous_rows, packed_product
from worker.kernels.interface import (
    AttentionBatch,
    AttentionParams,
    LayerCache,
    LoRAPlan,
    LoRASites,
)

_SUFFIX = {torch.float32: "f32", torch.bfloat16: "bf16"}
_PAGE_ROWS = 8
"""Number of rows in a page of an adapter. Must equal PAGE_ROWS in lora/task.h."""
_NUM_PINNED_THREADS = 2
"""`spread_threads` pins threads only if there are this many cores and OpenMP threads."""


class NativeKernels:
    """Kernels for one dtype on the CPU. Tensor arguments must have that dtype and be on the CPU."""

    name = "native"

    def __init__(
        self, dtype: torch.dtype, cache_folder: Path, on_compiled: OnCompiled = ignore
    ) -> None:
        """Load the kernels, or compile them into `cache_folder`. Raises NotCompiled if that fails.

        `on_compiled` is called as described in `load_library`.
        """
        self._dtype = dtype
        library = load_library(cache_folder, on_compiled)

        def function(name: str, *arguments: Any, returns: Any = None) -> Callable[..., Any]:
            found = getattr(library, f"{name}_{_SUFFIX[dtype]}")
            found.argtypes, found.restype = arguments, returns
            return found  # type: ignore[no-any-return]

        self._attention = function("paged_attention", c_void_p)
        self._add_lora = function("add_lora", c_void_p)
        rows, size = c_int64, c_int64
        self._store_rows = function("store_rows", c_void_p, c_int64, c_void_p, c_void_p, rows, size)
        self._rms_norm = function(
            "rms_norm", c_void_p, c_int64, c_void_p, c_void_p, rows, size, c_float, c_float, c_int32
        )
        self._silu_mul = function("silu_mul", c_void_p, c_void_p, c_int64, c_void_p, rows, size)
        self._rope = function("rope", c_void_p, c_int64, c_void_p, c_void_p, rows, c_int64, c_int64)

        self._decoder_layers = function("decoder_layers", c_void_p)
        self._linear = function(
            "linear",
            *(c_void_p, c_int64, c_void_p, c_void_p, c_void_p, c_int64),
            *(rows, size, c_int64),
        )
        self._linear_pack = function("linear_pack", c_void_p, c_void_p, size, c_int64)
        self._linear_packed_size = function("linear_packed_size", size, c_int64, returns=c_int64)
        self._can_multiply = bool(library.linear_supported())
        self._quantised = QuantisedKernels(library, _SUFFIX[dtype])
        self._spread_threads = library.spread_threads
        self._spread_threads.argtypes = [c_void_p, c_int64]
        self._spread_threads.restype = None
        cores = sorted(os.sched_getaffinity(0)) if sys.platform == "linux" else []
        self._cores = (c_int32 * len(cores))(*cores)

    @staticmethod
    def supports(device: torch.device, dtype: torch.dtype) -> bool:
        """Return whether native kernels exist for tensors of `dtype` on `device`."""
        return device.type == "cpu" and dtype in _SUFFIX

    def spread_threads(self) -> None:
        """Pin the calling thread's two OpenMP threads to one core each, if there are two cores.

        Larger teams aren't pinned. OpenMP ends unused threads and starts new ones later, which
        inherit the affinity of the calling thread, so all of them would run on its core. A call
        takes a few microseconds if the threads are already pinned.
        """
        if len(self._cores) == _NUM_PINNED_THREADS:
            self._spread_threads(self._cores, _NUM_PINNED_THREADS)

    def store_kv(
        self, key: Tensor, value: Tensor, key_cache: Tensor, value_cache: Tensor, slots: Tensor
    ) -> None:
        """Write keys and values to their slots; see `Kernels.store_kv`."""
        for rows, cache in ((key, key_cache), (value, value_cache)):
            rows = _with_contiguous_tokens(rows)
            width = rows.shape[1] * rows.shape[2]
            self._store_rows(
                rows.data_ptr(),
                rows.stride(0),
                cache.data_ptr(),
                slots.data_ptr(),
                len(slots),
                width,
            )

    def paged_attention(
        self, query: Tensor, cache: LayerCache, batch: AttentionBatch, params: AttentionParams
    ) -> Tensor:
        """Compute causal attention; see `Kernels.paged_attention`."""
        query = _with_contiguous_tokens(query)
        num_tokens, num_heads, key_dim = query.shape
        key_cache, value_cache = cache
        value_dim = value_cache.shape[3]
        out = query.new_empty(num_tokens, num_heads, value_dim)
        args = self._attention_of(batch)
        args.query, args.out = query.data_ptr(), out.data_ptr()
        args.keys, args.values = key_cache.data_ptr(), value_cache.data_ptr()
        args.query_stride, args.num_heads = query.stride(0), num_heads
        args.num_kv_heads, args.block_size = key_cache.shape[2], key_cache.shape[1]
        args.key_dim, args.value_dim = key_dim, value_dim
        args.window, args.chunk = params.sliding_window or 0, params.chunk_size or 0
        args.scaling, args.softcap = params.scaling, params.softcap or 0.0
        sinks = None if params.sinks is None else params.sinks.float()
        args.sinks = None if sinks is None else sinks.data_ptr()
        self._attention(ctypes.addressof(args))
        return out

    def add_lora_(self, y: Tensor, x: Tensor, sites: LoRASites, plan: LoRAPlan) -> None:
        """Add LoRA terms to `y` in place. `y` has contiguous rows; see `Kernels.add_lora_`."""
        x = contiguous_rows(x)
        prepared = self._lora(sites, plan)
        struct = prepared.args
        struct.x, struct.y = x.data_ptr(), y.data_ptr()
        struct.in_features, struct.x_stride, struct.y_stride = x.shape[1], x.stride(0), y.stride(0)
        self._add_lora(prepared.address)

    def decoder_layers(
        self,
        layers: NativeLayers,
        x: Tensor,
        rotation: tuple[Tensor, Tensor],
        caches: Sequence[LayerCache],
        batch: AttentionBatch,
        lora: Sequence[tuple[LoRASites, LoRAPlan] | None],
    ) -> Tensor:
        """Return `x` `[1, T, hidden]`, contiguous, after consecutive decoder layers.

        `rotation` has the cosines and the sines for the tokens' positions, each `[1, T, head_dim]`
        and contiguous. `lora` has the LoRA sites and plan of each layer's q/k/v, o, gate/up and
        down projections. None stands for a projection without a LoRA term. If no projection has
        one, `lora` is empty.
        """
        y = torch.empty_like(x)
        attention = self._attention_of(batch)
        attention.block_size = caches[0][0].shape[1]
        keys = pointers([keys.data_ptr() for keys, _ in caches])
        values = pointers([values.data_ptr() for _, values in caches])
        terms = pointers([None if pair is None else self._lora(*pair).address for pair in lora])
        step = LayersStep(
            x=x.data_ptr(),
            y=y.data_ptr(),
            cosine=rotation[0].data_ptr(),
            sine=rotation[1].data_ptr(),
            slots=batch.slots.data_ptr(),
            layers=layers.address,
            keys=ctypes.addressof(keys),
            values=ctypes.addressof(values),
            lora=ctypes.addressof(terms) if lora else None,
            attention=ctypes.addressof(attention),
            num_layers=len(layers),
            num_tokens=x.shape[1],
        )
        self._decoder_layers(ctypes.addressof(step))
        return y

    def _attention_of(self, batch: AttentionBatch) -> AttentionArgs:
        prepared = batch.prepared
        if not isinstance(prepared, AttentionArgs):
            prepared = batch.prepared = prepare_batch(batch)
        return prepared

    def _lora(self, sites: LoRASites, plan: LoRAPlan) -> NativeSites:
        """Set the plan of `sites` to `plan`, and return their native arguments."""
        assert plan.page_rows == _PAGE_ROWS
        prepared = sites.prepared
        if not isinstance(prepared, NativeSites):
            prepared = sites.prepared = prepare_sites(sites)
        prepared_plan = plan.prepared
        if not isinstance(prepared_plan, NativePlan):
            prepared_plan = plan.prepared = prepare_plan(plan)
        prepared.args.plan = prepared_plan.address
        return prepared

    @property
    def quantised(self) -> QuantisedKernels | None:
        """Kernels for weights in int8, or None if this CPU has none."""
        return self._quantised if self._can_multiply else None

    def can_pack(self, weight: Tensor) -> bool:
        """Return whether `pack` and `linear` support this weight on this CPU."""
        is_even = weight.dtype is not torch.bfloat16 or weight.shape[1] % 2 == 0
        return self._can_multiply and weight.dtype is self._dtype and is_even

    def pack(self, weight: Tensor) -> Tensor:
        """Return a weight `[out, in]` in the layout that `linear` reads."""
        weight = weight.contiguous()
        packed = torch.empty(self._linear_packed_size(*weight.shape), dtype=weight.dtype)
        self._linear_pack(weight.data_ptr(), packed.data_ptr(), *weight.shape)
        return packed

    def linear(self, x: Tensor, packed: Tensor, bias: Tensor | None, out_features: int) -> Tensor:
        """Compute `x w^T + bias`. `packed` is `pack`'s result for `w`; see `packed_product`."""
        return packed_product(self._linear, x, packed, bias, out_features)

    def rms_norm(
        self, x: Tensor, weight: Tensor, epsilon: float, *, offset: float, round_first: bool
    ) -> Tensor:
        """Compute `x / rms(x) * (offset + weight)` over the last dimension, as a new tensor.

        With `round_first`, `x / rms(x)` is rounded to the dtype before the weight is applied.
        """
        rows = contiguous_rows(x)
        out = torch.empty(x.shape, dtype=x.dtype)
        self._rms_norm(
            rows.data_ptr(),
            rows.stride(0),
            weight.data_ptr(),
            out.data_ptr(),
            rows.shape[0],
            rows.shape[1],
            epsilon,
            offset,
            round_first,
        )
        return out

    def silu_mul(self, gate: Tensor, up: Tensor) -> Tensor:
        """Return `silu(gate) * up` as a new tensor. Both inputs are `[T, N]` with equal strides."""
        assert gate.stride() == up.stride()
        assert gate.stride(1) == 1
        out = torch.empty(gate.shape, dtype=gate.dtype)
        self._silu_mul(gate.data_ptr(), up.data_ptr(), gate.stride(0), out.data_ptr(), *gate.shape)
        return out

    def rope_(self, x: Tensor, cosine: Tensor, sine: Tensor) -> None:
        """Rotate `x`, `[T, num_heads, dim]`, in place. `cosine` and `sine` are `[T, dim]`."""
        assert x.stride(2) == 1
        assert x.stride(1) == x.shape[2]
        assert cosine.is_contiguous()
        assert sine.is_contiguous()
        self._rope(x.data_ptr(), x.stride(0), cosine.data_ptr(), sine.data_ptr(), *x.shape)


def _with_contiguous_tokens(rows: Tensor) -> Tensor:
    """Return `rows`, `[T, heads, dim]`, with contiguous tokens. Copies only if necessary."""
    is_contiguous = rows.stride(2) == 1 and rows.stride(1) == rows.shape[2]
    return rows if is_contiguous else rows.contiguous()
