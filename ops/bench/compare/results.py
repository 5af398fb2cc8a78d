"""Results of one `make bench` run: all measured figures, and a summary of each scenario."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from ops.bench.compare.floor import Floor
from ops.bench.compare.queue_latency import QueueReport
from ops.bench.load.report import LoadReport
from ops.bench.machine import Machine

Kind = Literal["base", "adapters"]
LABELS: dict[str, str] = {"base": "base", "adapters": "8 adapters"}
"""Label of each scenario kind in tables and plots."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """A workload: the kind of models that requests use, and the number of concurrent clients."""

    kind: Kind
    clients: int


Loads = tuple[tuple[Scenario, LoadReport], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Repeat:
    """Results of one round, which measures Lorikeet and its peers in direct succession.

    Ratios between figures of the same round stay valid even if the machine's speed drifts between
    rounds.
    """

    peft: dict[int, float]
    """Maps each batch size to PEFT's output tokens per second with mixed adapters."""
    lorikeet: Loads
    vllm: Loads = ()
    """Reports of the loads sent to vLLM. Empty if vLLM isn't measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """All results of a run, as written to the JSON file."""

    date: str
    machine: Machine
    model: str
    queue: QueueReport
    bandwidth_bytes_per_s: float
    """Rate at which all cores together read memory."""
    floor: tuple[Floor, ...]
    repeats: tuple[Repeat, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """Median, minimum and maximum of one figure over all repeats."""

    median: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """Figures of a peer (PEFT or vLLM) in one scenario, with ratios to Lorikeet's figures."""

    tokens_per_s: Spread
    ratio: Spread
    """Lorikeet's tokens per second divided by the peer's, computed within each repeat."""
    ttft_p50_s: Spread | None = None
    """The peer's median time to first token. None for PEFT, which doesn't stream."""
    ttft_ratio: Spread | None = None
    """The peer's median TTFT divided by Lorikeet's, computed within each repeat. None for PEFT."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """Summary of one scenario over all repeats."""

    scenario: Scenario
    tokens_per_s: Spread
    ttft_p50_s: Spread
    itl_p50_s: Spread
    lora_tax: Spread | None
    """Relative loss of throughput with adapters: 1 - (adapter tokens/s) / (base tokens/s).

    The loss is computed within each repeat, at the same number of clients. None for the base model.
    """
    peft: Peer | None
    """Comparison with PEFT. None for the base model: PEFT is measured only with adapters."""
    vllm: Peer | None
    """Comparison with vLLM. None if vLLM wasn't measured."""
    floor_tokens_per_s: float
    num_errors: int


def spread(values: Sequence[float]) -> Spread:
    """Return the median, minimum and maximum of `values`, which must not be empty."""
    return Spread(median=statistics.median(values), low=min(values), high=max(values))


def summarise(results: Results) -> list[Row]:
    """Return one row per scenario, in the order of measurement."""
    first = results.repeats[0].lorikeet
    return [_row(results, scenario) for scenario, _ in first]


def _row(results: Results, scenario: Scenario) -> Row:
    reports = [dict(repeat.lorikeet)[scenario] for repeat in results.repeats]
    floors = {floor.batch: floor.tokens_per_s for floor in results.floor}
    is_adapters = scenario.kind == "adapters"
    peers = [load for repeat in results.repeats for s, load in repeat.vllm if s == scenario]
    return Row(
        scenario=scenario,
        tokens_per_s=spread([report.tokens_per_s for report in reports]),
        ttft_p50_s=spread([report.ttft_s.p50 for report in reports]),
        itl_p50_s=spread([report.itl_s.p50 for report in reports]),
        lora_tax=_lora_tax(results, scenario) if is_adapters else None,
        peft=_peft(results, scenario, reports) if is_adapters else None,
        vllm=_vllm(reports, peers) if peers else None,
        floor_tokens_per_s=floors[scenario.clients],
        num_errors=sum(len(report.errors) for report in [*reports, *peers]),
    )


def _lora_tax(results: Results, scenario: Scenario) -> Spread:
    base = Scenario(kind="base", clients=scenario.clients)
    rounds = [dict(repeat.lorikeet) for repeat in results.repeats]
    return spread([1 - _ratio(r[scenario].tokens_per_s, r[base].tokens_per_s) for r in rounds])


def _peft(results: Results, scenario: Scenario, ours: Sequence[LoadReport]) -> Peer:
    theirs = [repeat.peft[scenario.clients] for repeat in results.repeats]
    ratios = [_ratio(a.tokens_per_s, b) for a, b in zip(ours, theirs, strict=True)]
    return Peer(tokens_per_s=spread(theirs), ratio=spread(ratios))


def _vllm(ours: Sequence[LoadReport], theirs: Sequence[LoadReport]) -> Peer:
    def ratios(of: Callable[[LoadReport, LoadReport], float]) -> Spread:
        return spread([of(a, b) for a, b in zip(ours, theirs, strict=True)])

    return Peer(
        tokens_per_s=spread([load.tokens_per_s for load in theirs]),
        ratio=ratios(lambda a, b: _ratio(a.tokens_per_s, b.tokens_per_s)),
        ttft_p50_s=spread([load.ttft_s.p50 for load in theirs]),
        ttft_ratio=ratios(lambda a, b: _ratio(b.ttft_s.p50, a.ttft_s.p50)),
    )


def _ratio(a: float, b: float) -> float:
    """Return a / b, or NaN if b is 0. The throughput of a load without answers is 0."""
    return a / b if b else float("nan")
