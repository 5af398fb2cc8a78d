"""The Lua scripts of a pool: atomic, and loaded again by themselves after a restart of Redis."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any

from shared.protocol.codec import PROTOCOL_VERSION
from shared.store.connection import NoScriptError, Redis, redis_errors
from shared.store.durability import Durability
from shared.store.keys import Keys

PARTS = {
    "spread": {"claim", "shrink"},
    "give_back": {"release", "hand_on"},
    "versions": {"add_adapter", "unload_adapter", "rollback_adapter", "set_base"},
}
"""Files that some scripts share, beside `common.lua` in front of all."""

Arg = str | bytes | int
"""One ARGV of a script."""


class Scripts:
    """Runs the scripts of one pool."""

    def __init__(self, redis: Redis, keys: Keys) -> None:
        self._redis = redis
        self._prefix = keys.prefix
        self._scripts = {name: _Script.of(source(name)) for name in script_names()}

    async def run(
        self,
        name: str,
        *args: Arg,
        durability: Durability | None = None,
        is_promise: Callable[[Any], bool] = bool,
    ) -> Any:
        """What the script `name` returns for these ARGV.

        With a `durability`, a reply that `is_promise` comes back once it holds for what the script
        read and wrote.

        Raises:
            RedisUnavailable: Redis is away or refuses, or the copies are too few; the script may
                have run.
        """
        with redis_errors():
            if durability is None:
                return await self._call(self._redis, name, *args)
            # Redis waits for the writes of one connection; another may lead to another server.
            async with self._redis.client() as connection:
                reply = await self._call(connection, name, *args)
                if is_promise(reply):
                    await self._call(connection, "barrier")
                    await durability.confirm(connection)
                return reply

    async def _call(self, redis: Redis, name: str, *args: Arg) -> Any:
        script = self._scripts[name]
        keys_and_args: tuple[Any, ...] = (1, self._prefix, *args)
        try:
            return await redis.evalsha(script.sha, *keys_and_args)  # type: ignore[misc]
        except NoScriptError:  # nothing ran; EVAL loads it too
            return await redis.eval(script.text, *keys_and_args)  # type: ignore[misc]


@dataclass(frozen=True, slots=True)
class _Script:
    text: str
    sha: str

    @classmethod
    def of(cls, text: str) -> "_Script":
        return cls(text, hashlib.sha1(text.encode()).hexdigest())


def script_names() -> list[str]:
    """Names of all scripts that can be run, without the files that they share."""
    return sorted(_files().keys() - {"common", *PARTS})


def source(name: str) -> str:
    """The whole text of a script: its shebang, the shared parts, its own lines."""
    shebang, _, body = read_script_file(name).partition("\n")
    parts = ["common", *(part for part, scripts in PARTS.items() if name in scripts)]
    shared = "".join(read_script_file(part) for part in parts)
    return f"{shebang}\nlocal PROTOCOL_VERSION = {PROTOCOL_VERSION}\n{shared}{body}"


def read_script_file(name: str) -> str:
    """The text of one Lua file as it is on disk."""
    return _files()[name].read_text()


@cache
def _files() -> dict[str, Traversable]:
    folder = files("shared.store") / "lua"
    groups = [entry for entry in folder.iterdir() if entry.is_dir()]
    paths = [path for group in (folder, *groups) for path in group.iterdir() if path.is_file()]
    return {path.name.removesuffix(".lua"): path for path in paths if path.name.endswith(".lua")}
