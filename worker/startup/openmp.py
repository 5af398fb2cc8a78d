"""How many OpenMP threads each thread of a worker computes with.

OpenMP counts the threads of all teams. As soon as they are more than the cores, its threads sleep
rather than spin between two operations, and a decode step takes half as long again. So the
engine's thread has the one team, and whoever else uses torch computes alone.
"""

import ctypes

import torch

from worker.kernels.cpu.native import NativeKernels
from worker.kernels.interface import Kernels

_OMP_PAUSE_SOFT = 1
"""omp_pause_soft of omp.h."""


def set_threads(num_threads: int) -> None:
    """Let the calling thread compute with so many, whatever other threads set for themselves."""
    torch.get_num_threads()  # else the first operation takes what another thread set last
    torch.set_num_threads(num_threads)


def take_cores(num_threads: int, kernels: Kernels) -> None:
    """Let the calling thread compute with so many, and two of two cores on one each.

    While a thread that loads adapters runs for a moment, Linux may put both on the other core,
    where they wait for each other, and leave them there for most of a step.
    """
    set_threads(num_threads)
    if isinstance(kernels, NativeKernels):
        kernels.spread_threads()


def end_team() -> None:
    """End the calling thread's team; it starts another when it needs one."""
    pause = getattr(ctypes.CDLL(None), "omp_pause_resource_all", None)
    if pause is not None:
        pause(_OMP_PAUSE_SOFT)
