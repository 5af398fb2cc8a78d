"""Probe: cost per token of constraining answers to a JSON Schema."""

import statistics
from pathlib import Path

from ops.bench.measurement_process import run_module
from ops.bench.probes.finding import Chart, Finding
from ops.bench.probes.schema_process import SchemaCost


def measure_schema(model: Path, batch: int) -> Finding:
    """Compare decode steps of `batch` sequences with and without a JSON Schema."""
    found = run_module("probes.schema_process", str(model), f"--batch={batch}")
    return schema_finding(SchemaCost(**found))


def schema_finding(cost: SchemaCost) -> Finding:
    """Return a finding that compares decode steps with and without a schema.

    The reported ratio is the median over rounds.
    """
    ratio = statistics.median(b / f for f, b in zip(cost.free_ms, cost.bound_ms, strict=True))
    says = (
        f"C = {cost.batch}: {statistics.median(cost.free_ms):.2f} ms a decode step, "
        f"{statistics.median(cost.bound_ms):.2f} ms under a JSON Schema, {ratio:.3f} x",
    )
    series = {
        label: [(n + 1, ms) for n, ms in enumerate(rounds)]
        for label, rounds in (("free", cost.free_ms), ("under a schema", cost.bound_ms))
    }
    chart = Chart(x="round", y="ms of a decode step", series=series)
    return Finding(name="schema", figures={"cost": cost, "ratio": ratio}, says=says, chart=chart)
