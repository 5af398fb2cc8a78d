"""Measures how many Redis commands each call of a queue script takes.

Queue scripts are the Lua scripts of `shared/store`.
"""

import hashlib
import re
from dataclasses import dataclass
from typing import Any

from shared.store.redis.connection import Redis, connect
from shared.store.redis.scripts import script_names, source

OWN_COMMANDS = 2
"""Number of commands that Redis counts for a call besides those of the script: EVALSHA and INFO."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    script: str
    situation: str
    commands: int


class Meter(Redis):
    """Redis client that measures the calls of scripts, which must not overlap."""

    def __init__(self, url: str) -> None:
        super().__init__(connection_pool=connect(url).connection_pool)
        self.auto_close_connection_pool = True  # no other client uses this connection pool
        self.calls: list[Call] = []
        self.situation = ""
        """What the next calls are measured in."""
        self._names = {
            hashlib.sha1(source(name).encode()).hexdigest(): name for name in script_names()
        }

    async def load_scripts(self) -> None:
        """Load all scripts into Redis, so that no measured call has to load one."""
        for name in script_names():
            await self.script_load(source(name))

    async def evalsha(self, sha: str, numkeys: int, *keys_and_args: Any) -> Any:
        """Run a loaded script, and record the call's cost."""
        before = await self._num_commands()
        try:
            return await super().evalsha(sha, numkeys, *keys_and_args)  # type: ignore[misc]
        finally:
            commands = await self._num_commands() - before - OWN_COMMANDS
            name = self._names[sha]
            self.calls.append(Call(script=name, situation=self.situation, commands=commands))

    async def _num_commands(self) -> int:
        return int((await self.info("stats"))["total_commands_processed"])


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
