"""Tests of the Triton kernels under their interpreter, of their selection and their compilation.

None of them needs a GPU. The kernels are compiled for several GPUs, for each launch that a model
makes. The interpreter runs them on a CPU in float32 and float16. It must be selected before triton
is imported, so those tests run in a separate process:

    TRITON_INTERPRET=1 pytest -k triton tests/worker/kernels/{test_attention,test_lora,triton_*}.py
"""

import itertools
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import pytest
import torch
import triton
from recorded_kernels import Target
from structlog.testing import capture_logs
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
from worker.kernels.pick import pick_kernels
from worker.kernels.triton.kernels import TritonKernels

FOLDER = Path(__file__).parent
FILES = ["test_attention.py", "test_lora.py", "triton_engine.py"]


@pytest.mark.parametrize(
    ("marks", "words"),
    [
        pytest.param(
            *("not slow and not long", "triton and not float16"),
            marks=pytest.mark.slow,
            id="quick cases in float32",
        ),
        pytest.param(
            *("not long", "triton"), marks=[pytest.mark.long, pytest.mark.timeout(900)], id="all"
        ),
    ],
)
def test_interpreted_kernels_pass_their_tests(marks: str, words: str) -> None:
    # The interpreter uses numpy, which warns if an adapter overflows.
    warnings = [
        f"-Wignore:{what} encountered:RuntimeWarning" for what in ("overflow", "invalid value")
    ]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-m", marks, "-k", words, *warnings]
        + [str(FOLDER / name) for name in FILES],
        env={**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    assert "skipped" not in done.stdout.splitlines()[-1]


CHECK = "worker.kernels.triton.check"
FAILURE = RuntimeError("out of resource: shared memory\nand more lines")


@pytest.mark.parametrize(
    ("patched", "reason"),
    [
        (lambda: mock.patch(f"{CHECK}.check_kernels"), None),
        (lambda: mock.patch(f"{CHECK}.check_kernels", side_effect=FAILURE), "out of resource: .*"),
        (lambda: mock.patch.dict(sys.modules, {CHECK: None}), "import of .*"),
    ],
    ids=["usable", "failing", "not installed"],
)
def test_triton_is_picked_for_a_gpu_or_else_torch_with_a_warning(
    tmp_path: Path, patched: Callable[[], AbstractContextManager[object]], reason: str | None
) -> None:
    with capture_logs() as logs, patched():
        picked = pick_kernels(torch.device("cuda"), torch.bfloat16, tmp_path)
    assert picked.name == ("torch" if reason else "triton")
    events = [("triton_kernels_unavailable", "torch, slower")] if reason else []
    assert [(line["event"], line["instead"]) for line in logs] == events
    assert all(re.fullmatch(reason or "", line["reason"]) for line in logs)


A100, RTX_4090, H100 = 80, 89, 90
SHARED_BYTES = 99 << 10
"""Largest shared memory of a program on the smallest of these GPUs."""
GEMMA2 = {"sliding_window": 512, "softcap": 50.0}
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


def attend(heads: Heads, dtype: torch.dtype, limits: dict[str, Any]) -> None:
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
    kernels.paged_attention(query, cache, batch, AttentionParams(0.1, **limits))


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
    ("compiled", "dtype", "heads", "limits"),
    [
        (H100, torch.bfloat16, Heads(32, 8, 128, 128), {}),
        (H100, torch.bfloat16, Heads(8, 4, 256, 256), GEMMA2),
        (H100, torch.bfloat16, Heads(64, 8, 64, 64), {"sinks": torch.zeros(64)}),
        (H100, torch.bfloat16, Heads(40, 8, 128, 128), {"chunk_size": 8192}),
        (A100, torch.bfloat16, Heads(32, 32, 80, 80), {}),
        (A100, torch.float16, Heads(9, 3, 64, 64), {}),
        (RTX_4090, torch.bfloat16, Heads(3, 1, 192, 128), {}),
        (RTX_4090, torch.bfloat16, Heads(71, 1, 64, 64), {}),
        (RTX_4090, torch.float32, Heads(32, 8, 128, 128), {}),
        (A100, torch.float32, Heads(8, 4, 256, 256), GEMMA2),
    ],
    indirect=["compiled"],
    ids=str,
)
def test_attention_fits_into_registers_and_shared_memory(
    compiled: list[tuple[str, Any]],
    tmp_path: Path,
    dtype: torch.dtype,
    heads: Heads,
    limits: dict[str, Any],
) -> None:
    attend(heads, dtype, limits)
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
@pytest.mark.slow
def test_weights_and_keys_are_read_in_vectors_of_16_bytes(
    compiled: list[tuple[str, Any]],
) -> None:
    attend(Heads(32, 8, 128, 128), torch.bfloat16, {})
    add_lora(torch.bfloat16, 4, 4096, (4096, 1024, 1024))
    for name, kernel in compiled:
        if name in {"attention_kernel", "shrink_kernel", "expand_kernel"}:
            assert "cp.async.cg.shared.global" in kernel.asm["ptx"], name  # copies 16 bytes
            assert "ld.global.b16" not in kernel.asm["ptx"], name
