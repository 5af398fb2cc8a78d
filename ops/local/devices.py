"""Decides which device each worker of `lorikeet up` uses. Does no I/O."""

import re
from collections.abc import Sequence

from ops.local.gpus import Gpus
from shared.errors import SettingsError

AUTO = "auto"
_NAME = re.compile(r"[a-z]+(:\d+)?")


def devices_of_workers(
    devices: str | None, device: str, num_workers: int | None, gpus: Gpus
) -> list[str]:
    """Return the value of `--device` for each worker.

    `devices`, `device` and `num_workers` are the values of `--devices`, `--device` and
    `--workers`. By default each GPU gets a worker, or each group of GPUs if a worker needs several.
    Without GPUs, there is one worker, which chooses its device, since its `--device` is `auto`. Two
    workers share a GPU only if `devices` lists it twice.

    Raises:
        SettingsError: the flags contradict each other, or a device doesn't exist.
    """
    if devices is not None and device != AUTO:
        raise SettingsError(f"--devices {devices} and --device {device}: give one of them")
    listed = _listed(devices or device, gpus)
    number = len(listed) if num_workers is None else num_workers
    if number <= len(listed):
        return listed[:number]
    if len(set(listed)) == 1 and not is_gpu(listed[0]):
        return listed[:1] * number
    raise SettingsError(_too_many(listed, number))


def _listed(text: str, gpus: Gpus) -> list[str]:
    """Return the devices that `text` names, in order. A device may be listed several times."""
    if text in (AUTO, "all"):
        if text == "all" and not gpus.number:
            reason = f" ({gpus.problem})" if gpus.problem else ""
            raise SettingsError(f"--devices all: no GPU can be used here{reason}; use cpu instead")
        firsts = range(0, gpus.number - gpus.per_worker + 1, gpus.per_worker)
        if gpus.number and not firsts:
            _check_exists("cuda:0", gpus)
        return [f"cuda:{first}" for first in firsts] or [AUTO]
    names = text.split(",")
    if not all(_NAME.fullmatch(name) for name in names) or {AUTO, "all"} & set(names):
        raise SettingsError(f"--devices {text}: use all, cpu, or a list such as cuda:0,cuda:1")
    listed = ["cuda:0" if name == "cuda" else name for name in names]
    for name in listed:
        _check_exists(name, gpus)
    return listed


def _check_exists(name: str, gpus: Gpus) -> None:
    if not is_gpu(name):
        return
    if gpus.absence:
        raise SettingsError(f"--device {name}: {gpus.absence}; use --device cpu instead")
    if not gpus.number:  # the worker itself finds out whether torch can use the device
        return
    last = int(name.partition(":")[2]) + gpus.per_worker - 1
    if last >= gpus.number:
        needed = f" and the next {gpus.per_worker - 1}" if gpus.per_worker > 1 else ""
        raise SettingsError(
            f"--devices {name}: a worker needs this GPU{needed}, but the last one here is "
            f"cuda:{gpus.number - 1}; CUDA_VISIBLE_DEVICES may hide others"
        )


def is_gpu(name: str) -> bool:
    """Return whether a device is a GPU."""
    return name.startswith("cuda")


def _too_many(listed: Sequence[str], number: int) -> str:
    shared = ",".join(sorted(listed[index % len(listed)] for index in range(number)))
    return (
        f"--workers {number}: there are only {len(listed)} devices ({', '.join(listed)}), and a "
        f"GPU is made for one worker. To share GPUs, repeat them: --devices {shared}"
    )
