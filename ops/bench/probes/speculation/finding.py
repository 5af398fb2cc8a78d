"""Probe: speed with and without forced tokens and prompt lookup."""

import statistics
from collections.abc import Sequence
from pathlib import Path

from ops.bench.measurement_process import run_module
from ops.bench.order_statistics import ratio_text
from ops.bench.probes.finding import Chart, Finding
from ops.bench.probes.speculation.process import Rates

PROCESS = "probes.speculation.process"


def measure_speculation(
    model: Path, streams: Sequence[int], *, pairs: int, prompts: int, max_tokens: int
) -> list[Rates]:
    """Measure all workloads in one process, in interleaved pairs.

    Args:
        model: folder of the demo model.
        streams: numbers of requests that run at a time.
        pairs: number of pairs for each workload and number of streams.
        prompts: number of different prompts of a workload.
        max_tokens: maximum number of tokens of an answer.
    """
    numbers = {"--pairs": pairs, "--prompts": prompts, "--max-tokens": max_tokens}
    arguments = [f"{flag}={number}" for flag, number in numbers.items()]
    arguments += [f"--streams={number}" for number in streams]
    return [Rates(**rates) for rates in run_module(PROCESS, str(model), *arguments)]


def speculation_finding(found: Sequence[Rates]) -> Finding:
    """Return a finding with one line for each workload and number of streams."""
    series = {
        f"{rates.workload}, {rates.streams}": [
            (number + 1, ratio) for number, ratio in enumerate(_ratios(rates))
        ]
        for rates in found
    }
    return Finding(
        name="speculation",
        figures=found,
        says=tuple(map(_line, found)),
        chart=Chart(x="pair", y="speed with / without speculation", series=series),
    )


def _ratios(rates: Rates) -> list[float]:
    pairs = zip(rates.speculating, rates.plain, strict=True)
    return [speculating / plain for speculating, plain in pairs]


def _line(rates: Rates) -> str:
    same = "equal answers" if not rates.num_different else f"{rates.num_different} answers differ"
    return (
        f"{rates.workload}, {rates.streams} at a time: "
        f"{statistics.median(rates.plain):.1f} tokens/s without, "
        f"{statistics.median(rates.speculating):.1f} with; {ratio_text(_ratios(rates))}; "
        f"{rates.forced_share:.0%} forced, {rates.accepted_share:.0%} accepted "
        f"({rates.acceptance:.0%} of the drafts), {same}"
    )
