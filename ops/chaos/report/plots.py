"""Draws the plots of a report, as SVG that HTML can contain."""

import io
from collections.abc import Sequence
from statistics import median

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ops.chaos.report.run_report import KindReport, RunReport

SUBJECT_COLOURS = {
    "worker": "#c2410c",
    "front end": "#1d4ed8",
    "control": "#6d28d9",
    "Redis": "#b91c1c",
    "network": "#0f766e",
    "clients": "#64748b",
}
"""Colour of each subject of faults."""
INK, FAINT = "#1f2937", "#e5e7eb"
WIDTH_IN = 11.0
ROW_IN = 0.26
MARGIN_IN = 1.1
SHOWN = 2.0
"""Largest number of tokens per second that is shown, in multiples of the median."""


def timeline(report: RunReport) -> str:
    """Return a plot of the tokens per second, with all faults."""
    figure = Figure(figsize=(WIDTH_IN, 3.4), layout="constrained")
    axes = figure.subplots()
    axes.fill_between(
        range(len(report.tokens_per_s)), report.tokens_per_s, color="#94a3b8", linewidth=0
    )
    for fault in report.faults:
        colour = SUBJECT_COLOURS[fault.subject]
        axes.axvspan(
            fault.injected_s, fault.recovered_s or fault.healed_s, color=colour, alpha=0.25, lw=0
        )
        axes.axvline(fault.injected_s, color=colour, linewidth=0.8)
    for subject, colour in SUBJECT_COLOURS.items():
        if any(fault.subject == subject for fault in report.faults):
            axes.plot([], [], color=colour, linewidth=4, alpha=0.6, label=subject)
    if report.faults:
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, 1.16), ncols=6, frameon=False)
    axes.set(xlabel="seconds of load", ylabel="tokens received per second")
    axes.set_xlim(0, max(1, len(report.tokens_per_s) - 1))
    # After a fault, streams catch up within a second. These peaks would hide everything else.
    axes.set_ylim(0, max(1, SHOWN * median(report.tokens_per_s)))
    _style(axes)
    return _svg(figure)


def felt_times(kinds: Sequence[KindReport]) -> str:
    """Return a plot of how long each kind of fault was felt."""
    figure = Figure(figsize=(WIDTH_IN, MARGIN_IN + ROW_IN * len(kinds)), layout="constrained")
    axes = figure.subplots()
    rows = range(len(kinds))
    for row, kind in zip(rows, kinds, strict=True):
        if kind.felt_p50_s is None or kind.felt_p99_s is None:
            axes.text(0, row, " not felt", va="center", fontsize=8, color="#6b7280")
            continue
        colour = SUBJECT_COLOURS[kind.subject]
        axes.plot([kind.felt_p50_s, kind.felt_p99_s], [row, row], color=colour, linewidth=2)
        axes.plot(kind.felt_p50_s, row, "o", color=colour, markersize=6)
        axes.plot(kind.felt_p99_s, row, "|", color=colour, markersize=10, markeredgewidth=2)
    axes.set_yticks(rows, [kind.kind for kind in kinds])
    axes.invert_yaxis()
    axes.set_xlabel("seconds for which affected streams felt the fault: p50 (dot) to p99 (bar)")
    axes.set_xlim(left=0)
    _style(axes)
    axes.grid(axis="x", color=FAINT, linewidth=0.8)
    return _svg(figure)


def _style(axes: Axes) -> None:
    axes.set_axisbelow(True)
    axes.grid(axis="y", color=FAINT, linewidth=0.6)
    axes.tick_params(colors=INK, labelsize=9)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color("#9ca3af")


def _svg(figure: Figure) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]  # without the XML declaration
