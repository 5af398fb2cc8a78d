"""Measures the speed of one build of the CPU kernels.

    python -m ops.bench.probes.prebuilt.process FOLDER MODEL ADAPTERS

FOLDER contains the compiled libraries of a wheel. If it is empty, the kernels are compiled with g++
for this machine. The process prints its results as one line of JSON.
"""

import json
import statistics
import sys
from pathlib import Path

from ops.bench.probes.base_model import load_as_worker
from worker.kernels.cpu import build

CONTEXT = 128
STEPS = 40
BATCHES = (1, 8, 32)
PREFILLS = 5
PREFILL_TOKENS = 512


def main() -> None:
    """Measure decode steps and prefill, and print the milliseconds of each."""
    folder, model, adapters = map(Path, sys.argv[1:])
    build.PREBUILT = folder
    loaded = load_as_worker(model)
    # These import torch, which the loader does after it has set the process up.
    from ops.bench.probes.engine import EngineProbe
    from worker.kernels.cpu.native import NativeKernels

    if not isinstance(loaded.kernels, NativeKernels):
        sys.exit(f"the {loaded.kernels.name} kernels were loaded, as the native ones don't compile")

    folders = {path.name: path for path in sorted(adapters.iterdir())}
    probe = EngineProbe(loaded, folders, max_num_seqs=max(BATCHES))
    versions = [adapter.version for adapter in probe.adapters]
    probe.prefill_s(PREFILL_TOKENS)  # warm up
    seconds = {
        f"decode step, {batch} sequences": probe.decode_s(batch, CONTEXT, versions, STEPS)
        for batch in BATCHES
    }
    prefills = [probe.prefill_s(PREFILL_TOKENS) for _ in range(PREFILLS)]
    seconds[f"prefill of {PREFILL_TOKENS} tokens"] = prefills
    print(json.dumps({name: 1000 * statistics.median(all_s) for name, all_s in seconds.items()}))


if __name__ == "__main__":
    main()
