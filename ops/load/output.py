"""Formats a load's report for the terminal."""

import math

from rich.box import SIMPLE_HEAD
from rich.table import Table

from ops.load.report import LoadReport, Percentiles, Slo


def load_table(report: LoadReport) -> Table:
    """Return a table of latency percentiles in milliseconds."""
    shown = Table(box=SIMPLE_HEAD, pad_edge=False)
    shown.add_column("ms", no_wrap=True)
    for header in ("p50", "p95", "p99"):
        shown.add_column(header, justify="right", no_wrap=True)
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
