"""Runs the demo's tasks on two engines in turn. Only one of the engines speculates.

    python -m ops.lab.bench.engine.speculating MODEL ROUNDS STREAMS PROMPTS MAX_TOKENS

The process prints its rounds as one line of JSON.
"""

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from ops.demo.tasks import ADAPTERS
from ops.lab.bench.engine.base_model import load_as_worker
from ops.lab.bench.engine.workloads import Workload, workloads
from ops.lab.bench.frame.measurement_process import MeasurementFailed
from ops.lab.bench.frame.rounds import Figures, measure_rounds

if TYPE_CHECKING:
    from shared.protocol.ids import AdapterVersion
    from worker.engine.interface import EngineStats
    from worker.model.loader import LoadedModel

USED = ("extract", "sql")


class _Side:
    """One engine with its own copy of the model and the adapters."""

    def __init__(self, loaded: "LoadedModel", *, max_num_seqs: int, speculates: bool) -> None:
        from worker.engine.config import EngineConfig
        from worker.engine.engine import NativeEngine
        from worker.lora.checkpoint.adapter import read_checkpoint
        from worker.lora.checkpoint.adapter_files import AdapterFiles

        config = EngineConfig(
            max_num_seqs=max_num_seqs,
            kv_cache_bytes=1 << 29,
            adapter_bytes=1 << 28,
            caches_prefixes=False,  # prompts are computed in each round
            forces_tokens=speculates,
            looks_up_tokens=speculates,
        )
        self.engine = NativeEngine(loaded, config)
        self.versions: dict[str, AdapterVersion] = {}
        self._stop_ids = frozenset(loaded.eos_ids)
        for name in USED:
            files = AdapterFiles(ADAPTERS / name)
            adapter = read_checkpoint(name, files, self.engine.base, dtype=loaded.dtype)
            self.engine.add_adapter(adapter)
            self.versions[name] = adapter.version

    def figures(self, work: dict[str, Workload], streams: tuple[int, ...]) -> Figures:
        """Answer each workload with each number of concurrent requests in `streams`.

        Return the output tokens per second, and the percentages of forced and of accepted tokens.
        """
        figures: dict[str, float] = {}
        for name, workload in work.items():
            for number in streams:
                before = self.engine.stats()
                label = f"{name}, {number} at a time"
                figures[f"{label}, tokens/s"] = self._tokens_per_s(workload, number)
                shares = _shares(before, self.engine.stats())
                figures |= {f"{label}, {share}": value for share, value in shares.items()}
        return figures

    def _tokens_per_s(self, workload: Workload, streams: int) -> float:
        number = max(streams, len(workload.prompts))
        requests = list(workload.requests(number, self.versions, self._stop_ids))
        waiting, start = list(reversed(requests)), time.perf_counter()
        num_running = 0
        while waiting or self.engine.has_work:
            while waiting and num_running < streams:
                self.engine.add(waiting.pop())
                num_running += 1
            for output in self.engine.step():
                if output.error:
                    raise MeasurementFailed(f"the engine reported: {output.error.message}")
                num_running -= output.finish is not None
        seconds = time.perf_counter() - start
        return sum(len(request.output_ids) for request in requests) / seconds


def _shares(before: "EngineStats", after: "EngineStats") -> Figures:
    """Return the percentages of forced and of accepted tokens between two readings of the stats.

    Percentages of 0 are left out.
    """
    num_tokens = after.num_tokens - before.num_tokens
    counts = {
        "forced, %": after.num_forced_tokens - before.num_forced_tokens,
        "accepted, %": after.num_accepted_tokens - before.num_accepted_tokens,
    }
    return {name: 100 * count / num_tokens for name, count in counts.items() if count}


def main(model: Path, rounds: int, streams: int, prompts: int, max_tokens: int) -> None:
    """Run each workload on both engines in turn, with one and with `streams` requests at once."""
    first = load_as_worker(model)
    from worker.model.loader import load_model

    second = load_model(str(model), dtype="bfloat16", device="cpu")
    sides = {
        "speculating": _Side(second, max_num_seqs=streams, speculates=True),
        "plain": _Side(first, max_num_seqs=streams, speculates=False),
    }
    work, numbers = workloads(first, prompts, max_tokens), (1, streams)
    for side in sides.values():
        side.figures(work, (streams,))  # warm up
    variants = {
        name: lambda _, side=side: side.figures(work, numbers) for name, side in sides.items()
    }
    print(json.dumps(measure_rounds(variants, rounds)))


if __name__ == "__main__":
    typer.run(main)
