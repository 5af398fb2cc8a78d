"""All implementations of the kernels, in all dtypes that each supports."""

import atexit
import functools
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import pytest
import torch

from shared.cache_folder import cache_folder
from worker.kernels.cpu import build
from worker.kernels.cpu.levels import cpu_flags
from worker.kernels.cpu.native import NativeKernels
from worker.kernels.interface import Kernels
from worker.kernels.reference import ReferenceKernels

IS_INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
"""Whether only the Triton kernels are tested, under their interpreter.

`test_triton.py` starts such a run. The interpreter has no bfloat16, and is so slow that the tests
use small sizes.
"""

NATIVE_DTYPES = (torch.float32, torch.bfloat16)
TRITON_DTYPES = (torch.float32, torch.float16)

NARROWER = {
    "native without AMX": ("amx_bf16", "-mno-amx-bf16"),
    "native without AVX512_BF16": ("avx512_bf16", "-mno-amx-bf16", "-mno-avx512bf16"),
    "native without AVX512": ("avx512f", "-mno-amx-bf16", "-mno-avx512f"),
}
"""Native kernels for lesser CPUs: the feature that is left out, and the compiler flags for it."""

CPU_FLAGS = cpu_flags()
SUPPORT = Path(__file__).parent
QUANTISED_SOURCE = "quantised/linear.cpp"
QUANTISED_PATHS = {
    "VNNI": ("avx512_vnni",),
    "AVX512": ("avx512bw", "-mno-avx512vnni"),
    "AVX-VNNI, emulated": ("avx2", "-mno-avx512f", "-include", str(SUPPORT / "emulated_vnni.h")),
    "AVX2": ("avx2", "-mno-avx512f", "-mno-avxvnni"),
    "AMX, emulated": ("avx512_vnni", "-include", str(SUPPORT / "emulated_tiles.h")),
}
"""Ways to multiply by quantised weights: the feature that each needs, and its compiler flags."""
QUANTISED_NAMES = [name for name, (feature, *_) in QUANTISED_PATHS.items() if feature in CPU_FLAGS]
HAS_AMX = "amx_bf16" in CPU_FLAGS
EMULATED_AMX = "native with emulated AMX"

NATIVE_NAMES = [
    "native",
    *(name for name, (flag, *_) in NARROWER.items() if flag in CPU_FLAGS),
    *([EMULATED_AMX] if "avx512bw" in CPU_FLAGS and not HAS_AMX else []),
]
SETS = [
    *(("torch", dtype) for dtype in (torch.float32, torch.bfloat16, torch.float16)),
    *((name, dtype) for name in NATIVE_NAMES for dtype in NATIVE_DTYPES),
]
if IS_INTERPRETED:
    SETS = [("triton", dtype) for dtype in TRITON_DTYPES]
SET_IDS = [f"{name}-{str(dtype).removeprefix('torch.')}" for name, dtype in SETS]
every_kernel_set = pytest.mark.parametrize(("name", "dtype"), SETS, ids=SET_IDS)
"""Decorator that runs a test with each implementation in each of its dtypes."""

NATIVE_SETS = [(name, dtype) for name in NATIVE_NAMES for dtype in NATIVE_DTYPES]
every_native_set = pytest.mark.parametrize(("name", "dtype"), NATIVE_SETS, ids=str)
"""Decorator that runs a test with all native kernels in each of their dtypes."""

ENGINE_SETS = [
    *(pytest.param(("native", dtype)) for dtype in NATIVE_DTYPES),
    *(
        pytest.param((name, torch.bfloat16), marks=pytest.mark.slow)
        for name in NATIVE_NAMES
        if name == EMULATED_AMX
    ),
]
"""Native kernels with which whole engines are tested."""

EPS = {torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 4e-3}
"""Largest rounding error of a result, relative to its largest value."""


@functools.cache
def native_kernels(dtype: torch.dtype, name: str = "native") -> NativeKernels:
    """Return the native kernels `name`. Without a compiler, the test is skipped."""
    if shutil.which("g++") is None and shutil.which("c++") is None:
        pytest.skip("needs a C++ compiler")
    with compiled_as(name):
        return NativeKernels(dtype, cache_folder())


@contextmanager
def compiled_as(name: str) -> Iterator[None]:
    """Make native kernels that are loaded inside the context those of `name`."""
    options = _with_emulated_amx() if name == EMULATED_AMX else NARROWER.get(name, ())[1:]
    with mock.patch.object(build, "FLAGS", [*build.FLAGS, *options]):
        yield


@functools.cache
def quantised_kernels(dtype: torch.dtype, path: str) -> NativeKernels:
    """Return native kernels that multiply by quantised weights in the way `path`.

    Only this product is compiled with the path's flags, so all else has the same bits.
    """
    if shutil.which("g++") is None and shutil.which("c++") is None:
        pytest.skip("needs a C++ compiler")
    flags = list(QUANTISED_PATHS[path][1:])
    run = build._run

    def run_with_flags(command: list[str]) -> str:
        if any(part.endswith(QUANTISED_SOURCE) for part in command):
            return run([*command, *flags])  # later flags win
        return _compile_once(command, run) if "-c" in command else run(command)

    headers = b"".join(Path(flag).read_bytes() for flag in flags if flag.endswith(".h"))
    digest = hashlib.sha256(" ".join(flags).encode() + headers).hexdigest()
    options = [f"-DQUANTISED_PATH={digest[:8]}"]  # only the cached library's name depends on it
    with (
        mock.patch.object(build, "FLAGS", [*build.FLAGS, *options]),
        mock.patch.object(build, "_run", run_with_flags),
    ):
        return NativeKernels(dtype, cache_folder())


def _compile_once(command: list[str], run: Callable[[list[str]], str]) -> str:
    """Compile a source for the first path, and copy the result for all others."""
    source, target = command[command.index("-c") + 1], command[command.index("-o") + 1]
    kept = _objects() / f"{hashlib.sha256(source.encode()).hexdigest()}.o"
    if not kept.exists():
        run([*command[:-1], str(kept)])
    shutil.copy(kept, target)
    return ""


@functools.cache
def _objects() -> Path:
    """Return a folder for object files, which this process removes when it ends."""
    folder = tempfile.TemporaryDirectory()
    atexit.register(folder.cleanup)
    return Path(folder.name)


def linear_kernels(dtype: torch.dtype, name: str = "native") -> NativeKernels:
    """Return the native kernels `name`; the test is skipped if they have no packed product here."""
    kernels = native_kernels(dtype, name)
    if not kernels.can_pack(torch.zeros(4, 4, dtype=dtype)):
        pytest.skip("needs an x86 CPU with AVX2")
    return kernels


def _with_emulated_amx() -> list[str]:
    headers = [SUPPORT / "emulated_tiles.h"]
    if "avx512_bf16" not in CPU_FLAGS:
        headers.append(SUPPORT / "emulated_bf16.h")
    digest = hashlib.sha256(b"".join(header.read_bytes() for header in headers)).hexdigest()
    included = [option for header in headers for option in ("-include", str(header))]
    return ["-mavx512bf16", *included, f"-DEMULATED_AMX={digest[:8]}"]


def kernels_of(name: str, dtype: torch.dtype) -> Kernels:
    """Return the kernels `name` for tensors of `dtype`."""
    if name == "triton":
        from worker.kernels.triton.kernels import TritonKernels

        return TritonKernels()
    return ReferenceKernels() if name == "torch" else native_kernels(dtype, name)


def assert_near(
    got: torch.Tensor, expected: torch.Tensor, terms: torch.Tensor | None = None
) -> None:
    """Assert that `got` equals `expected`, in double precision, up to rounding of its dtype.

    If terms of `expected` cancel, `terms` has the sums of their absolute values, which scale the
    tolerance.
    """
    scale = float((expected if terms is None else terms).abs().max())
    torch.testing.assert_close(got.double(), expected, rtol=0, atol=EPS[got.dtype] * scale)


@contextmanager
def threads(number: int) -> Iterator[None]:
    """Make torch use `number` threads inside the context."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)
