"""`python -m ops.bench.probes.engine_process`: engine probes, each run in a separate process.

Each command prints its results as one line of JSON.
"""

import json
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ops.bench.probes.base_model import load_as_worker

if TYPE_CHECKING:
    from ops.bench.probes.engine import EngineProbe
    from ops.bench.probes.part_timers import PartTimers
    from worker.model.loader import LoadedModel

CONTEXT = 128
STEPS = 20
ROUNDS = 5
"""Number of rounds. Each round measures all variants.

A drift of the machine's speed therefore affects all variants alike.
"""

Model = Annotated[Path, typer.Argument(help="folder of the base model")]
Adapters = Annotated[Path, typer.Argument(help="folder with one folder for each adapter")]
Sizes = Annotated[list[int], typer.Option("--size", help="may be given repeatedly")]

app = typer.Typer(pretty_exceptions_enable=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """Median durations of a decode step of `batch` sequences."""

    batch: int
    base_ms: float
    """Duration for the base model."""
    adapters_ms: float
    """Duration with adapters. Each sequence has its own adapter if there are enough adapters."""
    lora_ms: float
    """Duration that the adapters add: the median over rounds of `adapters_ms - base_ms`."""
    lora_bytes: int
    """Total size of the weights of the batch's adapters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """Durations for one sequence with a context of `tokens` tokens."""

    tokens: int
    prefill_ms_per_token: float
    step_ms: float
    """Duration of a decode step.

    The sum of two medians over rounds: the duration at the shortest context, and the additional
    duration at this context.
    """
    kv_bytes: int
    """Size of the keys and values that a decode step reads."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """Mean durations of the parts of a decode step of `batch` sequences."""

    batch: int
    adapters: int
    """Number of distinct adapters. 0 means that all sequences use the base model."""
    step_ms: float
    layers_ms: float
    head_ms: float
    other_modules_ms: float
    """Duration of the rest of the forward pass: embeddings and the model's own code."""
    sampling_ms: float
    batch_ms: float
    """Duration of building the step's input tensors."""
    bookkeeping_ms: float
    """Duration of the rest of the step: scheduler, LoRA plan, and outputs."""


@app.command()
def steps(model: Model, adapters: Adapters, sizes: Sizes) -> None:
    """Measure decode steps for each batch size, alternating between base model and adapters."""
    probe = _probe(model, adapters, max_num_seqs=max(sizes))
    print(json.dumps([asdict(_step(probe, batch)) for batch in sizes]))


@app.command()
def lora(model: Model, adapters: Adapters, sizes: Sizes) -> None:
    """Measure the same decode steps as `steps`, and the memory bandwidth after each round."""
    probe = _probe(model, adapters, max_num_seqs=max(sizes))
    from ops.bench.bandwidth import measure_bandwidth

    bandwidths: list[float] = []
    found = [
        _step(probe, batch, after_round=lambda: bandwidths.append(measure_bandwidth()))
        for batch in sizes
    ]
    _print_with_bandwidth("steps", found, bandwidths)


@app.command()
def contexts(model: Model, sizes: Sizes) -> None:
    """Measure prefill and decode for each context length, and the memory bandwidth."""
    probe = _probe(model, None, max_num_seqs=1)
    from ops.bench.bandwidth import measure_bandwidth

    probe.prefill_s(CONTEXT)  # warm up
    sizes = sorted(sizes)
    prefill_ms = [1000 * probe.prefill_s(tokens) / tokens for tokens in sizes]
    rounds, bandwidths = [], []
    for _ in range(ROUNDS):
        rounds.append([_prefilled_ms(probe, tokens) for tokens in sizes])
        bandwidths.append(measure_bandwidth())
    shortest_ms = statistics.median(steps_ms[0] for steps_ms in rounds)
    found = [
        Context(
            tokens=tokens,
            prefill_ms_per_token=prefill_ms[n],
            step_ms=shortest_ms + statistics.median(ms[n] - ms[0] for ms in rounds),
            kv_bytes=tokens * probe.kv_bytes_per_token,
        )
        for n, tokens in enumerate(sizes)
    ]
    _print_with_bandwidth("contexts", found, bandwidths)


@app.command()
def parts(model: Model, adapters: Adapters, sizes: Sizes) -> None:
    """Measure the parts of a decode step for each batch size, without and with adapters."""
    loaded = load_as_worker(model)
    from ops.bench.probes.part_timers import PartTimers

    timers = PartTimers(loaded)
    probe = _probe_of(loaded, adapters, max_num_seqs=max(sizes))
    versions = [adapter.version for adapter in probe.adapters]
    found = [
        _parts(probe, timers, batch, used) for batch in sizes for used in ([], versions[:batch])
    ]
    print(json.dumps([asdict(one) for one in found]))


def _probe(model: Path, adapters: Path | None, *, max_num_seqs: int) -> "EngineProbe":
    return _probe_of(load_as_worker(model), adapters, max_num_seqs=max_num_seqs)


def _probe_of(loaded: "LoadedModel", adapters: Path | None, *, max_num_seqs: int) -> "EngineProbe":
    from ops.bench.probes.engine import EngineProbe

    folders = sorted(adapters.iterdir()) if adapters else []
    return EngineProbe(loaded, {f.name: f for f in folders}, max_num_seqs=max_num_seqs)


def _parts(probe: "EngineProbe", timers: "PartTimers", batch: int, versions: list[Any]) -> Parts:
    step_ms = 1000 * statistics.mean(probe.decode_s(batch, CONTEXT, versions or [None], STEPS))
    part_ms = timers.last_ms(STEPS)
    return Parts(
        batch=batch,
        adapters=len(versions),
        step_ms=step_ms,
        layers_ms=part_ms["layers"],
        head_ms=part_ms["head"],
        other_modules_ms=part_ms["model"] - part_ms["layers"] - part_ms["head"],
        sampling_ms=part_ms["sampling"],
        batch_ms=part_ms["batch"],
        bookkeeping_ms=step_ms - part_ms["model"] - part_ms["sampling"] - part_ms["batch"],
    )


def _print_with_bandwidth(
    name: str, rows: Sequence[Step | Context], bandwidths: Sequence[float]
) -> None:
    found = {name: [asdict(row) for row in rows], "bandwidth": statistics.median(bandwidths)}
    print(json.dumps(found))


def _step(
    probe: "EngineProbe", batch: int, *, after_round: Callable[[], None] = lambda: None
) -> Step:
    used = probe.adapters[:batch]
    versions = [adapter.version for adapter in used]
    rounds = []
    for _ in range(ROUNDS):
        base_ms = _decode_ms(probe, batch, [None])
        rounds.append((base_ms, _decode_ms(probe, batch, versions)))
        after_round()
    return Step(
        batch=batch,
        base_ms=statistics.median(base for base, _ in rounds),
        adapters_ms=statistics.median(adapters for _, adapters in rounds),
        lora_ms=statistics.median(adapters - base for base, adapters in rounds),
        lora_bytes=sum(adapter.num_bytes for adapter in used),
    )


def _decode_ms(probe: "EngineProbe", batch: int, versions: list[Any]) -> float:
    return 1000 * statistics.median(probe.decode_s(batch, CONTEXT, versions, STEPS))


def _prefilled_ms(probe: "EngineProbe", tokens: int) -> float:
    return 1000 * statistics.median(probe.decode_prefilled_s(tokens, STEPS))


if __name__ == "__main__":
    app()
