"""Summarises the throughput beside busy loops."""

import statistics
from collections.abc import Sequence
from pathlib import Path

from ops.bench.order_statistics import ratio_text
from ops.bench.probes.finding import Chart, Finding
from ops.bench.probes.neighbour.rounds import (
    MEASUREMENTS,
    OTHER_SESSION,
    SAME_SESSION,
    UNDISTURBED,
    Round,
    Sizes,
)

AUTOGROUP = Path("/proc/sys/kernel/sched_autogroup_enabled")


def is_autogroup_on(setting: Path = AUTOGROUP) -> bool:
    """Return whether the kernel's autogroup feature is on. A kernel without it has no `setting`."""
    return setting.exists() and setting.read_text().strip() == "1"


def neighbour_finding(
    found: Sequence[Round], sizes: Sizes, num_adapters: int, *, autogroup: bool
) -> Finding:
    """Return a finding that compares each session of the busy loop with the undisturbed pool."""
    undisturbed = statistics.median(one.tokens_per_s[UNDISTURBED] for one in found)
    series = {
        name: [(number + 1, one.tokens_per_s[name]) for number, one in enumerate(found)]
        for name in MEASUREMENTS
    }
    return Finding(
        name="neighbour",
        figures={"sizes": sizes, "autogroup": autogroup, "rounds": found},
        says=(
            f"{num_adapters} adapters, {sizes.clients} clients, undisturbed: "
            f"{undisturbed:.1f} tokens/s",
            _line("the same session", SAME_SESSION, found),
            _line("another session", OTHER_SESSION, found),
            f"the loop got {_share(SAME_SESSION, found)} and {_share(OTHER_SESSION, found)} of its "
            f"core; the kernel's autogroup feature is {'on' if autogroup else 'off'}",
        ),
        chart=Chart(x="round", y="output tokens per second", series=series),
    )


def _line(session: str, name: str, found: Sequence[Round]) -> str:
    speed = statistics.median(one.tokens_per_s[name] for one in found)
    ratios = [one.tokens_per_s[name] / one.tokens_per_s[UNDISTURBED] for one in found]
    return f"busy loop in {session}: {speed:.1f} tokens/s; {ratio_text(ratios)}"


def _share(name: str, found: Sequence[Round]) -> str:
    return f"{statistics.median(one.core_share[name] for one in found):.0%}"
