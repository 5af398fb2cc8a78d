"""Loads the native kernels: a library that the package contains, or one compiled for this machine.

A wheel contains libraries for several levels of CPUs (`levels.py`). A source checkout contains
none, so the kernels are compiled there. `LORIKEET_CPU_LEVEL` forces one level in both cases. The
name of a compiled library is a digest of the sources, the compiler, the flags and the CPU.
Therefore a library that was built for another machine or from other sources is never loaded.
"""

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from worker.kernels.cpu.levels import cpu_flags, forced_level, usable_levels

SOURCES = Path(__file__).parent / "src"
PREBUILT = Path(__file__).parent / "prebuilt"
"""Folder of the compiled libraries in a wheel."""
NATIVE = "-march=native"
FLAGS = ["-O3", "-std=c++17", "-fPIC", "-fopenmp"]
FLAGS += ["-fno-math-errno", "-ffp-contract=fast", "-Wall", "-Wextra", "-Wno-psabi"]
TIMEOUT_S = 120


OnCompiled = Callable[[int, int], None]
"""Function that is called with the number of compiled files, and the number of all files."""


def ignore(_: int, __: int) -> None:
    """Do nothing. This function can be passed as an `OnCompiled`."""


class NotCompiled(Exception):
    """The native library cannot be compiled or loaded; the message gives the reason."""


def load_library(cache_folder: Path, on_compiled: OnCompiled = ignore) -> ctypes.CDLL:
    """Load the package's library for this CPU, or else compile one into `cache_folder`.

    torch must be imported first, as the library uses torch's OpenMP threads. `on_compiled` is
    called before the first file is compiled, and after each one.

    Raises:
        NotCompiled: the package has no library for this CPU, and none can be compiled: no compiler
            is installed, the compiler failed, or the folder is not writable.
        LevelUnavailable: this CPU can't run the forced level.
    """
    loaded = (_load(path) for path in prebuilt_libraries())
    return next(filter(None, loaded), None) or _load_compiled(cache_folder, on_compiled)


def prebuilt_libraries() -> list[Path]:
    """Return the package's libraries for this CPU, the fastest first. Raises LevelUnavailable."""
    forced = forced_level(cpu_flags())
    levels = [forced] if forced else usable_levels(cpu_flags())
    paths = [PREBUILT / f"{level.name}.so" for level in levels]
    return [path for path in paths if path.is_file()]


def find_compiler() -> str:
    """Return the path of a C++ compiler. Raises NotCompiled if there is none on PATH."""
    compiler = shutil.which("g++") or shutil.which("c++")
    if compiler is None:
        raise NotCompiled(
            "the package has no compiled kernels for this CPU, and there is no C++ compiler (g++) "
            "on PATH"
        )
    return compiler


def compile_library(
    compiler: str, cpu: Sequence[str], path: Path, on_compiled: OnCompiled = ignore
) -> None:
    """Compile the kernels into `path`. `cpu` are the flags that permit the CPU's instructions.

    `on_compiled` is called as described in `load_library`.

    Raises:
        NotCompiled: the compiler failed.
        OSError: the folder of `path` is not writable.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as work:
        objects: list[str] = []
        sources = sorted(SOURCES.rglob("*.cpp"))
        on_compiled(0, len(sources))
        for source in sources:
            objects.append(f"{work}/{len(objects)}-{source.stem}.o")
            _run([compiler, *cpu, *FLAGS, "-c", str(source), "-o", objects[-1]])
            on_compiled(len(objects), len(sources))
        # Linked without -fopenmp, the library uses the OpenMP runtime that torch has loaded, and
        # shares its threads.
        _run([compiler, "-shared", *objects, "-o", f"{work}/kernels.so"])
        os.replace(f"{work}/kernels.so", path)  # atomic, as other processes may compile it too


def _load_compiled(cache_folder: Path, on_compiled: OnCompiled) -> ctypes.CDLL:
    forced = forced_level(cpu_flags())
    cpu = forced.compiler_flags if forced else (NATIVE,)
    try:
        compiler = find_compiler()
        path = cache_folder / "kernels" / f"{_key(_run([compiler, '--version']), cpu)}.so"
        library = _load(path)
        if library is None:
            compile_library(compiler, cpu, path, on_compiled)
            library = ctypes.CDLL(str(path))
    except OSError as error:
        raise NotCompiled(str(error)) from error
    return library


def _load(path: Path) -> ctypes.CDLL | None:
    """Return the library at `path`, or None if the file is missing or incomplete."""
    try:
        return ctypes.CDLL(str(path))
    except OSError:
        return None


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


def _key(compiler_version: str, cpu: Sequence[str]) -> str:
    digest = hashlib.sha256()
    for source in sorted(path for path in SOURCES.rglob("*") if path.is_file()):
        name = source.relative_to(SOURCES).as_posix()
        digest.update(name.encode() + b"\0" + source.read_bytes() + b"\0")
    flags = " ".join([*cpu, *FLAGS])
    for part in (compiler_version, flags, platform.machine(), " ".join(sorted(cpu_flags()))):
        digest.update(part.encode() + b"\0")
    return digest.hexdigest()[:24]
