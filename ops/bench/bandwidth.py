"""Memory bandwidth: how fast all cores together read what is in no cache."""

import json
import time
from typing import Annotated

import torch
import typer

from worker.startup.huge_pages import use_huge_pages

BUFFER_BYTES = 1 << 30
PASSES = 10


def measure_bandwidth(num_bytes: int = BUFFER_BYTES, passes: int = PASSES) -> float:
    """Bytes per second of the fastest of `passes` sums over a buffer of `num_bytes`.

    The fastest, as this is what the machine can do: whoever else read meanwhile only took away.
    """
    buffer = torch.ones(num_bytes // 4)
    return num_bytes / min(_read_s(buffer) for _ in range(passes))


def _read_s(buffer: torch.Tensor) -> float:
    start = time.perf_counter()
    buffer.sum()
    return time.perf_counter() - start


def main(
    num_bytes: Annotated[int, typer.Option(help="size of the buffer")] = BUFFER_BYTES,
) -> None:
    """Print bytes per second, as one line of JSON."""
    use_huge_pages()  # as the worker does
    print(json.dumps(measure_bandwidth(num_bytes)))


if __name__ == "__main__":
    typer.run(main)
