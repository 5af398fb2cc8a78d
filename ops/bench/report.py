"""Shows results: a table on the terminal, a JSON file and a plot for the repository."""

from dataclasses import asdict
from pathlib import Path

import orjson
from rich.box import SIMPLE_HEAD
from rich.table import Table

from ops.bench.plot import write_plot
from ops.bench.results import LABELS, Results, Row, Spread, summarise


def table(results: Results) -> Table:
    """All scenarios: medians, with the spread below them where there are several rounds."""
    machine = results.machine
    shown = Table(
        box=SIMPLE_HEAD,
        collapse_padding=True,
        pad_edge=False,
        title=f"{results.model} on {machine.cpu}, {machine.cores} cores, {machine.commit}",
        caption="output tokens per second; PEFT: as many sequences as clients, in one batch",
    )
    shown.add_column("served", no_wrap=True)
    for header in ("clients", "Lorikeet", "PEFT", "ratio", "GEMM\nfloor", "TTFT\np50", "ITL\np50"):
        shown.add_column(header, justify="right", no_wrap=True)
    shown.add_column("errors", justify="right", style="red")
    for row in summarise(results):
        shown.add_row(*_cells(row))
    return shown


def queue_line(results: Results) -> str:
    """The queue bench in one sentence."""
    queue = results.queue
    return (
        f"queue: enqueue to claim {queue.claim_p50_ms:.2f} ms at p50, {queue.claim_p99_ms:.2f} ms "
        f"at p99; {queue.jobs_per_s:,.0f} jobs/s, {queue.redis_us_per_job:.0f} us of Redis a job"
    )


def write_results(results: Results, folder: Path) -> tuple[Path, Path]:
    """Write the JSON file and the plot, named by date and commit; returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    stem = f"{results.date[:10]}-{results.machine.commit}"
    rows = summarise(results)
    body = {"summary": rows, **asdict(results)}
    data, plot = folder / f"{stem}.json", folder / f"{stem}.png"
    data.write_bytes(orjson.dumps(body, option=orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS))
    write_plot(rows, title=f"{results.model}, {results.machine.cpu}", path=plot)
    return data, plot


def _cells(row: Row) -> list[str]:
    return [
        LABELS[row.scenario.kind],
        str(row.scenario.clients),
        _number(row.tokens_per_s),
        _number(row.peft_tokens_per_s) if row.peft_tokens_per_s else "",
        _number(row.ratio, digits=2) if row.ratio else "",
        f"{row.floor_tokens_per_s:.0f}",
        f"{row.ttft_p50_s.median:.2f} s",
        f"{1000 * row.itl_p50_s.median:.0f} ms",
        str(row.num_errors or ""),
    ]


def _number(spread: Spread, *, digits: int = 0) -> str:
    text = f"{spread.median:.{digits}f}"
    if spread.low == spread.high:
        return text
    return f"{text}\n{spread.low:.{digits}f}-{spread.high:.{digits}f}"
