"""Shows how the versions of an adapter have answered the cases."""

from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.text import Text

from ops.evaluate.cases import Outcome
from ops.terminal import table

MAX_SHOWN = 20
"""Maximum number of cases with different results that are printed."""
MAX_CHARS = 120


def num_good(outcomes: Sequence[Outcome], version: str) -> int:
    """Return how many cases a version has answered well."""
    return sum(outcome.is_good for outcome in outcomes if outcome.version == version)


def print_report(outcomes: Sequence[Outcome], roles: dict[str, str]) -> None:
    """Print a table of the versions with their `roles`, and the cases with different results."""
    console = Console()
    num_cases = len(outcomes) // len(roles)
    columns = ("version", "role", "good", "share")
    shown = table(*columns, whole=columns)
    for version, role in roles.items():
        good = num_good(outcomes, version)
        share = f"{100 * good / num_cases:.1f} %"
        shown.add_row(*map(Text, (version, role, f"{good} of {num_cases}", share)))
    console.print(shown)
    differing = list(_differing(outcomes, list(roles)))
    for some in differing[:MAX_SHOWN]:
        console.print(Text(f"line {some[0].case.line}", style="bold"))
        for outcome in some:
            mark = Text("good ", "green") if outcome.is_good else Text("bad  ", "red")
            answer = " ".join(outcome.answer.split())[:MAX_CHARS]
            console.print(Text(f"  {roles[outcome.version]:<10}") + mark + Text(answer))
    if len(differing) > MAX_SHOWN:
        console.print(f"and {len(differing) - MAX_SHOWN} more cases about which they differ")


def _differing(outcomes: Sequence[Outcome], versions: Sequence[str]) -> Iterator[list[Outcome]]:
    """Yield the outcomes of each case that some versions answer well and others don't."""
    size = len(versions)
    for first in range(0, len(outcomes), size):
        some = list(outcomes[first : first + size])
        if len({outcome.is_good for outcome in some}) > 1:
            yield some
