"""Summarises a load, and shows the summary in the terminal.

A summary has latencies, throughput and goodput. Goodput is the rate of answers that meet latency
limits.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rich.table import Table

from ops.load.answers import Answer
from ops.load.load import Load
from ops.terminal import table


@dataclass(frozen=True, slots=True, kw_only=True)
class Percentiles:
    """P50, P95 and P99 of one quantity. All three are NaN if there are no values.

    They are nearest-rank percentiles, so each of them is one of the measured values.
    """

    p50: float
    p95: float
    p99: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Slo:
    """Latency limits. Goodput is the rate of answers that meet both. None means no limit."""

    ttft_ms: float | None = None
    itl_ms: float | None = None
    """Limit for an answer's mean time between output tokens (also called TPOT), in ms."""

    def is_met_by(self, answer: Answer) -> bool:
        """Return whether a complete answer meets the limits."""
        ttft = _at_most(answer.text_s[0] - answer.sent_s, self.ttft_ms) if answer.text_s else True
        return ttft and _at_most(answer.mean_itl_s, self.itl_ms)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadReport:
    """Figures of one load. Failed requests appear only in `errors`."""

    load: Load
    answered: int
    errors: tuple[str, ...]
    """One error for each request that failed or returned the wrong number of tokens."""
    input_tokens: int
    output_tokens: int
    seconds: float
    """Time from sending the first request to the end of the last answer."""
    tokens_per_s: float
    """Output tokens per second."""
    requests_per_s: float
    ttft_s: Percentiles
    """Time from sending a request to its first text. NaN if no answer was streamed."""
    itl_s: Percentiles
    """Time between consecutive pieces of text of an answer. NaN if no answer was streamed."""
    e2e_s: Percentiles
    """Time from sending a request to the end of its answer."""
    slo: Slo | None = None
    goodput_per_s: float | None = None
    """Rate of answers that met the SLO, in answers per second. None if there is no SLO."""


def report(load: Load, answers: Sequence[Answer], slo: Slo | None = None) -> LoadReport:
    """Summarise the answers to a load.

    Failed requests are listed in `errors`. All other figures cover the answered requests. The load
    starts with its first request, even if that failed.
    """
    good = [answer for answer in answers if answer.error is None]
    streamed = [answer for answer in good if answer.text_s]
    tokens = sum(answer.output_tokens or 0 for answer in good)
    start = min((answer.sent_s for answer in answers), default=0.0)
    seconds = max((answer.end_s for answer in good), default=start) - start
    num_met = sum(slo.is_met_by(answer) for answer in good) if slo else 0
    return LoadReport(
        load=load,
        answered=len(good),
        errors=tuple(answer.error for answer in answers if answer.error is not None),
        input_tokens=sum(answer.input_tokens for answer in good),
        output_tokens=tokens,
        seconds=seconds,
        tokens_per_s=_per_s(tokens, seconds),
        requests_per_s=_per_s(len(good), seconds),
        ttft_s=percentiles([answer.text_s[0] - answer.sent_s for answer in streamed]),
        itl_s=percentiles([gap for answer in streamed for gap in answer.gaps_s]),
        e2e_s=percentiles([answer.end_s - answer.sent_s for answer in good]),
        slo=slo,
        goodput_per_s=_per_s(num_met, seconds) if slo else None,
    )


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the smallest value that is at least as large as `percent` % of `values`, or NaN."""
    if not values:
        return math.nan
    rank = math.ceil(percent / 100 * len(values))
    return sorted(values)[max(rank, 1) - 1]


def percentiles(values: Sequence[float]) -> Percentiles:
    """Return P50, P95 and P99 of `values`."""
    p50, p95, p99 = (percentile(values, percent) for percent in (50, 95, 99))
    return Percentiles(p50=p50, p95=p95, p99=p99)


def _per_s(number: int, seconds: float) -> float:
    return number / seconds if seconds else 0.0


def _at_most(seconds: float, limit_ms: float | None) -> bool:
    return limit_ms is None or 1000 * seconds <= limit_ms


def load_table(report: LoadReport) -> Table:
    """Return a table of latency percentiles in milliseconds."""
    columns = ("ms", "p50", "p95", "p99")
    shown = table(*columns, whole=columns)
    shown.add_row("time to first token", *_cells(report.ttft_s))
    shown.add_row("between tokens", *_cells(report.itl_s))
    shown.add_row("whole answer", *_cells(report.e2e_s))
    return shown


def load_lines(report: LoadReport) -> list[str]:
    """Return the summary lines with token counts, rates and goodput."""
    lines = [
        f"{report.answered} of {report.load.requests} requests answered in {report.seconds:.1f} s: "
        f"{report.requests_per_s:.2f} requests/s",
        f"{report.tokens_per_s:.1f} output tokens/s; {report.input_tokens:,} tokens in, "
        f"{report.output_tokens:,} out",
    ]
    if report.slo is not None and report.goodput_per_s is not None:
        lines.append(f"goodput {report.goodput_per_s:.2f} requests/s with {_limits(report.slo)}")
    return lines


def _cells(values: Percentiles) -> list[str]:
    return [
        "-" if math.isnan(value) else f"{1000 * value:,.1f}"
        for value in (values.p50, values.p95, values.p99)
    ]


def _limits(slo: Slo) -> str:
    named = {"TTFT": slo.ttft_ms, "ITL": slo.itl_ms}
    return " and ".join(f"{k} <= {v:g} ms" for k, v in named.items() if v is not None)
