"""Compiles the native kernels for this machine and loads them.

The name of the cached library is a digest of the sources, the compiler, the flags and the CPU.
Therefore a library that was built for another machine or from other sources is never loaded.
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
    """The native library cannot be compiled or loaded; the message gives the reason."""


def load_library(cache_folder: Path) -> ctypes.CDLL:
    """Load the native library from `cache_folder`, compiling it first if necessary.

    torch must be imported first, as the library uses torch's OpenMP threads.

    Raises:
        NotCompiled: no compiler is installed, the compiler failed, or the folder is not writable.
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
    """Return the library at `path`, or None if the file is missing or incomplete."""
    try:
        return ctypes.CDLL(str(path))
    except OSError:
        return None


def _compile(compiler: str, path: Path) -> ctypes.CDLL:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as work:
        objects: list[str] = []
        for source in sorted(SOURCES.rglob("*.cpp")):
            objects.append(f"{work}/{len(objects)}-{source.stem}.o")
            _run([compiler, *FLAGS, "-c", str(source), "-o", objects[-1]])
        # Linked without -fopenmp, the library uses the OpenMP runtime that torch has loaded, and
        # shares its threads.
        _run([compiler, "-shared", *objects, "-o", f"{work}/kernels.so"])
        os.replace(f"{work}/kernels.so", path)  # atomic, as other processes may compile it too
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
    digest = hashlib.sha256()
    for source in sorted(path for path in SOURCES.rglob("*") if path.is_file()):
        name = source.relative_to(SOURCES).as_posix()
        digest.update(name.encode() + b"\0" + source.read_bytes() + b"\0")
    for part in (compiler_version, " ".join(FLAGS), platform.machine(), cpu_flags()):
        digest.update(part.encode() + b"\0")
    return digest.hexdigest()[:24]


def cpu_flags() -> str:
    """Return the CPU's features, as listed in /proc/cpuinfo.

    With `-march=native`, the generated code depends on these features. The result is empty on
    systems other than Linux.
    """
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return next((line for line in lines if line.startswith(("flags", "Features"))), "")
