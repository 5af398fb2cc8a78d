"""Writes results as a table for the terminal, a JSON file and a plot."""

from dataclasses import asdict
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.table import Table

from ops.bench.compare.plot import write_plot
from ops.bench.compare.results import LABELS, Peer, Results, Row, Spread, summarise
from ops.bench.json_files import write_json

WIDTH = 110
"""Minimum table width in characters. A table with all peers and with ranges fits into it."""
CAPTION = "output tokens per second with C clients; PEFT: C sequences in one batch, offline"


def table(results: Results) -> Table:
    """Return a table of each scenario's medians.

    With several rounds, the table also shows ranges.
    """
    rows = summarise(results)
    with_vllm = any(row.vllm for row in rows)
    shown = Table(
        box=SIMPLE_HEAD,
        collapse_padding=True,
        pad_edge=False,
        title=f"{results.model} on {_machine(results)}",
        caption=CAPTION,
    )
    shown.add_column("served", no_wrap=True)
    for header in ("C", "Lorikeet", "PEFT", "ratio", *(["vLLM", "ratio"] * with_vllm)):
        shown.add_column(header, justify="right", no_wrap=True)
    for header in ("GEMM\nfloor", "TTFT\np50", "ITL\np50"):
        shown.add_column(header, justify="right", no_wrap=True)
    shown.add_column("errors", justify="right", style="red")
    for row in rows:
        shown.add_row(*_cells(row, with_vllm=with_vllm))
    return shown


def lines(results: Results) -> list[str]:
    """Return the summary lines to print below the table."""
    rows = summarise(results)
    queue = results.queue
    return [
        *(_tax_line(row) for row in rows if row.lora_tax),
        *(_ttft_line(row) for row in rows if row.vllm),
        f"memory: {results.bandwidth_bytes_per_s / 1e9:.1f} GB/s read by all cores",
        f"queue: enqueue to claim {queue.claim_p50_ms:.2f} ms at p50, {queue.claim_p99_ms:.2f} ms "
        f"at p99; {queue.jobs_per_s:,.0f} jobs/s, {queue.redis_us_per_job:.0f} us of Redis per job",
    ]


def write_results(results: Results, folder: Path) -> tuple[Path, Path]:
    """Write the JSON file and the plot, and return their paths.

    The file names contain the date and the commit.
    """
    stem = f"{results.date[:10]}-{results.machine.commit}"
    rows = summarise(results)
    data, plot = folder / f"{stem}.json", folder / f"{stem}.png"
    write_json({"summary": rows, **asdict(results)}, data)
    write_plot(rows, title=f"{results.model}, {results.machine.cpu}", path=plot)
    return data, plot


def _machine(results: Results) -> str:
    machine = results.machine
    return f"{machine.cpu}, {machine.cores} cores, {machine.commit}"


def _cells(row: Row, *, with_vllm: bool) -> list[str]:
    return [
        LABELS[row.scenario.kind],
        str(row.scenario.clients),
        _number(row.tokens_per_s),
        *_peer(row.peft),
        *(_peer(row.vllm) if with_vllm else []),
        f"{row.floor_tokens_per_s:.0f}",
        f"{row.ttft_p50_s.median:.2f} s",
        f"{1000 * row.itl_p50_s.median:.0f} ms",
        str(row.num_errors or ""),
    ]


def _peer(peer: Peer | None) -> list[str]:
    return [_number(peer.tokens_per_s), _number(peer.ratio, digits=2)] if peer else ["", ""]


def _tax_line(row: Row) -> str:
    assert row.lora_tax
    tax = _number(_percent(row.lora_tax)).replace("\n", " %, ")
    return f"LoRA tax of {LABELS[row.scenario.kind]} at {row.scenario.clients} clients: {tax} %"


def _ttft_line(row: Row) -> str:
    assert row.vllm
    assert row.vllm.ttft_p50_s
    assert row.vllm.ttft_ratio
    return (
        f"TTFT p50 of vLLM, {LABELS[row.scenario.kind]}, {row.scenario.clients} clients: "
        f"{row.vllm.ttft_p50_s.median:.2f} s, {row.vllm.ttft_ratio.median:.1f} x Lorikeet's"
    )


def _percent(share: Spread) -> Spread:
    return Spread(median=100 * share.median, low=100 * share.low, high=100 * share.high)


def _number(spread: Spread, *, digits: int = 0) -> str:
    text = f"{spread.median:.{digits}f}"
    if spread.low == spread.high:
        return text
    return f"{text}\n{spread.low:.{digits}f}-{spread.high:.{digits}f}"
