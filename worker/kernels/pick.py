"""Picks the kernels for a device and a dtype."""

from pathlib import Path

import structlog
import torch

from worker.kernels.cpu.build import NotCompiled
from worker.kernels.cpu.native import NativeKernels
from worker.kernels.interface import Kernels
from worker.kernels.reference import ReferenceKernels

log = structlog.get_logger()


def pick_kernels(device: torch.device, dtype: torch.dtype, cache_folder: Path) -> Kernels:
    """The fastest kernels that run here; a line in the log says if those aren't native ones."""
    if not NativeKernels.supports(device, dtype):
        return ReferenceKernels()
    try:
        return NativeKernels(dtype, cache_folder)
    except NotCompiled as error:
        log.warning("native_kernels_unavailable", reason=str(error), instead="torch, slower")
        return ReferenceKernels()
