"""Compiles the native kernels for this machine, once, and loads them.

The compiled library has a name made from the sources, the compiler and the CPU, so that another
machine or version never loads it.
"""

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

SOURCES = Path(__file__).parent / "src"
FLAGS = ["-O3", "-march=native", "-std=c++17", "-fPIC", "-fopenmp"]
FLAGS += ["-fno-math-errno", "-ffp-contract=fast", "-Wall", "-Wextra", "-Wno-psabi"]
TIMEOUT_S = 120


class NotCompiled(Exception):
    """There is no native library; the message says why."""


def load_library(cache_folder: Path) -> ctypes.CDLL:
    """The library of all sources, kept in `cache_folder`.

    torch must have been imported: the library uses its OpenMP threads.

    Raises:
        NotCompiled: there is no compiler here, or it failed.
    """
    compiler = shutil.which("g++") or shutil.which("c++")
    if compiler is None:
        raise NotCompiled("there is no C++ compiler (g++) on PATH")
    try:
        version = _run([compiler, "--version"])
        path = cache_folder / "kernels" / f"{_key(version)}.so"
        return _load(path) or _compile(compiler, path)
    except OSError as error:
        raise NotCompiled(str(error)) from error


def _load(path: Path) -> ctypes.CDLL | None:
    """The library at `path`; None if there is none, or one that a crash has cut off."""
    try:
        return ctypes.CDLL(str(path))
    except OSError:
        return None


def _compile(compiler: str, path: Path) -> ctypes.CDLL:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as work:
        objects = []
        for source in sorted(SOURCES.glob("*.cpp")):
            objects.append(f"{work}/{source.stem}.o")
            _run([compiler, *FLAGS, "-c", str(source), "-o", objects[-1]])
        # Without -fopenmp here, the library takes OpenMP from torch, and shares its threads.
        _run([compiler, "-shared", *objects, "-o", f"{work}/kernels.so"])
        os.replace(f"{work}/kernels.so", path)  # whole or not at all, whoever else compiles
    return ctypes.CDLL(str(path))


def _run(command: list[str]) -> str:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=True, timeout=TIMEOUT_S
        )
    except subprocess.CalledProcessError as error:
        first = (error.stderr.strip().splitlines() or ["no message"])[0]
        raise NotCompiled(f"{command[0]} failed: {first}") from error
    except subprocess.TimeoutExpired as error:
        raise NotCompiled(f"{command[0]} took over {TIMEOUT_S} s") from error
    return done.stdout


def _key(compiler_version: str) -> str:
    whole = hashlib.sha256()
    for source in sorted(SOURCES.iterdir()):
        whole.update(source.name.encode() + b"\0" + source.read_bytes() + b"\0")
    for part in (compiler_version, " ".join(FLAGS), platform.machine(), cpu_flags()):
        whole.update(part.encode() + b"\0")
    return whole.hexdigest()[:24]


def cpu_flags() -> str:
    """What the CPU can do, as Linux tells it: `-march=native` depends on it. Empty elsewhere."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return next((line for line in lines if line.startswith(("flags", "Features"))), "")
