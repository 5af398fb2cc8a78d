"""Measures how long work takes on a device, and the device's memory bandwidth."""

import statistics
import time
from collections.abc import Callable

import torch

CACHE_BYTES = 256 << 20
"""Number of bytes written before each measurement to evict other data from the GPU's cache."""
BUFFER_BYTES = 1 << 30
"""Size in bytes of the buffer that bandwidth measurements read."""
WARM_UP = 3
"""Number of warm-up runs before the measured runs."""
REPEATS = 20
"""Default number of measured runs."""


class Clock:
    """Timer for one device. CPUs are supported so that the benchmark can be tried without a GPU."""

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
        """Return the median duration of `work` in milliseconds.

        Each run starts with a cold GPU cache.
        """
        return statistics.median(self._all_ms(work))

    def wall_ms(self, work: Callable[[], object]) -> float:
        """Return the median time in ms from the start of `work` to its end on the device."""
        return self._median_ms(work, waits=True)

    def host_ms(self, work: Callable[[], object]) -> float:
        """Return the median time in ms until `work` returns.

        The device may still be computing when it returns.
        """
        return self._median_ms(work, waits=False)

    def bandwidth(self, num_bytes: int = BUFFER_BYTES) -> float:
        """Return the memory bandwidth in bytes per second, from the fastest of several passes.

        Each pass sums a buffer of `num_bytes` bytes.
        """
        buffer = torch.ones(num_bytes // 4, device=self._device)
        return 1000 * num_bytes / min(self._all_ms(buffer.sum))

    def wait(self) -> None:
        """Wait until the device has finished all work."""
        if self.is_cuda:
            torch.cuda.synchronize(self._device)

    def _median_ms(self, work: Callable[[], object], *, waits: bool) -> float:
        num_warm_ups = WARM_UP if self.is_cuda else 0
        durations = []
        for _ in range(num_warm_ups + self._repeats):
            self.wait()
            start = time.perf_counter()
            work()
            if waits:
                self.wait()
            durations.append(1000 * (time.perf_counter() - start))
        self.wait()
        return statistics.median(durations[num_warm_ups:])

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
