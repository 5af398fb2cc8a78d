"""Measures how many Redis commands and how much time each call of a queue script takes.

Queue scripts are the Lua scripts of `shared/store`.
"""

import hashlib
import re
import statistics
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from ops.bench.probes.finding import Chart, Finding, Points
from shared.store.redis.connection import Redis, connect
from shared.store.redis.scripts import script_names, source

SLOW_MS = 5.0
"""Duration above which a call counts as slow. Redis serves no other client while a script runs."""
OWN_COMMANDS = 2
"""Number of commands that Redis counts for a measured call besides those that the script issues.

They are EVALSHA and one INFO.
"""
TABLE_WIDTH = 150
COUNTS = ("calls", "commands", "most", "stated")
COUNTERS = ("stats", "commandstats", "cpu")
"""Sections of INFO that are compared before and after a call."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """Cost of one script call."""

    script: str
    situation: str
    commands: int
    ms: float
    """Duration in milliseconds according to `INFO commandstats`."""
    cpu_ms: float
    """CPU time of Redis' main thread, including about 0.1 ms for INFO and argument parsing.

    If `ms` is far larger than `cpu_ms`, other processes delayed the call.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """Summary of all calls of a script in one situation."""

    script: str
    situation: str
    calls: int
    commands: float
    """Median number of commands per call."""
    max_commands: int
    median_ms: float
    max_ms: float
    median_cpu_ms: float
    max_call_cpu_ms: float
    """CPU time of the call with the largest `ms`."""
    num_slow: int


class Meter(Redis):
    """Redis client that measures the script calls inside `measuring` blocks.

    The blocks must not overlap.
    """

    def __init__(self, url: str) -> None:
        super().__init__(connection_pool=connect(url).connection_pool)
        self.auto_close_connection_pool = True  # no other client uses this connection pool
        self.calls: list[Call] = []
        self._situation, self._only = "", tuple[str, ...]()
        self._names = {_sha(name): name for name in script_names()}

    @contextmanager
    def measuring(self, situation: str, *only: str) -> Iterator[None]:
        """Measure script calls inside the block, and label them with `situation`.

        If `only` names scripts, calls of other scripts are not measured.
        """
        self._situation, self._only = situation, only or tuple(self._names.values())
        try:
            yield
        finally:
            self._situation, self._only = "", ()

    async def load_scripts(self) -> None:
        """Load all scripts into Redis, so that no measured call has to load one."""
        for name in script_names():
            await self.script_load(source(name))

    async def evalsha(self, sha: str, numkeys: int, *keys_and_args: Any) -> Any:
        """Run a loaded script. Inside a `measuring` block, also record the call's cost."""
        name = self._names[sha]
        if name not in self._only:
            return await super().evalsha(sha, numkeys, *keys_and_args)  # type: ignore[misc]
        before = await self._counters()
        try:
            return await super().evalsha(sha, numkeys, *keys_and_args)  # type: ignore[misc]
        finally:
            after = await self._counters()
            self.calls.append(_call(name, self._situation, before, after))

    async def _counters(self) -> dict[str, Any]:
        found: dict[str, Any] = await self.info(*COUNTERS)  # type: ignore[arg-type]  # takes several
        return found


def stated_bound(script: str) -> str:
    """Return the upper bound on the number of commands, as stated in a comment of the script.

    The bound has one of three forms: `40` (40 commands), `60 each` (60 commands per item), or
    `20 +` (20 commands and further terms). Returns an empty string if the script states no bound.
    """
    found = re.search(r"^-- At most ([\d,]+) commands(.*)", source(script), re.MULTILINE)
    if not found:
        return ""
    number, rest = found.groups()
    return number + (" each" if rest.startswith(" for each") else " +" if rest[:1] == "," else "")


def rows(calls: Iterable[Call]) -> list[Row]:
    """Group the calls by script and situation. Rows are sorted by script name."""
    grouped: defaultdict[tuple[str, str], list[Call]] = defaultdict(list)
    for call in calls:
        grouped[call.script, call.situation].append(call)
    return sorted((_row(some) for some in grouped.values()), key=lambda row: row.script)


def costs_finding(calls: Sequence[Call], sizes: Any) -> Finding:
    """Return a finding with the slowest call, the number of slow calls, and all rows as figures."""
    worst, num_slow = max(calls, key=lambda call: call.ms), sum(map(_is_slow, calls))
    found = rows(calls)
    series: dict[str, Points] = {
        "median": [(row.commands, row.median_ms) for row in found],
        "slowest call": [(row.max_commands, row.max_ms) for row in found],
    }
    return Finding(
        name="scripts",
        figures={"sizes": sizes, "rows": found},
        says=(
            f"slowest call of a script: {worst.script} ({worst.situation}), {worst.ms:.1f} ms of "
            f"Redis; {num_slow} of {len(calls):,} calls took over {SLOW_MS:.0f} ms",
        ),
        chart=Chart(x="commands of a call", y="ms of Redis", series=series, joined=False),
    )


def costs_table(found: Iterable[Row]) -> Table:
    """Return a table of all rows. Rows with a slow call are highlighted."""
    shown = Table(box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for header in ("script", "situation"):
        shown.add_column(header, no_wrap=True)
    for header in (*COUNTS, "median ms", "max ms", "median CPU ms", "CPU ms of max"):
        shown.add_column(header, justify="right", no_wrap=True)
    for row in found:
        shown.add_row(*_cells(row), style="bold red" if row.num_slow else "")
    return shown


def _cells(row: Row) -> tuple[str, ...]:
    return (
        row.script,
        row.situation,
        str(row.calls),
        f"{row.commands:,.0f}",
        f"{row.max_commands:,}",
        stated_bound(row.script),
        f"{row.median_ms:.2f}",
        f"{'! ' if row.num_slow else ''}{row.max_ms:.2f}",
        f"{row.median_cpu_ms:.2f}",
        f"{row.max_call_cpu_ms:.2f}",
    )


def _row(calls: Sequence[Call]) -> Row:
    worst = max(calls, key=lambda call: call.ms)
    return Row(
        script=worst.script,
        situation=worst.situation,
        calls=len(calls),
        commands=statistics.median(call.commands for call in calls),
        max_commands=max(call.commands for call in calls),
        median_ms=statistics.median(call.ms for call in calls),
        max_ms=worst.ms,
        median_cpu_ms=statistics.median(call.cpu_ms for call in calls),
        max_call_cpu_ms=worst.cpu_ms,
        num_slow=sum(map(_is_slow, calls)),
    )


def _is_slow(call: Call) -> bool:
    return call.ms > SLOW_MS


def _call(script: str, situation: str, before: dict[str, Any], after: dict[str, Any]) -> Call:
    def growth(*names: str) -> float:
        return sum(float(after[name]) - float(before.get(name, 0)) for name in names)

    earlier = before.get("cmdstat_evalsha", {"usec": 0})
    return Call(
        script=script,
        situation=situation,
        commands=int(growth("total_commands_processed")) - OWN_COMMANDS,
        ms=(after["cmdstat_evalsha"]["usec"] - earlier["usec"]) / 1e3,
        cpu_ms=1e3 * growth("used_cpu_user_main_thread", "used_cpu_sys_main_thread"),
    )


def _sha(name: str) -> str:
    return hashlib.sha1(source(name).encode()).hexdigest()
