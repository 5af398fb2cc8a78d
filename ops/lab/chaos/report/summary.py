"""Prints the summary of a run on a terminal."""

from rich.console import Console
from rich.table import Table

from ops.lab.chaos.report.run_report import KindReport, RunReport


def print_summary(report: RunReport, console: Console) -> None:
    """Print requests, costs of the faults, and the verdict."""
    outcomes = ", ".join(f"{count:,} {name}" for name, count in report.outcomes.items())
    console.print(
        f"{sum(report.outcomes.values()):,} requests: {outcomes}; {report.resumes:,} resumed, "
        f"{report.refusals:,} refusals; {report.tokens:,} tokens streamed"
    )
    console.print(_costs(report))
    for reason in report.failures:
        console.print(f"failed: {reason}", style="red", markup=False, highlight=False)
    if not report.failures:
        console.print("passed: nothing lost, repeated, missing or stuck", style="green")


def _costs(report: RunReport) -> Table:
    table = Table(box=None, header_style="bold")
    table.add_column("fault")
    for name in ("times", "affected", "p50 s", "p99 s", "recovered after s"):
        table.add_column(name, justify="right")
    for kind in report.kinds:
        table.add_row(*_row(kind))
    return table


def _row(kind: KindReport) -> list[str]:
    seconds = (kind.felt_p50_s, kind.felt_p99_s, kind.recovery_s)
    shown = ["" if value is None else f"{value:.1f}" for value in seconds]
    return [kind.kind, str(kind.took_place), f"{kind.affected} of {kind.active}", *shown]
