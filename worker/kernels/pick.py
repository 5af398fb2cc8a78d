"""Selects the kernels for a device and a dtype."""

from pathlib import Path

import torch

from worker.kernels.cpu.build import NotCompiled, OnCompiled, ignore
from worker.kernels.cpu.native import NativeKernels
from worker.kernels.interface import Kernels
from worker.kernels.reference import ReferenceKernels


def pick_kernels(
    device: torch.device,
    dtype: torch.dtype,
    cache_folder: Path,
    on_compiled: OnCompiled = ignore,
) -> Kernels:
    """Return the fastest kernels that run on `device` with `dtype`.

    `on_compiled` is called with the numbers of compiled files and of all files, if the native
    kernels must be compiled.

    If the Triton kernels cannot be used on a GPU, or the native kernels cannot be compiled on this
    machine, log a warning with the reason and return the torch kernels.
    """
    if device.type == "cuda":
        return _triton_kernels(device, dtype)
    if NativeKernels.supports(device, dtype):
        return _native_kernels(dtype, cache_folder, on_compiled)
    return ReferenceKernels()


def _native_kernels(dtype: torch.dtype, cache_folder: Path, on_compiled: OnCompiled) -> Kernels:
    try:
        return NativeKernels(dtype, cache_folder, on_compiled)
    except NotCompiled as error:
        return _torch_instead("native_kernels_unavailable", error)


def _triton_kernels(device: torch.device, dtype: torch.dtype) -> Kernels:
    try:
        from worker.kernels.triton.check import NotUsable, usable_kernels
    except ImportError as error:  # torch's CUDA wheels depend on Triton; other builds may not
        return _torch_instead("triton_kernels_unavailable", error)
    try:
        return usable_kernels(device, dtype)
    except NotUsable as error:
        return _torch_instead("triton_kernels_unavailable", error)


def _torch_instead(event: str, error: Exception) -> Kernels:
    # Imported here, so that the GPU benchmark needs only torch and its companions.
    import structlog

    structlog.get_logger().warning(event, reason=str(error), instead="torch, slower")
    return ReferenceKernels()
