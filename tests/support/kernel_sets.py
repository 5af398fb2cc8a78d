"""Every implementation of the kernels in every dtype that it has."""

import functools
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch

from shared.cache import cache_folder
from worker.kernels.cpu.native import NativeKernels
from worker.kernels.interface import Kernels
from worker.kernels.reference import ReferenceKernels

IS_INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
"""Whether Triton's kernels are tested, and none else: `test_triton.py` starts such a run.

Their interpreter has no bfloat16, and is so slow that sizes must be small.
"""

NATIVE_DTYPES = (torch.float32, torch.bfloat16)
TRITON_DTYPES = (torch.float32, torch.float16)
SETS = [
    *(("torch", dtype) for dtype in (torch.float32, torch.bfloat16, torch.float16)),
    *(("native", dtype) for dtype in NATIVE_DTYPES),
]
if IS_INTERPRETED:
    SETS = [("triton", dtype) for dtype in TRITON_DTYPES]
SET_IDS = [f"{name}-{str(dtype).removeprefix('torch.')}" for name, dtype in SETS]

EPS = {torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 4e-3}
"""What rounding may do to a result, relative to its largest value."""


@functools.cache
def native_kernels(dtype: torch.dtype) -> NativeKernels:
    """The native kernels; without a compiler the test is skipped."""
    if shutil.which("g++") is None and shutil.which("c++") is None:
        pytest.skip("needs a C++ compiler")
    return NativeKernels(dtype, cache_folder())


def kernels_of(name: str, dtype: torch.dtype) -> Kernels:
    """The set of kernels `name`, for tensors of `dtype`."""
    if name == "triton":
        from worker.kernels.triton.kernels import TritonKernels

        return TritonKernels()
    return native_kernels(dtype) if name == "native" else ReferenceKernels()


def assert_near(
    got: torch.Tensor, expected: torch.Tensor, terms: torch.Tensor | None = None
) -> None:
    """`got` is `expected`, a double, but for the rounding of its dtype.

    `terms` are the sums of what `expected` sums, without signs: where those cancel.
    """
    scale = float((expected if terms is None else terms).abs().max())
    torch.testing.assert_close(got.double(), expected, rtol=0, atol=EPS[got.dtype] * scale)


@contextmanager
def threads(number: int) -> Iterator[None]:
    """Compute with so many threads inside."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)
