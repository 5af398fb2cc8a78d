"""Compiles the Triton kernels for several GPUs, for each launch that a model makes."""

import itertools
import re
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import triton
from recorded_kernels import Target
from triton.runtime import driver
from triton.runtime.jit import JITFunction

from worker.kernels.interface import (
    AttentionBatch,
    AttentionParams,
    LoRAPages,
    LoRAPlan,
    LoRASite,
    LoRASites,
)
from worker.kernels.triton.kernels import TritonKernels

A100, RTX_4090, H100 = 80, 89, 90
SHARED_BYTES = 99 << 10
"""Largest shared memory of a program on the smallest of these GPUs."""
STACK_BYTES = 64
"""Limit of spilled registers. A few bytes cost little; kilobytes slow a kernel down."""


class Heads(NamedTuple):
    """Sizes of a model's attention."""

    num_heads: int
    num_kv_heads: int
    key_dim: int
    value_dim: int


@pytest.fixture
def compiled(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[list[tuple[str, Any]]]:
    """List of (name, kernel); each launch is compiled for the GPU of the test's parameter."""
    kernels: list[tuple[str, Any]] = []

    def launcher(function: Any, grid: Any) -> Any:
        def compile_kernel(*args: Any, **kwargs: Any) -> None:
            kernel = function.run(*args, grid=grid, warmup=True, **kwargs)
            kernels.append((function.fn.__name__, kernel))

        return compile_kernel

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(driver, "_active", Target(request.param))
    monkeypatch.setattr(JITFunction, "__getitem__", launcher)
    yield kernels
    for function in _functions(kernels):
        function.device_caches.clear()


def _functions(kernels: list[tuple[str, Any]]) -> list[Any]:
    from worker.kernels.triton.device import attention, kv_store, lora

    found = [vars(module).values() for module in (attention, kv_store, lora)]
    return [f for values in found for f in values if isinstance(f, JITFunction)]


def attend(heads: Heads, dtype: torch.dtype, window: int | None, cap: float | None) -> None:
    """Run attention of a step with two decodes, of a short and a long context, and a prompt."""
    contexts, queries = [100, 5000, 70], [1, 1, 70]
    num_tokens = sum(queries)
    query = torch.zeros(num_tokens, heads.num_heads, heads.key_dim, dtype=dtype)
    key = torch.zeros(num_tokens, heads.num_kv_heads, heads.key_dim, dtype=dtype)
    value = torch.zeros(num_tokens, heads.num_kv_heads, heads.value_dim, dtype=dtype)
    cache = key.new_zeros(1, 16, *key.shape[1:]), value.new_zeros(1, 16, *value.shape[1:])
    batch = AttentionBatch(
        slots=torch.zeros(num_tokens, dtype=torch.int64),
        query_starts=int32([0, *itertools.accumulate(queries)]),
        context_lens=int32(contexts),
        block_tables=torch.zeros(3, 313, dtype=torch.int32),
    )
    kernels = TritonKernels()
    kernels.store_kv(key, value, *cache, batch.slots)
    kernels.paged_attention(query, cache, batch, AttentionParams(0.1, window, cap))


def add_lora(dtype: torch.dtype, num_tokens: int, num_in: int, outs: tuple[int, ...]) -> None:
    """Add terms of two adapters, of 1 and 5 pages, in sibling linears of `outs` features."""
    pages = LoRAPages(int32([0, 1, 6]), int32(range(6))[None])
    plan = LoRAPlan(
        token_starts=int32([0, 1, num_tokens]),
        tokens=int32(range(num_tokens)),
        pages=[pages] * len(outs),
        page_rows=8,
    )
    sites, offset = [], 0
    for group, out in enumerate(outs):
        a, b = torch.zeros(6, 8, num_in, dtype=dtype), torch.zeros(6, 8, out, dtype=dtype)
        sites.append(LoRASite(a, b, group, offset=offset))
        offset += out
    x, y = (
        torch.zeros(num_tokens, num_in, dtype=dtype),
        torch.zeros(num_tokens, offset, dtype=dtype),
    )
    TritonKernels().add_lora_(y, x, LoRASites(sites), plan)


def int32(values: Iterable[int]) -> torch.Tensor:
    return torch.tensor([*values], dtype=torch.int32)


def check(compiled: list[tuple[str, Any]], tmp_path: Path) -> None:
    for name, kernel in compiled:
        assert kernel.metadata.shared <= SHARED_BYTES, name
        file = tmp_path / "kernel.cubin"
        file.write_bytes(kernel.asm["cubin"])
        tool = triton.knobs.nvidia.cuobjdump.path
        usage = subprocess.check_output([tool, "--dump-resource-usage", file], text=True)
        (stack,) = re.findall(r"STACK:(\d+)", usage)
        assert int(stack) <= STACK_BYTES, f"{name}: {usage}"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("compiled", "dtype", "heads", "window", "cap"),
    [
        (H100, torch.bfloat16, Heads(32, 8, 128, 128), None, None),
        (H100, torch.bfloat16, Heads(8, 4, 256, 256), 512, 50.0),
        (A100, torch.bfloat16, Heads(32, 32, 80, 80), None, None),
        (A100, torch.float16, Heads(9, 3, 64, 64), None, None),
        (RTX_4090, torch.bfloat16, Heads(3, 1, 192, 128), None, None),
        (RTX_4090, torch.bfloat16, Heads(71, 1, 64, 64), None, None),
        (RTX_4090, torch.float32, Heads(32, 8, 128, 128), None, None),
        (A100, torch.float32, Heads(8, 4, 256, 256), 512, 50.0),
    ],
    indirect=["compiled"],
    ids=str,
)
def test_attention_fits_into_registers_and_shared_memory(
    compiled: list[tuple[str, Any]],
    tmp_path: Path,
    dtype: torch.dtype,
    heads: Heads,
    window: int | None,
    cap: float | None,
) -> None:
    attend(heads, dtype, window, cap)
    assert [name for name, _ in compiled] == [
        "store_kernel",
        "attention_kernel",
        "attention_kernel",
        "merge_spans_kernel",
    ]
    check(compiled, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("compiled", "dtype"),
    [(H100, torch.bfloat16), (A100, torch.float32), (RTX_4090, torch.bfloat16)],
    indirect=["compiled"],
    ids=str,
)
def test_lora_fits_into_registers_and_shared_memory(
    compiled: list[tuple[str, Any]], tmp_path: Path, dtype: torch.dtype
) -> None:
    for num_tokens, num_in in itertools.product((4, 80), (576, 4096)):
        add_lora(dtype, num_tokens, num_in, (512, 128, 128))
    add_lora(dtype, 4, 61, (7,))  # rows that are not aligned for vector loads
    assert [name for name, _ in compiled] == ["shrink_kernel", "expand_kernel"] * 5
    check(compiled, tmp_path)


@pytest.mark.parametrize("compiled", [H100], indirect=True)
def test_weights_and_keys_are_read_in_vectors_of_16_bytes(
    compiled: list[tuple[str, Any]],
) -> None:
    attend(Heads(32, 8, 128, 128), torch.bfloat16, None, None)
    add_lora(torch.bfloat16, 4, 4096, (4096, 1024, 1024))
    for name, kernel in compiled:
        if name in {"attention_kernel", "shrink_kernel", "expand_kernel"}:
            assert "cp.async.cg.shared.global" in kernel.asm["ptx"], name  # copies 16 bytes
            assert "ld.global.b16" not in kernel.asm["ptx"], name
