"""Finds out what this machine has. Nothing here imports torch."""

import os
import platform
import subprocess
import sys
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from ops.doctor.facts import Folder, Gpu, Machine, Problem
from ops.local.cores import usable_cores
from ops.local.gpus import version_in_torch
from shared.settings import WorkerSettings
from worker.engine_vllm.environment import FOLDER
from worker.kernels.cpu.build import NotCompiled, find_compiler
from worker.kernels.cpu.levels import cpu_flags
from worker.model.machine_memory import machine_memory
from worker.upstream.versions import (
    BoundedPackage,
    bounded_packages,
    install_command,
    untested_packages,
)

_INSTRUCTION_SETS = {
    "AVX2": {"avx2"},
    "AVX-512": {"avx512f"},
    "VNNI": {"avx512_vnni", "avx_vnni"},
    "BF16": {"avx512_bf16"},
    "AMX": {"amx_bf16"},
    "NEON": {"asimd"},
}
"""CPU flags by instruction set. A CPU has a set if it has any of the set's flags."""
_PACKAGES = (
    *("fastapi", "uvicorn", "prometheus_client"),
    *("accelerate", "huggingface_hub", "jinja2", "llguidance", "numpy", "peft", "safetensors"),
    *("tokenizers", "transformers"),
)
"""Import names of the packages that front end and worker need. torch is reported separately."""
_SMI = ["nvidia-smi", "--query-gpu=name,memory.total,memory.free", "--format=csv,noheader,nounits"]
_SMI_TIMEOUT_S = 10
MIB = 1 << 20


def machine_facts(settings: WorkerSettings | None, folders: tuple[Folder, ...]) -> Machine:
    """Return facts about this machine. `settings` is None if the settings are invalid."""
    memory = machine_memory()
    flags = cpu_flags()
    return Machine(
        cpu=_cpu_model(),
        cores=usable_cores(),
        instruction_sets=tuple(n for n, any_of in _INSTRUCTION_SETS.items() if any_of & flags),
        memory=memory.total,
        free_memory=memory.free,
        gpus=tuple(_gpus()),
        compiler=_compiler(),
        python=f"{platform.python_version()} ({sys.executable})",
        torch=_version("torch"),
        cuda=version_in_torch("cuda"),
        has_triton=find_spec("triton") is not None,
        vllm=_vllm(settings),
        folders=folders,
        missing_packages=tuple(name for name in _PACKAGES if find_spec(name) is None),
        versions=tuple(f"{e.name} {e.installed}" for e in bounded_packages() if e.installed),
        untested=_untested(untested_packages()),
    )


def folder_facts(purpose: str, path: Path, *, setting: str, least_free: int) -> Folder:
    """Return facts about a folder that needs `least_free` bytes of free space.

    The folder may not exist yet.
    """
    existing = next(folder for folder in (path, *path.parents) if folder.exists())
    free, problem = None, None
    if not existing.is_dir():
        problem = f"{path} can't be created, because {existing} is a file"
    elif not os.access(existing, os.W_OK | os.X_OK):
        problem = f"{path} can't be written by this user"
    else:
        status = os.statvfs(existing)
        free = status.f_bavail * status.f_frsize
        if free < least_free:
            problem = f"{path} has {free // MIB} MiB free, and {least_free // MIB} MiB are needed"
    fix = f"make room, or set {setting} to another folder"
    return Folder(
        purpose=purpose,
        path=str(path),
        free=free,
        problem=Problem(problem, fix) if problem else None,
    )


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _gpus() -> Iterator[Gpu]:
    try:
        done = subprocess.run(
            _SMI, capture_output=True, text=True, timeout=_SMI_TIMEOUT_S, check=True
        )
    except (OSError, subprocess.SubprocessError):  # no NVIDIA driver, or one that doesn't work
        return
    for line in done.stdout.splitlines():
        name, total, free = (part.strip() for part in line.rsplit(",", 2))
        if total.isdigit() and free.isdigit():  # some GPUs share the machine's memory
            yield Gpu(name=name, total=int(total) * MIB, free=int(free) * MIB)


def _untested(packages: Sequence[BoundedPackage]) -> Problem | None:
    if not packages:
        return None
    return Problem(", ".join(map(str, packages)), f"run {install_command(packages)}")


def _compiler() -> str | None:
    try:
        return find_compiler()
    except NotCompiled:
        return None


def _version(package: str) -> str | None:
    try:
        return version(package) if find_spec(package) else None
    except PackageNotFoundError:
        return None


def _vllm(settings: WorkerSettings | None) -> str | None:
    if find_spec("vllm") is not None:
        return sys.executable
    given = settings.vllm_python if settings else None
    python = given or Path(sys.prefix).parent / FOLDER / "bin" / "python"
    return str(python) if os.access(python, os.X_OK) else None
