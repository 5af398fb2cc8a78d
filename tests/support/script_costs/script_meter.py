"""Measures how many Redis commands and how much time each call of a queue script takes.

Queue scripts are the Lua scripts of `shared/store`.
"""

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from shared.store.redis.connection import Redis, connect
from shared.store.redis.scripts import script_names, source

OWN_COMMANDS = 2
"""Number of commands that Redis counts for a measured call besides those that the script issues.

They are EVALSHA and one INFO.
"""
COUNTERS = ("stats", "commandstats")
"""Sections of INFO that are compared before and after a call."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """Cost of one script call."""

    script: str
    situation: str
    commands: int
    ms: float
    """Duration in milliseconds according to `INFO commandstats`."""


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


def _call(script: str, situation: str, before: dict[str, Any], after: dict[str, Any]) -> Call:
    processed = after["total_commands_processed"] - before["total_commands_processed"]
    earlier = before.get("cmdstat_evalsha", {"usec": 0})
    return Call(
        script=script,
        situation=situation,
        commands=int(processed) - OWN_COMMANDS,
        ms=(after["cmdstat_evalsha"]["usec"] - earlier["usec"]) / 1e3,
    )


def _sha(name: str) -> str:
    return hashlib.sha1(source(name).encode()).hexdigest()
