"""Finding: the result of a measurement, with figures, summary lines and a plot."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ops.json_files import write_json
from ops.lab.machine import this_machine

Points = Sequence[tuple[float, float]]

LETTER = 0.062
"""Mean width of a letter of the title, in inches."""
LINE = 0.16
"""Height of a line of the title, in inches."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """A plot of several series of points. The y axis starts at 0."""

    x: str
    y: str
    series: Mapping[str, Points]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Figures, summary lines and plot of one measurement."""

    name: str
    figures: Any
    """Value of `figures` in the JSON file: dataclasses, or containers of dataclasses."""
    says: tuple[str, ...]
    """Summary lines for the terminal and for the plot's title."""
    chart: Chart


def write_finding(finding: Finding, model: str, folder: Path) -> tuple[Path, Path]:
    """Write the JSON file and the plot, and return their paths.

    The file names contain the date, the commit and the name of the measurement.
    """
    machine, date = this_machine(), datetime.now(UTC).isoformat(timespec="seconds")
    stem = f"{date[:10]}-{machine.commit}-{finding.name}"
    data, plot = folder / f"{stem}.json", folder / f"{stem}.png"
    head = {"date": date, "machine": asdict(machine), "model": model}
    write_json({**head, "says": finding.says, "figures": finding.figures}, data)
    _plot(finding.chart, "\n".join(finding.says), plot)
    return data, plot


def _plot(chart: Chart, title: str, path: Path) -> None:
    """Draw the chart into the PNG file `path`, below the lines of `title`."""
    lines = title.splitlines()
    size = (max(7, LETTER * max(map(len, lines))), 4 + LINE * len(lines))
    figure = Figure(figsize=size, dpi=150, layout="constrained")
    axes = figure.subplots()
    for label, points in chart.series.items():
        axes.plot(*zip(*points, strict=True), marker=".", label=label)
    axes.set_xlabel(chart.x)
    axes.set_ylabel(chart.y)
    axes.set_ylim(bottom=0)
    axes.spines[["top", "right"]].set_visible(False)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if chart.series:
        axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    figure.suptitle(title, fontsize=8)
    figure.savefig(path)
