"""What one `make bench` found: every figure as measured, and the summary drawn from them."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ops.bench.floor import Floor
from ops.bench.load import LoadReport
from ops.bench.machine import Machine
from ops.bench.queue import QueueReport

Kind = Literal["base", "adapters"]
LABELS: dict[str, str] = {"base": "base", "adapters": "8 adapters"}
"""What each kind is called where people read it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """Who is asked by how many clients."""

    kind: Kind
    clients: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Repeat:
    """One round: the peer and Lorikeet right after each other, as the machine's speed drifts."""

    peft: dict[int, float]
    """Output tokens per second by batch size, adapters mixed."""
    lorikeet: tuple[tuple[Scenario, LoadReport], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """Everything that is written to the JSON file."""

    date: str
    machine: Machine
    model: str
    queue: QueueReport
    floor: tuple[Floor, ...]
    repeats: tuple[Repeat, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """One figure over all repeats."""

    median: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One scenario over all repeats."""

    scenario: Scenario
    tokens_per_s: Spread
    ttft_p50_s: Spread
    itl_p50_s: Spread
    peft_tokens_per_s: Spread | None
    """None for the base model, which isn't PEFT's work."""
    ratio: Spread | None
    """Ours / PEFT, of the two figures of the same repeat."""
    floor_tokens_per_s: float
    num_errors: int


def summarise(results: Results) -> list[Row]:
    """One row for each scenario, in the order in which they ran."""
    first = results.repeats[0].lorikeet
    return [_row(results, scenario) for scenario, _ in first]


def _row(results: Results, scenario: Scenario) -> Row:
    reports = [dict(repeat.lorikeet)[scenario] for repeat in results.repeats]
    ours = [report.tokens_per_s for report in reports]
    peft = [repeat.peft[scenario.clients] for repeat in results.repeats]
    floors = {floor.batch: floor.tokens_per_s for floor in results.floor}
    with_peft = scenario.kind == "adapters"
    return Row(
        scenario=scenario,
        tokens_per_s=_spread(ours),
        ttft_p50_s=_spread([report.ttft_s.p50 for report in reports]),
        itl_p50_s=_spread([report.itl_s.p50 for report in reports]),
        peft_tokens_per_s=_spread(peft) if with_peft else None,
        ratio=_spread([a / b for a, b in zip(ours, peft, strict=True)]) if with_peft else None,
        floor_tokens_per_s=floors[scenario.clients],
        num_errors=sum(len(report.errors) for report in reports),
    )


def _spread(values: Sequence[float]) -> Spread:
    return Spread(median=statistics.median(values), low=min(values), high=max(values))
