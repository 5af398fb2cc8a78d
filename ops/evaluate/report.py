"""Shows how the versions of an adapter have answered the cases."""

from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from ops.evaluate.cases import Outcome
from ops.terminal import table

MAX_SHOWN = 20
"""Maximum number of failed cases that are printed."""
MAX_CHARS = 120
DIFFERING, BAD = "the versions differ", "all versions fail"
"""Headings of the failed cases."""


def num_good(outcomes: Sequence[Outcome], version: str) -> int:
    """Return how many cases a version has answered well."""
    return sum(outcome.is_good for outcome in outcomes if outcome.version == version)


def print_report(outcomes: Sequence[Outcome], roles: dict[str, str]) -> None:
    """Print a table of the versions with their `roles`, and the cases that any of them failed.

    The cases on which the versions differ come first.
    """
    console = Console()
    num_cases = len(outcomes) // len(roles)
    columns = ("version", "role", "good", "share")
    shown = table(*columns, whole=columns)
    for version, role in roles.items():
        good = num_good(outcomes, version)
        share = f"{100 * good / num_cases:.1f} %"
        shown.add_row(*map(Text, (version, role, f"{good} of {num_cases}", share)))
    console.print(shown)
    differing, bad = _failed(outcomes, len(roles))
    _print_cases(console, DIFFERING, differing[:MAX_SHOWN], roles)
    _print_cases(console, BAD, bad[: max(0, MAX_SHOWN - len(differing))], roles)
    num_failed = len(differing) + len(bad)
    if num_failed > MAX_SHOWN:
        console.print(f"and {num_failed - MAX_SHOWN} more failed cases")


def _print_cases(
    console: Console, heading: str, cases: Sequence[Sequence[Outcome]], roles: dict[str, str]
) -> None:
    """Print the outcomes of each case below a heading, if there are any."""
    if not cases:
        return
    console.print(Text(f"{heading}:\n", style="cyan"))
    for some in cases:
        case = some[0].case
        console.print(Text(f"line {case.line}: ", style="bold") + Text(case.wanted[:MAX_CHARS]))
        for outcome in some:
            mark = Text("good ", "green") if outcome.is_good else Text("bad  ", "red")
            answer = " ".join(outcome.answer.split())[:MAX_CHARS]
            console.print(Text(f"  {roles[outcome.version]:<10}") + mark + Text(answer))
    console.print()


def _failed(
    outcomes: Sequence[Outcome], num_versions: int
) -> tuple[list[Sequence[Outcome]], list[Sequence[Outcome]]]:
    """Return the outcomes of each case on which the versions differ, and of each that all fail."""
    firsts = range(0, len(outcomes), num_versions)
    cases = [outcomes[first : first + num_versions] for first in firsts]
    differing = [some for some in cases if len({outcome.is_good for outcome in some}) > 1]
    bad = [some for some in cases if not any(outcome.is_good for outcome in some)]
    return differing, bad
