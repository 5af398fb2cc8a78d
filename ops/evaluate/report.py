"""Shows how the versions of an adapter have answered the cases."""

from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from ops.evaluate.cases import Outcome
from ops.terminal import table

MAX_SHOWN = 20
"""Maximum number of failed cases that are printed."""
MAX_CHARS = 120


def num_good(outcomes: Sequence[Outcome], version: str) -> int:
    """Return how many cases a version has answered well."""
    return sum(outcome.is_good for outcome in outcomes if outcome.version == version)


def print_report(outcomes: Sequence[Outcome], roles: dict[str, str]) -> None:
    """Print a table of the versions with their `roles`, and the cases that any of them failed."""
    console = Console()
    num_cases = len(outcomes) // len(roles)
    columns = ("version", "role", "good", "share")
    shown = table(*columns, whole=columns)
    for version, role in roles.items():
        good = num_good(outcomes, version)
        share = f"{100 * good / num_cases:.1f} %"
        shown.add_row(*map(Text, (version, role, f"{good} of {num_cases}", share)))
    console.print(shown)
    failed = _failed(outcomes, len(roles))
    for some in failed[:MAX_SHOWN]:
        case = some[0].case
        console.print(Text(f"line {case.line}: ", style="bold") + Text(case.wanted[:MAX_CHARS]))
        for outcome in some:
            mark = Text("good ", "green") if outcome.is_good else Text("bad  ", "red")
            answer = " ".join(outcome.answer.split())[:MAX_CHARS]
            console.print(Text(f"  {roles[outcome.version]:<10}") + mark + Text(answer))
    if len(failed) > MAX_SHOWN:
        console.print(f"and {len(failed) - MAX_SHOWN} more failed cases")


def _failed(outcomes: Sequence[Outcome], num_versions: int) -> list[list[Outcome]]:
    """Return the outcomes of each failed case. Cases on which the versions differ come first."""
    cases = [
        list(outcomes[first : first + num_versions])
        for first in range(0, len(outcomes), num_versions)
    ]
    failed = [some for some in cases if not all(outcome.is_good for outcome in some)]
    return sorted(failed, key=lambda some: not any(outcome.is_good for outcome in some))
