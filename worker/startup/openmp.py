"""Sets the number of OpenMP threads that each thread of a worker uses.

OpenMP counts the threads of all teams. If there are more of them than cores, threads sleep instead
of spinning between two operations, and a decode step takes 1.5 times as long. Therefore only the
engine's thread has a team, and all other threads that use torch compute on one core.
"""

import ctypes

import torch

from worker.kernels.cpu.native import NativeKernels
from worker.kernels.interface import Kernels

_OMP_PAUSE_SOFT = 1
"""Value of `omp_pause_soft` in omp.h."""


def set_threads(num_threads: int) -> None:
    """Let the calling thread compute with `num_threads` threads. Other threads are unaffected."""
    torch.get_num_threads()  # else the first operation uses the number that another thread set last
    torch.set_num_threads(num_threads)


def take_cores(num_threads: int, kernels: Kernels) -> None:
    """Let the calling thread compute with `num_threads` OpenMP threads.

    On two cores, each of two threads is bound to a core of its own. Without binding, Linux may move
    both threads to one core while a loader thread runs on the other core, and leave them there for
    most of a step.
    """
    set_threads(num_threads)
    if isinstance(kernels, NativeKernels):
        kernels.spread_threads()


def end_team() -> None:
    """End the calling thread's team. OpenMP starts another one when it is needed."""
    pause = getattr(ctypes.CDLL(None), "omp_pause_resource_all", None)
    if pause is not None:
        pause(_OMP_PAUSE_SOFT)
