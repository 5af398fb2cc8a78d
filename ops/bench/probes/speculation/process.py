"""`python -m ops.bench.probes.speculation.process`: two engines, one of which speculates.

The process prints its results as one line of JSON.
"""

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ops.bench.measurement_process import MeasurementFailed
from ops.bench.probes.base_model import load_as_worker
from ops.bench.probes.speculation.tasks import Workload, workloads
from ops.demo.tasks import ADAPTERS

if TYPE_CHECKING:
    from shared.protocol.ids import AdapterVersion
    from worker.engine.interface import EngineStats
    from worker.model.loader import LoadedModel

USED = ("extract", "sql")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """Speed of both engines for one workload and number of streams, in pairs."""

    workload: str
    streams: int
    plain: list[float]
    """Tokens per second without forced tokens and prompt lookup."""
    speculating: list[float]
    """Tokens per second with both."""
    forced_share: float
    """Share of the output tokens that were forced."""
    accepted_share: float
    """Share of the output tokens that were accepted draft tokens."""
    acceptance: float
    """Share of the draft tokens that were accepted."""
    num_different: int
    """Number of answers that differed between the engines."""


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
            caches_prefixes=False,  # prompts are computed in each pair
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

    def run(self, workload: Workload, streams: int) -> tuple[float, list[list[int]]]:
        """Answer requests, `streams` at a time, and return tokens per second and the answers."""
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
        answers = [request.output_ids for request in requests]
        return sum(map(len, answers)) / seconds, answers


def main(
    model: Annotated[Path, typer.Argument(help="folder of the base model")],
    streams: Annotated[list[int], typer.Option(help="may be given repeatedly")],
    pairs: Annotated[int, typer.Option(help="interleaved pairs")],
    prompts: Annotated[int, typer.Option(help="prompts of each workload")],
    max_tokens: Annotated[int, typer.Option(help="most tokens of an answer")],
) -> None:
    """Answer each workload with both engines in turn."""
    first = load_as_worker(model)
    from worker.model.loader import load_model

    second = load_model(str(model), dtype="bfloat16", device="cpu")
    plain = _Side(first, max_num_seqs=max(streams), speculates=False)
    speculating = _Side(second, max_num_seqs=max(streams), speculates=True)
    found = []
    for name, workload in workloads(first, prompts, max_tokens).items():
        for number in streams:
            found.append(_measure(name, workload, number, plain, speculating, pairs))
            print(f"{name}, {number} streams: done", file=sys.stderr)
    print(json.dumps([asdict(rates) for rates in found]))


def _measure(
    name: str, workload: Workload, streams: int, plain: _Side, speculating: _Side, pairs: int
) -> Rates:
    for side in (plain, speculating):
        side.run(workload, streams)  # warm up
    before = speculating.engine.stats()
    rates: dict[bool, list[float]] = {False: [], True: []}
    num_different = 0
    for pair in range(pairs):
        # The order alternates, so that a drift of the machine's speed favours neither engine.
        sides = [(False, plain), (True, speculating)][:: 1 if pair % 2 == 0 else -1]
        answers = {}
        for speculates, side in sides:
            rate, answers[speculates] = side.run(workload, streams)
            rates[speculates].append(rate)
        num_different += _num_different(answers[False], answers[True])
    forced, accepted, acceptance = _shares(before, speculating.engine.stats())
    return Rates(
        workload=name,
        streams=streams,
        plain=rates[False],
        speculating=rates[True],
        forced_share=forced,
        accepted_share=accepted,
        acceptance=acceptance,
        num_different=num_different,
    )


def _num_different(first: Sequence[list[int]], second: Sequence[list[int]]) -> int:
    return sum(one != other for one, other in zip(first, second, strict=True))


def _shares(before: "EngineStats", after: "EngineStats") -> tuple[float, float, float]:
    """Return the shares of forced and of accepted tokens, and the share of accepted drafts."""
    num_tokens = after.num_tokens - before.num_tokens
    num_accepted = after.num_accepted_tokens - before.num_accepted_tokens
    num_drafted = after.num_drafted_tokens - before.num_drafted_tokens
    num_forced = after.num_forced_tokens - before.num_forced_tokens
    return num_forced / num_tokens, num_accepted / num_tokens, num_accepted / max(1, num_drafted)


if __name__ == "__main__":
    typer.run(main)
