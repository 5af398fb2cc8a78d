"""How long work takes on a device, and how fast that device reads its memory."""

import statistics
import time
from collections.abc import Callable

import torch

CACHE_BYTES = 256 << 20
"""More than any GPU's cache: written before each measurement, so that work begins in memory."""
BUFFER_BYTES = 1 << 30
WARM_UP = 3
REPEATS = 20


class Clock:
    """Times on one device; on a CPU, only to try this code."""

    def __init__(self, device: torch.device, *, repeats: int = REPEATS) -> None:
        self._device = device
        self._repeats = repeats
        size = CACHE_BYTES if device.type == "cuda" else 0
        self._flushed = torch.empty(size, dtype=torch.int8, device=device)

    @property
    def is_cuda(self) -> bool:
        """Whether the device is a GPU."""
        return self._device.type == "cuda"

    def ms(self, work: Callable[[], object]) -> float:
        """Median milliseconds of `work`, which finds nothing in the caches."""
        return statistics.median(self._all_ms(work))

    def bandwidth(self, num_bytes: int = BUFFER_BYTES) -> float:
        """Bytes per second of the fastest sum over a buffer."""
        buffer = torch.ones(num_bytes // 4, device=self._device)
        return 1000 * num_bytes / min(self._all_ms(buffer.sum))

    def _all_ms(self, work: Callable[[], object]) -> list[float]:
        if not self.is_cuda:
            return [_cpu_ms(work) for _ in range(self._repeats)]
        return [self._cuda_ms(work) for _ in range(WARM_UP + self._repeats)][WARM_UP:]

    def _cuda_ms(self, work: Callable[[], object]) -> float:
        start, stop = (
            torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
            for _ in range(2)
        )
        self._flushed.zero_()
        start.record()
        work()
        stop.record()
        stop.synchronize()
        return float(start.elapsed_time(stop))


def _cpu_ms(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return 1000 * (time.perf_counter() - start)
