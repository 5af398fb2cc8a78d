"""Measures the engine alone, in a process of its own.

    python -m ops.lab.bench.engine.process MODEL ADAPTERS [--quantize int8] [--kernels FOLDER]

Kernels are taken from FOLDER if it has any for this CPU, and are otherwise compiled with g++. The
process prints its figures as one line of JSON.
"""

import json
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import psutil
import typer

from ops.lab.bench.engine.base_model import load_as_worker
from worker.kernels.cpu import build

CONTEXT = 128
STEPS = 40
BATCHES = (1, 8, 32)
PREFILLS = 5
PREFILL_TOKENS = 512
MIB = 1 << 20


def main(
    model: Annotated[Path, typer.Argument(help="folder of the base model")],
    adapters: Annotated[Path, typer.Argument(help="folder with one folder for each adapter")],
    quantize: Annotated[str, typer.Option(help="int8, or nothing for bfloat16")] = "",
    kernels: Annotated[Path | None, typer.Option(help="folder of compiled kernels")] = None,
) -> None:
    """Measure decode steps, prefill and memory."""
    if kernels:
        build.PREBUILT = kernels
    loaded = load_as_worker(model, quantize="int8" if quantize == "int8" else None)
    rss_bytes = psutil.Process().memory_info().rss
    # Imported here, because they import torch, which must follow the loader's setup.
    from ops.lab.bench.engine.probe import EngineProbe
    from worker.kernels.cpu.native import NativeKernels

    if not isinstance(loaded.kernels, NativeKernels):
        sys.exit(f"the {loaded.kernels.name} kernels were loaded, as the native ones don't compile")
    folders = {path.name: path for path in sorted(adapters.iterdir())}
    probe = EngineProbe(loaded, folders, max_num_seqs=max(BATCHES))
    versions = [adapter.version for adapter in probe.adapters]
    probe.prefill_s(PREFILL_TOKENS)  # warm up
    figures = {}
    for batch in BATCHES:
        for kind, used in (("base", [None]), (f"{len(versions)} adapters", versions)):
            seconds = probe.decode_s(batch, CONTEXT, used, STEPS)
            figures[f"decode step of {batch}, {kind}, ms"] = _median_ms(seconds)
    prefills = [probe.prefill_s(PREFILL_TOKENS) for _ in range(PREFILLS)]
    figures[f"prefill of {PREFILL_TOKENS} tokens, ms"] = _median_ms(prefills)
    figures["weights, MiB"] = loaded.weight_bytes / MIB
    figures["resident memory of the engine's process, MiB"] = rss_bytes / MIB
    print(json.dumps(figures))


def _median_ms(seconds: Sequence[float]) -> float:
    return 1000 * statistics.median(seconds)


if __name__ == "__main__":
    typer.run(main)
