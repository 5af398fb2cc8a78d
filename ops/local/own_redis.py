"""The Redis server of `lorikeet up`.

It keeps its data across restarts, or deletes the data at the end.
"""

import asyncio
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from urllib.parse import urlsplit

from ops.local.data_folder import DataFolder, not_writable
from ops.local.embedded_redis import (
    EmbeddedRedis,
    PortInUse,
    find_server,
    program_version,
    start_redis,
)
from ops.local.ports import LOOPBACK
from ops.local.redis_login import DEFAULT_REDIS_URL, published
from ops.local.supervisor import Show
from shared.errors import SettingsError
from worker.model.machine_memory import machine_memory

REDIS_CHECK_S = 0.5
PASSWORD_BYTES = 16
MEMORY_SHARE = 1 / 8
"""Share of this machine's memory that the server may use."""
MIN_MEMORY_BYTES = 256 << 20
WRITER_FILE = "written-by"
"""File with the name and version of the server that last used the data."""
# Shell program that waits for the end of this process, which ends its input. It then removes a
# folder, to which Redis may still write for some seconds.
_REMOVE_AFTER_PARENT = """
cat > /dev/null
for _ in 1 2 3 4 5 6 7 8 9 10; do rm -rf -- "$1"; [ -e "$1" ] || exit 0; sleep 1; done
"""


def max_memory_bytes() -> int:
    """Return the memory that the server may use, in bytes. Beyond it, requests are refused."""
    return max(MIN_MEMORY_BYTES, int(machine_memory().total * MEMORY_SHARE))


class OwnRedis:
    """A Redis server that this process owns. If the server ends, it is restarted with its data."""

    def __init__(self, directory: Path, *, syncs_always: bool, lock: int | None = None) -> None:
        """Start a server on the default port, or on a free port if that port is in use.

        The server keeps its append-only file in `directory`, and inherits the open file `lock`.

        Raises:
            SettingsError: no server program is found, or the server doesn't start.
        """
        self._directory = directory
        self._syncs_always = syncs_always
        self._inherited = [] if lock is None else [lock]
        self._program = find_server()
        self._password = secrets.token_hex(PASSWORD_BYTES)
        try:
            self._server = self._start(urlsplit(DEFAULT_REDIS_URL).port)
        except PortInUse:
            self._server = self._start(None)
        self.url = self._server.url
        """URL with the password of the server, which only this user may know."""
        self.public_url = f"redis://{LOOPBACK}:{self._server.port}/0"
        """URL without the password, which this user's commands find through `redis_login.py`."""

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

    def _start(self, port: int | None) -> EmbeddedRedis:
        name = program_version(self._program)
        try:
            server = start_redis(
                self._directory,
                port=port,
                server=self._program,
                syncs_always=self._syncs_always,
                inherited=self._inherited,
                password=self._password,
                max_memory_bytes=max_memory_bytes(),
            )
        except PortInUse:
            raise
        except SettingsError as error:
            writer = self._writer()
            if writer in ("", name):  # no other server wrote the data
                raise
            raise SettingsError(
                f"{error}\n{name} can't use the data in {self._directory}, which "
                f"{writer} wrote. Start with that server, or keep the folder aside: "
                "move it away, or name another --data-dir"
            ) from None
        try:
            self._record_writer(name)
        except OSError as error:
            server.stop()
            raise not_writable(self._directory, error) from None
        return server

    def _writer(self) -> str:
        """Return the server that last used the data, or an empty string if none has."""
        with suppress(OSError):
            return (self._directory / WRITER_FILE).read_text(errors="replace")
        return ""

    def _record_writer(self, name: str) -> None:
        if self._writer() != name:
            new = self._directory / f"{WRITER_FILE}.new"
            new.write_text(name)
            new.replace(self._directory / WRITER_FILE)


@contextmanager
def own_redis(data: DataFolder | None, *, syncs_always: bool) -> Iterator[OwnRedis]:
    """Provide a Redis server that keeps its data in `data`, or else in a temporary folder.

    After the block, the server is stopped and a temporary folder is removed.

    Raises:
        SettingsError: no server program is found, or the server doesn't start.
    """
    kept = nullcontext(data.redis) if data else temporary_folder("lorikeet-redis-")
    with kept as folder:
        redis = OwnRedis(folder, syncs_always=syncs_always, lock=data.lock if data else None)
        try:
            with published(redis.url):
                yield redis
        finally:
            redis.stop()


@contextmanager
def temporary_folder(prefix: str) -> Iterator[Path]:
    """Provide a private folder that is removed after the block, or once this process is killed."""
    folder = Path(tempfile.mkdtemp(prefix=prefix))
    remover = subprocess.Popen(
        ["/bin/sh", "-c", _REMOVE_AFTER_PARENT, "sh", str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd="/",
        start_new_session=True,  # Ctrl-C must not end it
    )
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        remover.communicate()
