"""Shows what a load found on the terminal."""

import math

from rich.box import SIMPLE_HEAD
from rich.table import Table

from ops.bench.load.percentiles import Percentiles
from ops.bench.load.report import LoadReport, Slo


def load_table(found: LoadReport) -> Table:
    """Latencies in milliseconds."""
    shown = Table(box=SIMPLE_HEAD, pad_edge=False)
    shown.add_column("ms", no_wrap=True)
    for header in ("p50", "p95", "p99"):
        shown.add_column(header, justify="right", no_wrap=True)
    shown.add_row("time to first token", *_cells(found.ttft_s))
    shown.add_row("between tokens", *_cells(found.itl_s))
    shown.add_row("whole answer", *_cells(found.e2e_s))
    return shown


def load_lines(found: LoadReport) -> list[str]:
    """Counts and rates, a sentence each."""
    lines = [
        f"{found.answered} of {found.load.requests} requests answered in {found.seconds:.1f} s: "
        f"{found.requests_per_s:.2f} requests/s",
        f"{found.tokens_per_s:.1f} output tokens/s; {found.input_tokens:,} tokens in, "
        f"{found.output_tokens:,} out",
    ]
    if found.slo is not None and found.goodput_per_s is not None:
        lines.append(f"goodput {found.goodput_per_s:.2f} requests/s with {_limits(found.slo)}")
    return lines


def _cells(values: Percentiles) -> list[str]:
    return [
        "-" if math.isnan(value) else f"{1000 * value:,.1f}"
        for value in (values.p50, values.p95, values.p99)
    ]


def _limits(slo: Slo) -> str:
    named = {"TTFT": slo.ttft_ms, "ITL": slo.itl_ms}
    return " and ".join(f"{k} <= {v:g} ms" for k, v in named.items() if v is not None)
