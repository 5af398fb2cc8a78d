"""Counts the GPUs that workers can use, without importing torch.

A child process asks the driver, because a process that has initialised CUDA keeps memory and open
devices.
"""

import ctypes
import importlib.util
import re
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

from shared.settings import WorkerSettings

DRIVER = "libcuda.so.1"
TIME_LIMIT_S = 60.0
"""Time limit in seconds for the driver's start, which takes seconds on a machine with many GPUs."""
_COUNT = f"""
import ctypes
driver, number = ctypes.CDLL({DRIVER!r}), ctypes.c_int()
error = driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(number))
if error not in (0, 100):  # 100: no GPU exists, or CUDA_VISIBLE_DEVICES hides all of them
    raise SystemExit(f"CUDA error {{error}}")
print(number.value)
"""
"""Program that prints the number of GPUs that the driver reports."""


@dataclass(frozen=True, slots=True)
class Gpus:
    """GPUs that workers can use, as `cuda:0` to `cuda:N-1`."""

    number: int
    per_worker: int = 1
    """Number of consecutive GPUs that each worker uses. Its device names the first one."""
    problem: str | None = None
    """The reason why GPUs of this machine can't be used. None if nothing is wrong."""
    absence: str | None = None
    """Reason why workers can't use `cuda` here.

    None if they can use it, or if only a worker's start can show whether they can.
    """


def usable_gpus(settings: WorkerSettings) -> Gpus:
    """Return the GPUs that the engine of `settings` can use, limited by CUDA_VISIBLE_DEVICES."""
    if settings.engine == "simulated":
        return Gpus(0)
    try:
        ctypes.CDLL(DRIVER)
    except OSError:
        gpus = Gpus(0)
    else:
        gpus = _counted_in_child()
    if settings.engine == "vllm":  # vLLM may have a torch of its own
        return replace(gpus, per_worker=settings.tensor_parallel * settings.pipeline_parallel)
    if version_in_torch("hip"):  # AMD's GPUs need no NVIDIA driver, and are also called cuda
        return gpus
    if not version_in_torch("cuda"):
        unused = "torch is installed without CUDA" if gpus.number else gpus.problem
        return Gpus(0, problem=unused, absence="this torch is built for CPUs alone")
    if not gpus.number:
        return replace(gpus, absence=gpus.problem or "no NVIDIA GPU can be used here")
    return gpus


def _counted_in_child() -> Gpus:
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-c", _COUNT],
            capture_output=True,
            text=True,
            timeout=TIME_LIMIT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Gpus(0, problem=f"the NVIDIA driver doesn't start within {TIME_LIMIT_S:g} s")
    if done.returncode == 0:
        return Gpus(int(done.stdout))
    reason = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
    return Gpus(0, problem=f"the NVIDIA driver fails: {reason[-1]}")


def version_in_torch(platform: str) -> str | None:
    """Return the version of cuda or hip that torch was built with; None if it was built without.

    The version is read from `torch/version.py`, because importing torch takes seconds.
    """
    found = importlib.util.find_spec("torch")
    if found is None or found.origin is None:
        return None
    text = Path(found.origin).with_name("version.py").read_text()
    built_with = re.search(rf"^{platform}\b.*=\s*['\"](.+)['\"]", text, re.MULTILINE)
    return built_with[1] if built_with else None
