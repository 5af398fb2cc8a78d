"""The kernels for GPUs, in Triton. Under TRITON_INTERPRET=1 they run on the CPU, for tests."""

from contextlib import AbstractContextManager

import torch
import triton
from torch import Tensor

from worker.kernels.interface import AttentionBatch, LoRAPlan, LoRASites
from worker.kernels.triton.attention import Attention, Prepared
from worker.kernels.triton.device.kv_store import store_kernel
from worker.kernels.triton.lora import add_lora_

STORE_COLUMNS = 1024


class TritonKernels:
    """Kernels of one GPU for float32, float16 and bfloat16.

    Every tensor of a call is on one device, which needn't be torch's current one.
    """

    name = "triton"

    def store_kv(
        self, key: Tensor, value: Tensor, key_cache: Tensor, value_cache: Tensor, slots: Tensor
    ) -> None:
        """As the interface says."""
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
        self,
        query: Tensor,
        key_cache: Tensor,
        value_cache: Tensor,
        batch: AttentionBatch,
        *,
        scaling: float,
        sliding_window: int | None,
        softcap: float | None,
    ) -> Tensor:
        """As the interface says."""
        assert key_cache.is_contiguous()
        assert value_cache.is_contiguous()
        prepared = batch.prepared.get(self.name)
        if prepared is None:
            prepared = batch.prepared[self.name] = Prepared()
        attention = Attention(
            query=_with_dense_rows(query),
            key_cache=key_cache,
            value_cache=value_cache,
            batch=batch,
            prepared=prepared,
            scaling=scaling,
            sliding_window=sliding_window,
            softcap=softcap,
        )
        with _on_device_of(query):
            return attention()

    def add_lora_(self, y: Tensor, x: Tensor, sites: LoRASites, plan: LoRAPlan) -> None:
        """As the interface says; each row of `y` is contiguous."""
        assert y.stride(1) == 1
        with _on_device_of(x):
            add_lora_(self.name, y, _with_dense_rows(x), sites, plan)


def _on_device_of(x: Tensor) -> AbstractContextManager[None]:
    """Launch inside on the tensor's GPU: Triton takes torch's current one."""
    context: AbstractContextManager[None] = torch.cuda.device_of(x)  # type: ignore[no-untyped-call]
    return context


def _with_dense_rows(x: Tensor) -> Tensor:
    """`[..., dim]` in which the last dimension is contiguous."""
    return x if x.stride(-1) == 1 else x.contiguous()
