"""Probe: torch operations, waits and copies of a decode step, counted on a CPU."""

from collections.abc import Mapping, Sequence

from ops.bench.measurement_process import run_module
from ops.bench.probes.finding import Chart, Finding
from ops.bench.probes.operations.counts import Counts, StepCounts

PROCESS = "probes.operations.process"


def measure_operations(rows: Sequence[int]) -> Finding:
    """Count decode steps of each number of sequences, with several sampling parameters."""
    found = run_module(PROCESS, *(f"--size={number}" for number in rows))
    return operations_finding([StepCounts.read(step) for step in found])


def operations_finding(steps: Sequence[StepCounts]) -> Finding:
    """Return a finding with one summary line for each step."""
    says = tuple(
        f"{step.case}, {step.rows} sequences: forward {_text(step.forward)}; "
        f"the rest {_text(step.rest)}"
        for step in steps
    )
    cases = dict.fromkeys(step.case for step in steps)
    series = {
        case: [(step.rows, _total(step.rest.operations)) for step in steps if step.case == case]
        for case in cases
    }
    chart = Chart(x="sequences", y="operations outside of the forward pass", series=series)
    return Finding(name="operations", figures={"steps": steps}, says=says, chart=chart)


def _text(counts: Counts) -> str:
    operations, reads, uploads = map(_total, (counts.operations, counts.reads, counts.uploads))
    return f"{operations} operations, {reads} reads, {uploads} uploads"


def _total(counts: Mapping[str, int]) -> int:
    return sum(counts.values())
