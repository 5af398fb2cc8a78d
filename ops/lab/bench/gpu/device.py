"""Describes the device and the software that drives it."""

import importlib
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import torch

DRIVER_FILE = Path("/sys/module/nvidia/version")


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """A device, and the versions of what drives it. Unknown versions are "none"."""

    name: str
    memory_gib: float | None
    multiprocessors: int | None
    driver: str
    cuda: str
    torch: str
    triton: str


def describe_device(device: torch.device) -> Device:
    """Describe the device that is measured."""
    is_cuda = device.type == "cuda"
    properties = torch.cuda.get_device_properties(device) if is_cuda else None
    return Device(
        name=properties.name if properties else device.type,
        memory_gib=round(properties.total_memory / 2**30, 1) if properties else None,
        multiprocessors=properties.multi_processor_count if properties else None,
        driver=_driver() if is_cuda else "none",
        cuda=torch.version.cuda or "none",
        torch=str(torch.__version__),
        triton=_triton(),
    )


def _driver() -> str:
    """Return the version of NVIDIA's driver."""
    if DRIVER_FILE.exists():
        return DRIVER_FILE.read_text().strip()
    if shutil.which("nvidia-smi") is None:
        return "unknown"
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    return (found.stdout.splitlines() or ["unknown"])[0]


def _triton() -> str:
    try:
        return str(importlib.import_module("triton").__version__)
    except ImportError:  # torch for CPUs comes without it
        return "none"
