"""Shows the adapters of a server, for `lorikeet adapters`."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from ops.terminal import print_line, table

COLUMNS = "name", "version", "state", "rank", "MiB", "requests", "last used", "workers", "source"
NEVER = "-"
WARNING = "yellow"
UNLIMITED = 10_000
"""Console width in characters that is large enough for every table."""


def print_list(found: dict[str, Any]) -> None:
    """Print the body of GET /v1/adapters.

    The adapters are the rows of a table, or paragraphs if the table is wider than the terminal.
    """
    console = Console()
    if not (found["data"] or found["draining"]):
        print_line("no adapter is loaded; `lorikeet adapters load NAME PATH` loads one")
        return
    rows = list(_rows(found))
    shown = _table(rows)
    natural = console.measure(shown, options=console.options.update_width(UNLIMITED))
    if natural.maximum <= console.width:
        console.print(shown)
        _print_warnings(console, rows)
        return
    for row in rows:
        _print_paragraph(console, row)


@dataclass(frozen=True, slots=True)
class _Row:
    """One version of an adapter."""

    name: str
    """The adapter's name, or empty for a version that isn't the current one."""
    version: str
    state: str
    facts: tuple[str, str, str, str, str]
    """Rank, size in MiB, requests, time since the last request, and workers."""
    source: str
    warning: str | None

    @property
    def style(self) -> str:
        return "" if self.name else "dim"

    @property
    def sentence(self) -> str:
        """The state and the facts as one sentence."""
        rank, size, requests, used, workers = self.facts
        usage = "not used yet" if used == NEVER else f"last used {used} ago"
        held = "1 worker" if workers == "1" else f"{workers} workers"
        return f"{self.state}, on {held}, rank {rank}, {size} MiB, requests: {requests}, {usage}"


def _rows(found: dict[str, Any]) -> Iterator[_Row]:
    for adapter in found["data"]:
        candidate = adapter.get("candidate")  # older servers know neither candidates nor pins
        yield _row(adapter["id"], adapter, _state(adapter))
        if candidate is not None:
            yield _row("", candidate, _trial(candidate))
        for place, version in enumerate(adapter["previous"]):
            if candidate is None or version["version"] != candidate["version"]:
                yield _row("", version, "previous" if place else _next_rollback(version, adapter))
    for version in found["draining"]:
        yield _row("", version, "draining")


def _state(adapter: dict[str, Any]) -> str:
    replicas = adapter.get("min_replicas", 0)
    pinned = f", pinned to {replicas}" if replicas else ""
    return f"{adapter['state']}{', paused' if adapter.get('is_paused') else ''}{pinned}"


def _next_rollback(version: dict[str, Any], current: dict[str, Any]) -> str:
    """Return the state of the next rollback's version, which may be newer than the current one."""
    is_newer = version["created"] > current["created"]
    return "next rollback" if is_newer else "previous, next rollback"


def base_warning(version: dict[str, Any]) -> str | None:
    """Return a warning if the adapter names another base model, otherwise None."""
    if not (trained_on := version.get("other_base")):
        return None
    return f"trained on {trained_on}, another base model with the same shapes: check its answers"


def _trial(candidate: dict[str, Any]) -> str:
    """Return a candidate's mode, and its share of requests if it is ready, otherwise its state."""
    is_ready = candidate["state"] == "ready"
    does = f"{candidate['percent']:g} %" if is_ready else candidate["state"]
    return f"{candidate['mode']} {does}"


def _row(name: str, version: dict[str, Any], state: str) -> _Row:
    holders = [holder for holder in version["workers"] if holder["tier"] == "device"]
    facts = (
        str(version["rank"]),
        mebibytes(version),
        f"{version['requests']:,}",
        _ago(version["last_used_ms"]),
        str(len(holders)),
    )
    return _Row(name, version["version"], state, facts, version["source"], base_warning(version))


def _print_paragraph(console: Console, row: _Row) -> None:
    """Print a version. The terminal wraps long names and paths, so they can be copied whole."""
    if row.name:
        console.print(Text(row.name, style="bold"), soft_wrap=True)
    console.print(Text(f"  {row.version}", style=row.style), soft_wrap=True)
    console.print(Padding(Text(row.sentence, style=row.style), (0, 0, 0, 4)))
    console.print(Text(f"    {row.source}", style=row.style), soft_wrap=True)
    if row.warning:
        console.print(Padding(Text(row.warning, style=WARNING), (0, 0, 0, 4)))


def _print_warnings(console: Console, rows: Sequence[_Row]) -> None:
    for row in rows:
        if row.warning:
            console.print(Text(f"{row.version}: {row.warning}", style=WARNING))


def _table(rows: Sequence[_Row]) -> Table:
    shown = table(*COLUMNS, whole=COLUMNS)
    for row in rows:
        cells = (row.name, row.version, row.state, *row.facts, row.source)
        shown.add_row(*map(Text, cells), style=row.style)
    return shown


def _ago(used_ms: int | None) -> str:
    if used_ms is None:
        return NEVER
    seconds = max(0, int(time.time() - used_ms / 1000))
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"


def mebibytes(found: dict[str, Any]) -> str:
    """Return the size of an adapter in MiB, the unit of the console and of `lorikeet doctor`."""
    return f"{found['bytes'] / 2**20:.1f}"
