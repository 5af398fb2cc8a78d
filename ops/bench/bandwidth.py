"""Measures memory bandwidth: the rate at which all cores together read uncached memory."""

import json
import time
from typing import Annotated

import torch
import typer

from worker.startup.process_tuning import use_huge_pages

BUFFER_BYTES = 1 << 30
PASSES = 10


def measure_bandwidth(num_bytes: int = BUFFER_BYTES, passes: int = PASSES) -> float:
    """Return the memory bandwidth in bytes per second, measured by the fastest of `passes` passes.

    Each pass sums a buffer of `num_bytes` bytes. The fastest pass is closest to the limit of the
    machine, because other processes can only slow a pass down.
    """
    buffer = torch.ones(num_bytes // 4)
    return num_bytes / min(_read_s(buffer) for _ in range(passes))


def _read_s(buffer: torch.Tensor) -> float:
    start = time.perf_counter()
    buffer.sum()
    return time.perf_counter() - start


def main(
    num_bytes: Annotated[int, typer.Option(help="Size of the buffer in bytes.")] = BUFFER_BYTES,
) -> None:
    """Print the bandwidth in bytes per second as one line of JSON."""
    use_huge_pages()  # as the worker does
    print(json.dumps(measure_bandwidth(num_bytes)))


if __name__ == "__main__":
    typer.run(main)
