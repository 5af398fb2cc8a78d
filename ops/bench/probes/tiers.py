"""Probes: slowdown of decode steps during adapter loads, and memory as adapters are replaced."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from ops.bench.measurement_process import run_module
from ops.bench.probes.finding import Chart, Finding, Points
from ops.bench.probes.tier_process import LoadingSteps, Turnover

PROCESS = "probes.tier_process"
MIB = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Budgets:
    """Memory budgets for adapters, in MiB."""

    device_mb: int
    host_mb: int


def measure_loading(
    model: Path, adapters: Sequence[Path], large: Path, clients: int, rounds: int
) -> Finding:
    """Measure decode steps of `clients` sequences while the adapter `large` is repeatedly loaded.

    The sequences use `adapters` round-robin.
    """
    folders = [str(folder) for folder in (model, large, *adapters)]
    flags = [f"--clients={clients}", f"--rounds={rounds}"]
    return loading_finding(LoadingSteps(**run_module(PROCESS, "loading", *folders, *flags)))


def measure_turnover(
    model: Path, adapters: Sequence[Path], loads: int, budgets: Budgets
) -> Finding:
    """Measure memory use while adapters are loaded one after another.

    The number of loads is `loads`. The adapters are read from the folders `adapters` in turn.
    """
    flags = [f"--{n}={v}" for n, v in (("loads", loads), ("device-mb", budgets.device_mb),
                                       ("host-mb", budgets.host_mb))]  # fmt: skip
    found = run_module(PROCESS, "turnover", str(model), *map(str, adapters), *flags)
    return turnover_finding([Turnover(**sample) for sample in found], budgets)


def loading_finding(steps: LoadingSteps) -> Finding:
    """Return a finding that compares step durations during loads with the median without loads."""
    usual, found = median(steps.usual_ms), steps.loading_ms
    says = (
        f"steps while an adapter of {steps.adapter_bytes / 1e6:.0f} MB loads: median "
        f"{median(found):.1f} ms, {median(found) / usual:.2f} x the usual {usual:.1f} ms; at most "
        f"{max(found):.0f} ms, {max(found) / usual:.2f} x (without: "
        f"{max(steps.usual_ms) / usual:.2f} x)",
        f"a load takes {median(steps.load_s):.2f} s while they decode",
    )
    series = {"while it loads": _sorted(found), "usual": _sorted(steps.usual_ms)}
    chart = Chart(x="share of steps", y="ms", series=series)
    return Finding(name="loading", figures={"steps": steps}, says=says, chart=chart)


def turnover_finding(samples: Sequence[Turnover], budgets: Budgets) -> Finding:
    """Return a finding that compares peak memory use with the budgets."""
    budget = budgets.device_mb + budgets.host_mb
    rss = max(sample.rss_bytes for sample in samples) / MIB
    device = max(sample.device_bytes for sample in samples) / MIB
    host = max(sample.host_bytes for sample in samples) / MIB
    says = (
        f"{samples[-1].loads} adapters in turn: at most {device:.1f} of {budgets.device_mb} MiB on "
        f"the device and {host:.1f} of {budgets.host_mb} MiB in the host",
        f"the process grew by at most {rss:.0f} MiB, {rss / budget:.3f} x both together",
    )
    series: dict[str, Points] = {
        "process": [(sample.loads, sample.rss_bytes / MIB) for sample in samples],
        "device": [(sample.loads, sample.device_bytes / MIB) for sample in samples],
        "host": [(sample.loads, sample.host_bytes / MIB) for sample in samples],
        "budgets": [(sample.loads, float(budget)) for sample in (samples[0], samples[-1])],
    }
    figures = {"budgets": budgets, "samples": samples}
    chart = Chart(x="adapters loaded", y="MiB", series=series)
    return Finding(name="turnover", figures=figures, says=says, chart=chart)


def _sorted(values: Sequence[float]) -> list[tuple[float, float]]:
    return [((n + 1) / len(values), value) for n, value in enumerate(sorted(values))]
