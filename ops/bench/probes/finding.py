"""Finding: the result of a probe, with figures, summary lines and a plot.

A probe is a measurement of one property of Lorikeet.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ops.bench.json_files import write_json
from ops.bench.machine import this_machine

Points = Sequence[tuple[float, float]]

LETTER = 0.062
"""Mean width of a letter of the title, in inches."""
LINE = 0.16
"""Height of a line of the title, in inches."""
MOST_INSIDE = 5
"""Maximum number of series whose legend is inside of the axes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """A plot of several series of points. The y axis starts at 0."""

    x: str
    y: str
    series: Mapping[str, Points]
    joined: bool = True
    """Whether lines connect the points of each series."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Figures, summary lines and plot of one probe."""

    name: str
    figures: Any
    """Value of `figures` in the JSON file. Consists of dataclasses or containers of dataclasses."""
    says: tuple[str, ...]
    """Summary lines for the terminal and for the plot's title."""
    chart: Chart
    further_charts: tuple[Chart, ...] = ()
    """Charts to the right of `chart` in the same plot."""


def write_finding(finding: Finding, model: str, folder: Path) -> tuple[Path, Path]:
    """Write the JSON file and the plot, and return their paths.

    The file names contain the date, the commit and the name of the probe.
    """
    machine, date = this_machine(), datetime.now(UTC).isoformat(timespec="seconds")
    stem = f"{date[:10]}-{machine.commit}-{finding.name}"
    data, plot = folder / f"{stem}.json", folder / f"{stem}.png"
    head = {"date": date, "machine": asdict(machine), "model": model}
    write_json({**head, "says": finding.says, "figures": finding.figures}, data)
    charts = (finding.chart, *finding.further_charts)
    write_charts(charts, title="\n".join(finding.says), path=plot)
    return data, plot


def write_charts(charts: Sequence[Chart], *, title: str, path: Path) -> None:
    """Draw the charts side by side into the PNG file `path`, below the lines of `title`."""
    lines = title.splitlines()
    width = max(7 if len(charts) == 1 else 5 * len(charts), LETTER * max(map(len, lines)))
    size = (width, 4 + LINE * len(lines))
    figure = Figure(figsize=size, dpi=150, layout="constrained")
    for axes, chart in zip(figure.subplots(1, len(charts), squeeze=False)[0], charts, strict=True):
        _draw(axes, chart)
    figure.suptitle(title, fontsize=8)
    figure.savefig(path)


def _draw(axes: Axes, chart: Chart) -> None:
    for label, points in chart.series.items():
        x, y = [point[0] for point in points], [point[1] for point in points]
        axes.plot(x, y, marker=".", linestyle="-" if chart.joined else "none", label=label)
    axes.set_xlabel(chart.x)
    axes.set_ylabel(chart.y)
    axes.set_ylim(bottom=0)
    axes.spines[["top", "right"]].set_visible(False)
    if all(point[0] == int(point[0]) for points in chart.series.values() for point in points):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if len(chart.series) > MOST_INSIDE:
        axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    else:
        axes.legend(frameon=False, fontsize=8)
