"""Plots output tokens per second as bars, with one panel per number of clients."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ops.bench.compare.results import LABELS, Row, Spread

COLOURS = {
    "base": "#7fb7be",
    "adapters": "#1b7f5c",
    "PEFT": "#b8b8b8",
    "vLLM base": "#f0d8a8",
    "vLLM adapters": "#d9a441",
    "GEMM floor": "#e4e4e4",
}


def write_plot(rows: Sequence[Row], *, title: str, path: Path) -> None:
    """Draw the rows into the PNG file `path`. Whiskers show the lowest and the highest repeat."""
    figure = Figure(figsize=(11, 3.6), dpi=150, layout="constrained")
    clients = sorted({row.scenario.clients for row in rows})
    panels = figure.subplots(1, len(clients), squeeze=False)[0]
    for axes, number in zip(panels, clients, strict=True):
        _panel(axes, number, _bars([row for row in rows if row.scenario.clients == number]))
    panels[0].set_ylabel("output tokens per second")
    figure.suptitle(title, fontsize=10)
    figure.savefig(path)


def _bars(rows: Sequence[Row]) -> dict[str, Spread]:
    """Return the bars of one panel from left to right, as a mapping from label to throughput."""
    shown: dict[str, Spread] = {row.scenario.kind: row.tokens_per_s for row in rows}
    for row in rows:
        if row.peft:
            shown["PEFT"] = row.peft.tokens_per_s
    for row in rows:
        if row.vllm:
            shown[f"vLLM {row.scenario.kind}"] = row.vllm.tokens_per_s
    floor = rows[0].floor_tokens_per_s
    return {**shown, "GEMM floor": Spread(median=floor, low=floor, high=floor)}


def _panel(axes: Axes, clients: int, bars: dict[str, Spread]) -> None:
    spreads = list(bars.values())
    medians = [spread.median for spread in spreads]
    whiskers = [[s.median - s.low for s in spreads], [s.high - s.median for s in spreads]]
    labels = [LABELS.get(name, name).replace(" ", "\n") for name in bars]
    drawn = axes.bar(labels, medians, yerr=whiskers, color=[COLOURS[name] for name in bars])
    axes.bar_label(drawn, fmt="%.0f", padding=2, fontsize=8)
    axes.tick_params(axis="x", labelsize=7)
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(y=0.12)
    axes.set_title(f"{clients} client{'s' if clients > 1 else ''}", fontsize=9)
