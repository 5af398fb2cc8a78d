"""Plots the share of right answers per task: a bar for the base model and a bar for the adapter."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from ops.demo.evaluate import Score

BASE, ADAPTER = "#b8b8b8", "#1b7f5c"
_WIDTH = 0.38


def write_plot(scores: Sequence[Score], path: Path) -> None:
    """Plot the scores to the PNG file `path`."""
    figure = Figure(figsize=(6.4, 3.0), dpi=120, layout="constrained")
    axes = figure.subplots()
    places = range(len(scores))
    for shift, colour, label, shares in (
        (-_WIDTH / 2, BASE, "base", [score.base_share for score in scores]),
        (_WIDTH / 2, ADAPTER, "adapter", [score.adapter_share for score in scores]),
    ):
        heights = [100 * share for share in shares]
        bars = axes.bar([x + shift for x in places], heights, _WIDTH, color=colour, label=label)
        axes.bar_label(bars, fmt="%.0f", padding=2, fontsize=8)
    axes.set_xticks(places, [f"{score.task}\n{len(score.answers)} held out" for score in scores])
    axes.set_ylabel("right answers, %")
    axes.set_ylim(0, 108)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False, fontsize=8)
    figure.savefig(path)
