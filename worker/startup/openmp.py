"""Sets the number of OpenMP threads that each thread of a worker uses.

OpenMP counts the threads of all teams. If there are more threads than cores, the threads sleep
between two operations instead of spinning. A decode step then takes 1.5 times as long. Therefore
only the engine's thread has a team. All other threads that use torch compute on one core.
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

    If there are two threads and two cores, each thread is bound to its own core. Otherwise, while
    a loader thread runs on one core, Linux may move both threads to the other core. They may then
    stay there for most of a step.
    """
    set_threads(num_threads)
    if isinstance(kernels, NativeKernels):
        kernels.spread_threads()


def end_team() -> None:
    """End the calling thread's team of OpenMP threads.

    OpenMP starts a new team when the thread needs one.
    """
    pause = getattr(ctypes.CDLL(None), "omp_pause_resource_all", None)
    if pause is not None:
        pause(_OMP_PAUSE_SOFT)
