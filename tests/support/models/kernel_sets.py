"""All implementations of the kernels, in all dtypes that each supports."""

import atexit
import functools
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch

from shared.cache_folder import cache_folder
from worker.kernels.cpu import build
from worker.kernels.cpu.levels import AUTO, LEVELS, VARIABLE, cpu_flags, usable_levels
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

CPU_FLAGS = cpu_flags()
SUPPORT = Path(__file__).parent
LEVELS_HERE = [level.name for level in usable_levels(CPU_FLAGS)]
"""Levels of the kernels that this CPU can run, the fastest first. It is empty on other CPUs."""
NATIVE = os.environ.get(VARIABLE, AUTO)
"""Native kernels of the level that `LORIKEET_CPU_LEVEL` forces, or of the fastest one."""
LESSER = [
    level
    for level in (
        "avx512-bf16",
        "avx512-vnni",
        "avx2",
    )  # the others have the same products of floats
    if level in LEVELS_HERE[1:] and level != NATIVE
]
"""Other levels, as lesser CPUs have them."""
EMULATED_AMX = "emulated AMX"
_WIDE = next((level for level in LEVELS_HERE if level.startswith("avx512")), None)
"""The level whose vectors are used with emulated tiles."""
NATIVE_NAMES = [
    NATIVE,
    *LESSER,
    *([EMULATED_AMX] if _WIDE and "amx" not in LEVELS_HERE else []),
]

QUANTISED_SOURCE = "quantised/linear.cpp"
_FLAGS = {level.name: level.compiler_flags for level in LEVELS}
_EMULATED = {
    "amx": ("avx512-vnni", "emulated_tiles.h"),
    "avx-vnni": ("avx2", "emulated_vnni.h"),
}
"""Levels that are emulated on other CPUs: the level that the CPU needs, and a header."""
QUANTISED_PATHS = {name: _FLAGS[name] for name in LEVELS_HERE} | {
    f"{name}, emulated": (*_FLAGS[needed], "-include", str(SUPPORT / header))
    for name, (needed, header) in _EMULATED.items()
    if needed in LEVELS_HERE and name not in LEVELS_HERE
}
"""Compiler flags for each way to multiply by quantised weights."""
QUANTISED_NAMES = list(QUANTISED_PATHS)

SETS = [
    *(("torch", dtype) for dtype in (torch.float32, torch.bfloat16, torch.float16)),
    *((name, dtype) for name in NATIVE_NAMES for dtype in NATIVE_DTYPES),
]
if IS_INTERPRETED:
    SETS = [("triton", dtype) for dtype in TRITON_DTYPES]
SET_IDS = [f"{name}-{str(dtype).removeprefix('torch.')}" for name, dtype in SETS]


def _cases(sets: Sequence[tuple[str, torch.dtype]]) -> list[Any]:
    """Return `pytest.param` of each set. Those of other levels than the first are marked slow."""
    return [
        pytest.param(each, each[1], marks=pytest.mark.slow if each[0] in NATIVE_NAMES[1:] else ())
        for each in sets
    ]


every_kernel_set = pytest.mark.parametrize(
    ("kernels", "dtype"), _cases(SETS), ids=SET_IDS, indirect=["kernels"]
)
"""Decorator that runs a test with each implementation in each of its dtypes."""

NATIVE_SETS = [(name, dtype) for name in NATIVE_NAMES for dtype in NATIVE_DTYPES]
every_native_set = pytest.mark.parametrize(
    ("kernels", "dtype"), _cases(NATIVE_SETS), indirect=["kernels"], ids=str
)
"""Decorator that runs a test with all native kernels in each of their dtypes."""

ENGINE_SETS = [
    *(pytest.param((NATIVE, dtype)) for dtype in NATIVE_DTYPES),
    *(pytest.param((name, torch.bfloat16), marks=pytest.mark.slow) for name in NATIVE_NAMES[1:]),
]
"""Native kernels with which whole engines are tested."""


def first_is_quick(cases: Sequence[Any]) -> list[Any]:
    """Return `pytest.param` of each case. All but the first are marked slow."""
    return [pytest.param(case, marks=pytest.mark.slow if i else ()) for i, case in enumerate(cases)]


every_level = pytest.mark.parametrize("level", first_is_quick(NATIVE_NAMES))
"""Decorator that runs a test of an engine with the native kernels of each level."""

EPS = {torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 4e-3}
"""Largest rounding error of a result, relative to its largest value."""


@functools.cache
def native_kernels(dtype: torch.dtype, name: str = NATIVE) -> NativeKernels:
    """Return the native kernels `name`. Without a compiler, the test is skipped."""
    if shutil.which("g++") is None and shutil.which("c++") is None:
        pytest.skip("needs a C++ compiler")
    with compiled_as(name):
        return NativeKernels(dtype, cache_folder())


@contextmanager
def compiled_as(name: str) -> Iterator[None]:
    """Make native kernels that are loaded inside the context those of `name`."""
    emulates = name == EMULATED_AMX
    options = _with_emulated_amx() if emulates else []
    level = str(_WIDE) if emulates else name
    with (
        mock.patch.dict(os.environ, {VARIABLE: level}),
        mock.patch.object(build, "FLAGS", [*build.FLAGS, *options]),
    ):
        yield


@functools.cache
def quantised_kernels(dtype: torch.dtype, path: str) -> NativeKernels:
    """Return native kernels that multiply by quantised weights in the way `path`.

    Only this product is compiled with the path's flags, so all else has the same bits.
    """
    if shutil.which("g++") is None and shutil.which("c++") is None:
        pytest.skip("needs a C++ compiler")
    flags = list(QUANTISED_PATHS[path])
    run = build._run

    def run_with_flags(command: list[str]) -> str:
        if any(part.endswith(QUANTISED_SOURCE) for part in command):
            return run([*(part for part in command if not part.startswith("-m")), *flags])
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


def linear_kernels(dtype: torch.dtype, name: str = NATIVE) -> NativeKernels:
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
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def with_threads(run: Callable[[], torch.Tensor]) -> list[torch.Tensor]:
    """Return what `run` returns with one, two and three threads."""
    outputs = []
    for number in (1, 2, 3):
        with threads(number):
            outputs.append(run())
    return outputs
