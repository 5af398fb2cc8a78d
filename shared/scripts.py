"""The Lua scripts of a pool: atomic, and loaded again by themselves after a restart of Redis."""

from importlib.resources import files
from typing import Any

from shared.codec import PROTOCOL_VERSION
from shared.connection import Redis, redis_errors
from shared.keys import Keys

PARTS = {
    "spread": {"claim", "shrink"},
    "give_back": {"release", "reconcile", "leave", "reap"},
    "versions": {"add_adapter", "unload_adapter", "rollback_adapter", "set_base"},
}
"""Files that some scripts share, beside `common.lua` in front of all."""

Arg = str | bytes | int
"""One ARGV of a script."""


class Scripts:
    """Runs the scripts of one pool."""

    def __init__(self, redis: Redis, keys: Keys) -> None:
        folder = files("shared") / "lua"
        names = [path.name.removesuffix(".lua") for path in folder.iterdir()]
        self._prefix = keys.prefix
        self._scripts = {
            name: redis.register_script(source(name))
            for name in names
            if name not in {"common", *PARTS}
        }

    async def run(self, name: str, *args: Arg) -> Any:
        """What the script `name` returns for these ARGV.

        Raises:
            RedisUnavailable: Redis is away or refuses; the script may have run.
        """
        with redis_errors():
            return await self._scripts[name](keys=[self._prefix], args=list(args))


def source(name: str) -> str:
    """The whole text of a script: its shebang, the shared parts, its own lines."""
    shebang, _, body = _read(name).partition("\n")
    parts = ["common", *(part for part, scripts in PARTS.items() if name in scripts)]
    shared = "".join(_read(part) for part in parts)
    return f"{shebang}\nlocal PROTOCOL_VERSION = {PROTOCOL_VERSION}\n{shared}{body}"


def _read(name: str) -> str:
    return (files("shared") / "lua" / f"{name}.lua").read_text()
