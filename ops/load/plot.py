"""Plots the latency distributions of a load."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ops.load.answers import Answer
from ops.load.report import LoadReport, Slo

COLOUR = "#1b7f5c"


def plot_load(report: LoadReport, answers: Sequence[Answer], path: Path) -> None:
    """Plot the cumulative distributions of TTFT, ITL and total time to the PNG file `path`."""
    good = [answer for answer in answers if answer.error is None]
    streamed = [answer for answer in good if answer.text_s]
    slo = report.slo or Slo()
    figure = Figure(figsize=(9, 3.2), dpi=150, layout="constrained")
    ttft, itl, e2e = figure.subplots(1, 3, sharey=True)
    firsts = [answer.text_s[0] - answer.sent_s for answer in streamed]
    _distribution(ttft, "time to first token", firsts, slo.ttft_ms)
    gaps = [gap for answer in streamed for gap in answer.gaps_s]
    _distribution(itl, "between tokens", gaps, slo.itl_ms)
    _distribution(e2e, "whole answer", [answer.end_s - answer.sent_s for answer in good], None)
    ttft.set_ylabel("share within")
    figure.suptitle(
        f"{report.tokens_per_s:.1f} output tokens/s, {report.answered} answers", size=10
    )
    figure.savefig(path)


def _distribution(axes: Axes, title: str, seconds: list[float], limit_ms: float | None) -> None:
    axes.set_title(title, fontsize=9)
    axes.set_xlabel("ms")
    axes.spines[["top", "right"]].set_visible(False)
    if seconds:
        axes.ecdf([1000 * value for value in seconds], color=COLOUR)
    if limit_ms is not None:
        axes.axvline(limit_ms, color="#b04040", linewidth=1, linestyle="--")
