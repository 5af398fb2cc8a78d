"""Measures the engine alone with one form of the base model's weights.

    python -m ops.bench.probes.int8.engine_process MODEL ADAPTERS bfloat16|int8 [KERNELS]

KERNELS is a folder with compiled kernels. By default they are compiled for this CPU.
The process prints its results as one line of JSON.
"""

import json
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

import psutil

from ops.bench.probes.base_model import load_as_worker
from ops.bench.probes.int8.forms import quantize_of
from worker.kernels.cpu import build

CONTEXT = 128
STEPS = 20
BATCHES = (1, 8, 32)
PREFILLS = 5
PREFILL_TOKENS = 512


def main() -> None:
    """Measure decode steps and prefill, and print the milliseconds of each and the memory."""
    model, adapters = map(Path, sys.argv[1:3])
    if sys.argv[4:]:
        build.PREBUILT = Path(sys.argv[4])
    loaded = load_as_worker(model, quantize=quantize_of(sys.argv[3]))
    rss_bytes = psutil.Process().memory_info().rss
    # This imports torch, which the loader does after it has set the process up.
    from ops.bench.probes.engine import EngineProbe

    folders = {path.name: path for path in sorted(adapters.iterdir())}
    probe = EngineProbe(loaded, folders, max_num_seqs=max(BATCHES))
    versions = [adapter.version for adapter in probe.adapters]
    probe.prefill_s(PREFILL_TOKENS)  # warm up

    ms = {}
    for batch in BATCHES:
        for kind, used in (("base", [None]), (f"{len(versions)} adapters", versions)):
            seconds = probe.decode_s(batch, CONTEXT, used, STEPS)
            ms[f"decode step of {batch}, {kind}"] = _median_ms(seconds)
    prefills = [probe.prefill_s(PREFILL_TOKENS) for _ in range(PREFILLS)]
    ms[f"prefill of {PREFILL_TOKENS} tokens"] = _median_ms(prefills)
    print(json.dumps({"ms": ms, "weight_bytes": loaded.weight_bytes, "rss_bytes": rss_bytes}))


def _median_ms(seconds: Sequence[float]) -> float:
    return 1000 * statistics.median(seconds)


if __name__ == "__main__":
    main()
