"""Runs the Lua scripts of a pool. Each script is atomic, and is reloaded if Redis restarts.

A script is a file in `shared/store/lua/` or in a folder there, and has the file's name. Its first
comment states how many Redis commands one call executes at most, and lists the arguments and the
reply. During an upgrade, processes of two releases run their own scripts on the same keys.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any

from shared.protocol.codec import PROTOCOL_VERSION
from shared.store.redis.connection import NoScriptError, Redis
from shared.store.redis.durability import Durability, Replication
from shared.store.redis.keys import Keys

PARTS = {
    "spread": {"claim", "shrink"},
    "give_back": {"release", "hand_over"},
    "key_limits": {"enqueue"},
    "records": {"enqueue", "erase", "drop_unanswered"},
    "retrying": {"enqueue"},
    "cancelling": {"cancel", "abandon", "expire"},
    "following": {"attach", "abandon"},
    "forgetting": {"commit_lines", "erase", "retain"},
    "uploads": {"add_adapter", "set_base", "forget_unused", "discard_upload"},
    "file_account": {"reserve_file", "store_file", "forget_file"},
    "audit_log": {
        *("add_adapter", "unload_adapter", "rollback_adapter", "set_base", "release_quarantine"),
        *("set_candidate", "end_candidate", "set_pin", "set_pause"),
        *("set_adapter_pause", "set_mode"),
    },
    "adapter_pauses": {"set_adapter_pause", "unload_adapter", "set_base"},
    "versions": {
        *("add_adapter", "unload_adapter", "rollback_adapter", "set_base"),
        *("set_candidate", "end_candidate", "set_pin", "set_adapter_pause"),
    },
}
"""For each Lua file that only some scripts include, the names of these scripts."""
MAX_SENT = 64
"""Number of publications that Redis keeps for each worker, namely the latest ones."""
CONSTANTS = {"PROTOCOL_VERSION": PROTOCOL_VERSION, "MAX_SENT": MAX_SENT}
"""Constants that every script begins with, so that Lua and Python have the same values."""
ALWAYS = "capabilities", "accounting", "timeline", "unanswered", "common"
"""Lua files that every script includes, in this order."""

Arg = str | bytes | int
"""One argument of a script."""


class Scripts:
    """Runs the scripts of one pool."""

    def __init__(self, redis: Redis, keys: Keys) -> None:
        self._redis = redis
        self._prefix = keys.prefix
        self._scripts = _scripts()

    async def run(
        self,
        name: str,
        *args: Arg,
        durability: Durability | None = None,
        is_promise: Callable[[Any], bool] = bool,
    ) -> Any:
        """Run a script with arguments (ARGV), and return its reply.

        With `durability`, the call returns once the script's writes have the required copies. If
        `is_promise` returns False for the reply, the call doesn't wait for the copies.

        Raises:
            RedisUnavailable: Redis can't be reached or can't serve, or too few copies exist. The
                script may have run.
        """
        if durability is None:
            return await self.run_on(self._redis, name, *args)
        # WAIT applies to the writes of its own connection, so all calls share one connection.
        async with self._redis.client() as connection:
            reply = await self.run_on(connection, name, *args)
            if is_promise(reply):
                await self.confirm(connection, durability)
            return reply

    async def confirm(self, connection: Redis, durability: Durability) -> None:
        """Wait until all writes that `connection` has made have the required copies.

        `connection` is a client with a single connection.

        Raises:
            RedisUnavailable: Redis can't be reached, or too few copies exist within the time limit.
        """
        history, num_replicas = await self.run_on(connection, "durability_barrier")
        await durability.confirm(connection, Replication(history.decode(), num_replicas))

    async def run_on(self, redis: Redis, name: str, *args: Arg) -> Any:
        """Run a script with the given client and return its reply.

        Raises:
            RedisUnavailable: Redis can't be reached or can't serve. The script may have run.
        """
        script = self._scripts[name]
        keys_and_args: tuple[Any, ...] = (1, self._prefix, *args)
        try:
            return await redis.evalsha(script.sha, *keys_and_args)  # type: ignore[misc]
        except NoScriptError:  # nothing has run; EVAL also loads the script
            return await redis.eval(script.text, *keys_and_args)  # type: ignore[misc]


def flat(rows: Iterable[Iterable[Any]]) -> Iterator[Any]:
    """Return the items of all rows in one sequence, as arguments of a script."""
    return (item for row in rows for item in row)


@dataclass(frozen=True, slots=True)
class _Script:
    text: str
    sha: str


@cache
def _scripts() -> dict[str, _Script]:
    texts = {name: source(name) for name in script_names()}
    return {
        name: _Script(text, hashlib.sha1(text.encode()).hexdigest()) for name, text in texts.items()
    }


def script_names() -> list[str]:
    """Return the names of all scripts, without the files that scripts include."""
    return sorted(_files().keys() - {*ALWAYS, *PARTS})


def source(name: str) -> str:
    """Return the text of a script: its shebang, constants, included files and own lines."""
    shebang, _, body = read_script_file(name).partition("\n")
    parts = [*ALWAYS, *(part for part, scripts in PARTS.items() if name in scripts)]
    shared = "".join(read_script_file(part) for part in parts)
    constants = "".join(f"local {name} = {value}\n" for name, value in CONSTANTS.items())
    return f"{shebang}\n{constants}{shared}{body}"


def read_script_file(name: str) -> str:
    """Return the text of the Lua file `name`.lua."""
    return _files()[name].read_text()


@cache
def _files() -> dict[str, Traversable]:
    folder = files("shared.store") / "lua"
    groups = [entry for entry in folder.iterdir() if entry.is_dir()]
    paths = [path for group in (folder, *groups) for path in group.iterdir() if path.is_file()]
    return {path.name.removesuffix(".lua"): path for path in paths if path.name.endswith(".lua")}
