"""`lorikeet adapters evaluate`: grades the answers of an adapter's versions."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from ops.commands.clients.adapter_versions import print_promoted
from ops.commands.clients.adapters import NameArgument, changes_adapters
from ops.evaluate.cases import Case, Outcome, read_cases
from ops.evaluate.report import num_good, print_report
from ops.terminal import print_line
from shared.errors import SettingsError

if TYPE_CHECKING:
    from ops.adapter_client import AdapterClient

CURRENT, CANDIDATE, PREVIOUS = "current", "candidate", "previous"
EXIT_WORSE = 1
"""Exit status if the candidate has answered fewer cases well than the current version."""


@changes_adapters
def evaluate(
    client: "AdapterClient",
    name: NameArgument,
    file: Annotated[
        Path,
        typer.Option(
            "--file",
            metavar="CASES",
            help="Cases as one JSON object per line: a request, and `expected`, `contains`, "
            "`pattern` or `json`.",
        ),
    ],
    versions: Annotated[
        list[str] | None,
        typer.Option(
            "--version",
            metavar="VERSION",
            help="Version to evaluate; may be repeated. By default the current one and the "
            "candidate.",
        ),
    ] = None,
    concurrency: Annotated[
        int, typer.Option("--concurrency", metavar="N", min=1, help="Requests at a time.")
    ] = 8,
    promotes: Annotated[
        bool,
        typer.Option("--promote", help="Promote the candidate unless it is worse."),
    ] = False,
) -> None:
    """Grade the answers of an adapter's versions, before one of them replaces the other.

    The exit status is 1 if the candidate has answered fewer cases well than the current version.
    """
    try:
        cases = read_cases(file.read_text().splitlines())
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"--file: can't read {file}: {error}") from None
    roles = _roles(client.adapter(name), versions or [])
    if promotes and not {CURRENT, CANDIDATE} <= set(roles.values()):
        reason = "the current version and the candidate aren't both evaluated"
        raise SettingsError(f"--promote: {reason}")
    outcomes = _answers(client, list(roles), cases, concurrency)
    print_report(outcomes, roles)
    good = {role: num_good(outcomes, version) for version, role in roles.items()}
    if CANDIDATE in good and good[CANDIDATE] < good.get(CURRENT, 0):
        print_line("the candidate is worse than the current version")
        raise typer.Exit(EXIT_WORSE)
    if promotes:
        (tried,) = (version for version, role in roles.items() if role == CANDIDATE)
        print_promoted(client.promote(name, tried))


def _answers(
    client: "AdapterClient",
    versions: Sequence[str],
    cases: Sequence[Case],
    concurrency: int,
) -> list[Outcome]:
    from ops.evaluate.runner import answer_all  # httpx takes long to import

    with Progress(TextColumn("answers"), BarColumn(), MofNCompleteColumn()) as progress:
        task = progress.add_task("", total=len(cases) * len(versions))
        return asyncio.run(
            answer_all(
                client,
                versions,
                cases,
                concurrency=concurrency,
                on_answer=lambda: progress.advance(task),
            )
        )


def _roles(adapter: dict[str, Any], versions: Sequence[str]) -> dict[str, str]:
    """Map each version to evaluate to its role: current, candidate or previous."""
    known = {adapter["version"]: CURRENT}
    if adapter["candidate"]:
        known[adapter["candidate"]["version"]] = CANDIDATE
    return {version: known.get(version, PREVIOUS) for version in versions or known}
