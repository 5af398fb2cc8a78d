"""Measures the GEMM floor: the time of a decode step's matrix products with the base weights.

A server on the same machine can be faster than the floor only if it computes fewer or smaller
matrix products.
"""

import json
import statistics
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import torch
import typer
from torch import nn
from transformers import AutoModelForCausalLM

WARM_UP_STEPS = 3
STEPS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Floor:
    """Duration and throughput of one decode step's GEMMs, computed in bf16 on all threads."""

    batch: int
    ms: float
    """Median duration of one step's GEMMs."""
    tokens_per_s: float


def measure_floor(model: nn.Module, batches: list[int]) -> list[Floor]:
    """Measure the GEMM floor for each batch size.

    Each measured step runs every linear layer of the model once. The input of a layer has shape
    `[batch, in_features]`.
    """
    linears = [module for module in model.modules() if isinstance(module, nn.Linear)]
    return [_floor(linears, batch) for batch in batches]


def _floor(linears: list[nn.Linear], batch: int) -> Floor:
    dtype = linears[0].weight.dtype
    widths = {linear.in_features for linear in linears}
    inputs = {width: torch.randn(batch, width, dtype=dtype) for width in widths}
    with torch.inference_mode():
        seconds = [_step(linears, inputs) for _ in range(WARM_UP_STEPS + STEPS)]
    median = statistics.median(seconds[WARM_UP_STEPS:])
    return Floor(batch=batch, ms=1000 * median, tokens_per_s=batch / median)


def _step(linears: list[nn.Linear], inputs: dict[int, torch.Tensor]) -> float:
    start = time.perf_counter()
    for linear in linears:
        linear(inputs[linear.in_features])
    return time.perf_counter() - start


def main(
    model: Annotated[Path, typer.Argument(help="Folder of the base model.")],
    batches: Annotated[
        list[int], typer.Option("--batch", metavar="N", help="Batch size; may be repeated.")
    ],
) -> None:
    """Print the floors of all batch sizes as one line of JSON."""
    loaded = AutoModelForCausalLM.from_pretrained(model, dtype=torch.bfloat16)
    print(json.dumps([asdict(floor) for floor in measure_floor(loaded, batches)]))


if __name__ == "__main__":
    typer.run(main)
