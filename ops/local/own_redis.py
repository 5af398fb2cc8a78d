"""The Redis of `lorikeet up`, which keeps its data over restarts or for this run only."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from urllib.parse import urlsplit

from ops.local.data_folder import DataFolder
from ops.local.embedded_redis import EmbeddedRedis, find_server, start_redis, version_text
from ops.local.ports import LOOPBACK, usable_port
from ops.local.supervisor import Show
from ops.local.temporary_folder import temporary_folder
from shared.errors import SettingsError
from shared.settings import PoolSettings

REDIS_CHECK_S = 0.5
DEFAULT_REDIS_URL: str = PoolSettings.model_fields["redis_url"].default
"""URL of the Redis that commands such as `lorikeet queue` use by default."""
WRITER_FILE = "written-by"
"""File with the name and version of the server that last used the data."""


class OwnRedis:
    """A Redis server that this process owns. If the server ends, it is restarted with its data."""

    def __init__(self, directory: Path, *, syncs_always: bool, lock: int | None = None) -> None:
        """Start a server on the default port, or on a free port if that port is in use.

        Args:
            directory: folder of the append-only file.
            syncs_always: whether to sync the append-only file after each write.
            lock: open file that locks the folder. The server inherits it.

        Raises:
            SettingsError: no server program is found, or the server doesn't start.
        """
        self._directory = directory
        self._syncs_always = syncs_always
        self._inherited = [] if lock is None else [lock]
        self._program = find_server()
        self._server = self._start_near(DEFAULT_REDIS_URL)
        self.url = self._server.url

    async def keep_running(self, show: Show) -> None:
        """Restart the server on the same port whenever it has ended.

        Raises:
            SettingsError: the server doesn't start.
        """
        while True:
            await asyncio.sleep(REDIS_CHECK_S)
            if not self._server.is_running:
                show("redis", "ended unexpectedly, restarts")
                self._server = self._start(self._server.port)

    def stop(self) -> None:
        """Stop the server."""
        self._server.stop()

    def _start_near(self, url: str) -> EmbeddedRedis:
        """Start a server on the port of `url`, or on a free port if that port is in use.

        Raises:
            SettingsError: the server doesn't start.
        """
        with suppress(SettingsError):
            return self._start(usable_port(LOOPBACK, urlsplit(url).port or 0))
        return self._start(None)

    def _start(self, port: int | None) -> EmbeddedRedis:
        writer = self._directory / WRITER_FILE
        name = f"{self._program.name} {version_text(self._program)}"
        try:
            server = start_redis(
                self._directory,
                port=port,
                server=self._program,
                syncs_always=self._syncs_always,
                inherited=self._inherited,
            )
        except SettingsError as error:
            if not writer.exists():
                raise
            raise SettingsError(
                f"{error}\n{name} can't use the data in {self._directory}, which "
                f"{writer.read_text()} wrote. Start with that server, or keep the folder aside: "
                "move it away, or name another --data-dir"
            ) from None
        writer.write_text(name)
        return server


@contextmanager
def own_redis(data: DataFolder | None, *, syncs_always: bool) -> Iterator[OwnRedis]:
    """Provide a Redis server that keeps its data in `data`, or in a temporary folder if it is None.

    After the block, the server is stopped and a temporary folder is removed.

    Raises:
        SettingsError: no server program is found, or the server doesn't start.
    """
    kept = nullcontext(data.redis) if data else temporary_folder("lorikeet-redis-")
    with kept as folder:
        redis = OwnRedis(folder, syncs_always=syncs_always, lock=data.lock if data else None)
        try:
            yield redis
        finally:
            redis.stop()
