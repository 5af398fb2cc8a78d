"""The kernels for GPUs, in Triton. With TRITON_INTERPRET=1, tests run them on CPUs."""

from contextlib import AbstractContextManager

import torch
import triton
from torch import Tensor

from worker.kernels.interface import (
    AttentionBatch,
    AttentionParams,
    LayerCache,
    LoRAPlan,
    LoRASites,
)
from worker.kernels.triton.attention import Attention, TritonBatch
from worker.kernels.triton.device.kv_store import store_kernel
from worker.kernels.triton.lora import add_lora_

STORE_COLUMNS = 1024
"""Maximum number of elements of a token's key, and of its value, that one program copies."""


class TritonKernels:
    """Kernels for float32, float16 and bfloat16 on GPUs.

    All tensors of a call must be on one device, which need not be torch's current device.
    """

    name = "triton"

    def store_kv(
        self, key: Tensor, value: Tensor, key_cache: Tensor, value_cache: Tensor, slots: Tensor
    ) -> None:
        """Write keys and values to their slots; see `Kernels.store_kv`."""
        key, value = _with_dense_rows(key), _with_dense_rows(value)
        num_tokens, num_heads, key_dim = key.shape
        value_dim = value.shape[2]
        assert key_cache.is_contiguous()
        assert value_cache.is_contiguous()
        num_columns = num_heads * max(key_dim, value_dim)
        with _on_device_of(key):
            store_kernel[num_tokens, triton.cdiv(num_columns, STORE_COLUMNS)](
                key,
                value,
                key_cache,
                value_cache,
                slots,
                key.stride(0),
                key.stride(1),
                value.stride(0),
                value.stride(1),
                NUM_HEADS=num_heads,
                KEY_DIM=key_dim,
                VALUE_DIM=value_dim,
                BLOCK=STORE_COLUMNS,
                num_warps=4,
                num_stages=1,
                enable_fp_fusion=True,
            )

    def paged_attention(
        self, query: Tensor, cache: LayerCache, batch: AttentionBatch, params: AttentionParams
    ) -> Tensor:
        """Compute causal attention; see `Kernels.paged_attention`."""
        key_cache, value_cache = cache
        assert key_cache.is_contiguous()
        assert value_cache.is_contiguous()
        prepared = batch.prepared
        if not isinstance(prepared, TritonBatch):
            prepared = batch.prepared = TritonBatch()
        attention = Attention(
            query=_with_dense_rows(query),
            key_cache=key_cache,
            value_cache=value_cache,
            batch=batch,
            prepared=prepared,
            params=params,
        )
        with _on_device_of(query):
            return attention()

    def add_lora_(self, y: Tensor, x: Tensor, sites: LoRASites, plan: LoRAPlan) -> None:
        """Add LoRA terms to `y` in place. `y` has contiguous rows; see `Kernels.add_lora_`."""
        assert y.stride(1) == 1
        with _on_device_of(x):
            add_lora_(y, _with_dense_rows(x), sites, plan)


def _on_device_of(x: Tensor) -> AbstractContextManager[None]:
    """Return a context in which Triton launches kernels on the GPU of `x`."""
    context: AbstractContextManager[None] = torch.cuda.device_of(x)  # type: ignore[no-untyped-call]
    return context


def _with_dense_rows(x: Tensor) -> Tensor:
    """Return `x`, or a copy of it if its last dimension isn't contiguous."""
    return x if x.stride(-1) == 1 else x.contiguous()
