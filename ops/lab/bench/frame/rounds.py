"""Measures variants in turn, and compares their figures round by round.

A machine's speed drifts, so each ratio compares two figures of the same round.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from ops.lab.bench.frame.finding import Chart, Finding

Figures = Mapping[str, float]
"""Figures of one variant in one round, by the figure's name.

A name ends with a unit, as in `base, tokens/s`.
"""
Round = Mapping[str, Figures]
"""Figures of all variants in one round, by the variant's name."""
Measure = Callable[[str], Figures]
"""Function that measures a variant once. Its argument is a seed for prompts, unique to the call."""

CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """Numbers of rounds, clients, requests, words and adapters of a measurement."""

    rounds: int = 10
    clients: int = 32
    requests: int = 64
    """Total number of requests that the clients send in one load."""
    words: int = 128
    """Number of words of a prompt, and number of tokens of an answer."""
    adapters: int = 8


QUICK = Sizes(rounds=1, clients=2, requests=4, words=8, adapters=2)
"""Sizes for a quick check that a measurement runs. The figures are meaningless."""


def measure_rounds(variants: Mapping[str, Measure], num_rounds: int) -> list[Round]:
    """Measure all variants in each round, and print each variant's figures.

    The order alternates, so that a drift of the machine's speed favours no variant.
    """
    rounds: list[Round] = []
    for number in range(num_rounds):
        found: dict[str, Figures] = {}
        for name in list(variants)[:: 1 if number % 2 == 0 else -1]:
            found[name] = variants[name](f"{number}/{name}")
            figures = "; ".join(f"{figure} {number_text(f)}" for figure, f in found[name].items())
            print(f"round {number + 1}, {name}: {figures}", flush=True)
        rounds.append({name: found[name] for name in variants})
    return rounds


def rounds_finding(
    name: str,
    rounds: Sequence[Round],
    sizes: Sizes,
    pairs: Sequence[tuple[str, str]],
    notes: Sequence[str] = (),
) -> Finding:
    """Return a finding with a line for each figure of each pair of variants.

    Args:
        name: name of the measurement.
        rounds: figures of all variants.
        sizes: sizes of the measurement.
        pairs: variants to compare, as the dividend and the divisor of a ratio. Figures and rounds
            that only one of the two variants has are left out.
        notes: further summary lines.
    """
    compared = list(_compared(rounds, pairs))
    lines = [one.line() for one in compared] + list(_alone(rounds, pairs))
    return Finding(
        name=name,
        figures={"sizes": sizes, "rounds": rounds},
        says=(*lines, *notes),
        chart=Chart(
            x="round",
            y="ratio",
            series={
                f"{one.figure}: {one.ours} / {one.theirs}": [
                    (number + 1, ratio) for number, ratio in enumerate(one.ratios)
                ]
                for one in compared
            },
        ),
    )


@dataclass(frozen=True, slots=True)
class _Compared:
    """Values of one figure for two variants, from the rounds in which both were measured."""

    figure: str
    ours: str
    theirs: str
    values: Sequence[tuple[float, float]]

    @property
    def ratios(self) -> list[float]:
        return [ours / theirs for ours, theirs in self.values]

    def line(self) -> str:
        ours, theirs = (number_text(median(values)) for values in zip(*self.values, strict=True))
        both = f"{self.ours} {ours}, {self.theirs} {theirs}"
        return f"{self.figure}: {both}; {ratio_text(self.ratios)}"


def _compared(rounds: Sequence[Round], pairs: Sequence[tuple[str, str]]) -> Iterator[_Compared]:
    for ours, theirs in pairs:
        both = [(one[ours], one[theirs]) for one in rounds if ours in one and theirs in one]
        for figure in dict.fromkeys(figure for mine, _ in both for figure in mine):
            values = [(a[figure], b[figure]) for a, b in both if figure in a and b.get(figure)]
            if values:
                yield _Compared(figure, ours, theirs, values)


def _alone(rounds: Sequence[Round], pairs: Sequence[tuple[str, str]]) -> Iterator[str]:
    """Yield a summary line for each figure that no pair of variants compares."""
    shown = {(v, one.figure) for one in _compared(rounds, pairs) for v in (one.ours, one.theirs)}
    for variant in dict.fromkeys(variant for one in rounds for variant in one):
        for figure in dict.fromkeys(f for one in rounds for f in one.get(variant, ())):
            if (variant, figure) not in shown:
                values = [one[variant][figure] for one in rounds if figure in one.get(variant, ())]
                yield f"{figure}: {variant} {number_text(median(values))}"


def number_text(value: float) -> str:
    """Return a number with about three digits."""
    return f"{value:,.{0 if value >= 1000 else 1 if value >= 10 else 2}f}"


def median_interval(values: Sequence[float]) -> tuple[float, float]:
    """Return a confidence interval of the median, of level `CONFIDENCE`, from order statistics.

    With fewer than six values the interval is unbounded. Each of n independent values is below the
    median with probability 1/2, so the number of values below it follows a binomial distribution
    (David and Nagaraja, Order Statistics, 7.1).
    """
    number, outside = len(values), 0
    below = 0.0
    while below + math.comb(number, outside) / 2**number <= (1 - CONFIDENCE) / 2:
        below += math.comb(number, outside) / 2**number
        outside += 1
    if outside == 0:
        return -math.inf, math.inf
    ordered = sorted(values)
    return ordered[outside - 1], ordered[-outside]


def ratio_text(ratios: Sequence[float]) -> str:
    """Return the median of ratios, its confidence interval, and whether the interval includes 1.

    If there are too few ratios for an interval, the text has the lowest and the highest ratio.
    """
    text = f"ratio {median(ratios):.3f}"
    low, high = median_interval(ratios)
    if math.isinf(low):
        return f"{text}, {min(ratios):.3f} to {max(ratios):.3f} in {len(ratios)} rounds"
    verdict = "includes 1" if low <= 1 <= high else "excludes 1"
    percent = f"{100 * CONFIDENCE:.0f} %"
    return f"{text}, {percent} interval {low:.3f} to {high:.3f} {verdict}"
