"""The commands of `lorikeet adapters` that try out and pin versions, and show the audit log."""

from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ops.commands.clients.adapters import (
    NameArgument,
    absolute_source,
    changes_adapters,
    reads_adapters,
)
from ops.terminal import facts_table, print_line, table, utc_minutes

if TYPE_CHECKING:
    from ops.adapter_client import AdapterClient

MAX_CHANGES = 500
OptionalPath = Annotated[
    str | None,
    typer.Argument(
        metavar="PATH",
        help="Adapter that becomes the candidate, as for `load`. Without it, the present candidate "
        "gets the new share.",
        show_default=False,
    ),
]
PercentOption = Annotated[
    float, typer.Option("--percent", metavar="N", min=0, max=100, help="Share of the requests.")
]
VersionOption = Annotated[
    str | None,
    typer.Option(
        "--version", metavar="VERSION", help="Previous version that becomes the candidate."
    ),
]


@changes_adapters
def canary(
    client: "AdapterClient",
    name: NameArgument,
    path: OptionalPath = None,
    percent: PercentOption = 10,
    version: VersionOption = None,
) -> None:
    """Let another version answer a share of an adapter's requests.

    Requests with the same `user` always get the same version, so with few users the share is
    inexact.
    """
    _set_candidate(client, name, path, version, "canary", percent)
    print_canary_commands(name)


@changes_adapters
def shadow(
    client: "AdapterClient",
    name: NameArgument,
    path: OptionalPath = None,
    percent: PercentOption = 100,
    version: VersionOption = None,
) -> None:
    """Let another version compute copies of an adapter's requests, and compare the answers.

    Clients get the current version's answers. The copies use idle capacity only.
    """
    _set_candidate(client, name, path, version, "shadow", percent)
    print_line(f"`lorikeet adapters candidate {name}` compares the answers")


@reads_adapters
def candidate(client: "AdapterClient", name: NameArgument) -> None:
    """Compare the candidate's requests and answers with the current version's."""
    found = client.candidate(name)
    print_line(f"{found['version']}: {found['mode']} of {found['percent']:g} % of the requests")
    Console().print(_usage_table(*found["compared"]))
    agreement = found["agreement"]
    if not agreement["pairs"]:
        return
    print_line(
        f"{agreement['pairs']} pairs compared: {agreement['equal']} equal, "
        f"{agreement['failed']} failed, mean similarity {agreement['similarity']:.3f}"
    )
    for pair in found["differing"]:
        Console().print(_pair_table(pair))


@changes_adapters
def promote(client: "AdapterClient", name: NameArgument) -> None:
    """Make the candidate the current version."""
    print_promoted(client.promote(name))


@changes_adapters
def drop(client: "AdapterClient", name: NameArgument) -> None:
    """Drop the candidate. The current version answers all requests again."""
    kept = client.drop(name)
    print_line(f"{name} is {kept['version']} for all requests")


@changes_adapters
def pin(
    client: "AdapterClient",
    name: NameArgument,
    replicas: Annotated[
        int, typer.Option("--replicas", metavar="N", min=1, help="Minimum number of workers.")
    ] = 1,
) -> None:
    """Keep an adapter in the memory of a minimum number of workers."""
    client.pin(name, replicas)
    print_line(f"{name} stays on {replicas} worker{'s' if replicas > 1 else ''} or more")


@changes_adapters
def unpin(client: "AdapterClient", name: NameArgument) -> None:
    """Let workers evict an adapter again."""
    client.pin(name, 0)
    print_line(f"{name} is evicted when other adapters need its memory")


@reads_adapters
def log(
    client: "AdapterClient",
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="Adapter. By default all of them.")
    ] = None,
    limit: Annotated[
        int,
        typer.Option("--limit", metavar="N", min=1, max=MAX_CHANGES, help="Number of changes."),
    ] = 50,
) -> None:
    """Show who changed adapters and API keys, newest change first."""
    changes = client.changes(name, limit)["data"]
    if not changes:
        print_line("nothing was changed")
        return
    shown = table("time (UTC)", "by", "change", "from", "to", whole=("time (UTC)",))
    for change in changes:
        shown.add_row(*map(Text, _change_cells(change)))
    Console().print(shown)


COMMANDS = canary, shadow, candidate, promote, drop, pin, unpin, log
"""Commands in the order of the help page."""


def print_canary_commands(name: str) -> None:
    """Print the commands that compare, promote and drop a canary of the adapter `name`."""
    print_line(f"`lorikeet adapters candidate {name}` compares it with the current version")
    print_line(f"`lorikeet adapters promote {name}` lets it answer all requests")
    print_line(f"`lorikeet adapters drop {name}` ends the trial")


def print_promoted(adapter: dict[str, Any]) -> None:
    """Print an adapter's new version, the version that it replaced, and how to restore that one."""
    name, version, previous = adapter["id"], adapter["version"], adapter["previous"]
    if not previous:  # with --keep-versions 0
        print_line(f"{name} is {version} now")
        return
    replaced = previous[0]["version"]
    print_line(f"{name} is {version} now, instead of {replaced}")
    print_line(f"`lorikeet adapters rollback {name}` restores {replaced}")


def _set_candidate(
    client: "AdapterClient",
    name: str,
    path: str | None,
    version: str | None,
    mode: str,
    percent: float,
) -> None:
    wanted = {
        "mode": mode,
        "percent": percent,
        "source": None if path is None else absolute_source(path),
        "version": version,
    }
    adapter = client.set_candidate(name, wanted)
    print_line(f"{adapter['candidate']['version']} is a {mode} for {percent:g} % of the requests")


def _change_cells(change: dict[str, Any]) -> tuple[str, ...]:
    """Return the table row of a change. Versions are shown without the adapter's name."""
    name = change["adapter"]
    action = change["action"].replace("_", " ")
    what = f"{name} {action}" if name else f"API {action}"  # such as "API key created"
    ends = [(change[end] or "-").removeprefix(f"{name}@") for end in ("from", "to")]
    return utc_minutes(change["time_ms"]).removesuffix("+00:00"), change["by"] or "-", what, *ends


def _usage_table(*versions: dict[str, Any]) -> Table:
    """Return a table of the requests of each version since the candidate was set."""
    shown = table("version", "requests", "failed", "mean time", "tokens", whole=("version",))
    for version in versions:
        mean_s = version["mean_answer_s"]
        shown.add_row(
            Text(version["version"]),
            f"{version['requests']:,}",
            f"{version['failed']:,}",
            "-" if mean_s is None else f"{mean_s:.2f} s",
            f"{version['tokens']:,}",
        )
    return shown


def _pair_table(pair: dict[str, Any]) -> Table:
    return facts_table(
        {
            "job": f"{pair['job']}, similarity {pair['similarity']:.3f}",
            "current": pair["current_text"],
            "candidate": pair["candidate_text"] or pair["error"],
        }
    )
