"""One Redis or Valkey server, or one Sentinel, that can be killed and started again."""

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ops.local.embedded_redis import find_server
from shared.die_with_parent import die_with_parent
from shared.errors import RedisUnavailable
from shared.store.redis.connection import connect

LOOPBACK = "127.0.0.1"


class RedisServer:
    """A server with a configuration file, which the server itself may rewrite."""

    def __init__(
        self,
        folder: Path,
        port: int,
        lines: Sequence[str],
        *,
        host: str = LOOPBACK,
        environment: Mapping[str, str] | None = None,
        is_sentinel: bool = False,
    ) -> None:
        """Write the configuration. `start` starts the server.

        Args:
            folder: folder of the configuration, the data and the log. It is created.
            port: port of the server.
            lines: lines of the configuration in addition to address, port and folder.
            host: address of the server.
            environment: environment variables of the server in addition to this process's.
            is_sentinel: whether the server is a Sentinel.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self.port = port
        self.host = host
        self.url = f"redis://{host}:{port}/0"
        self._folder = folder
        self._environment = {**os.environ, **(environment or {})}
        self._mode = ["--sentinel"] if is_sentinel else []
        self._process: subprocess.Popen[bytes] | None = None
        common = [f"port {port}", f"bind {host}", f"dir {folder}", "protected-mode no"]
        self._file.write_text("\n".join([*common, *lines]) + "\n")

    @property
    def _file(self) -> Path:
        return self._folder / "server.conf"

    @property
    def pid(self) -> int:
        """Process id of the server, which must have been started."""
        assert self._process is not None
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether the server's process exists, even if it is suspended."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start the process, without waiting until it answers.

        The server ends when the thread that called this method ends.
        """
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [str(find_server()), str(self._file), *self._mode],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C reaches only this process
                preexec_fn=die_with_parent,
            )

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process."""
        os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill the process if it runs, and wait until it has ended."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    async def ask(self, *command: str | int) -> Any:
        """Return the server's reply to a command.

        Raises:
            RedisUnavailable: the server doesn't answer.
        """
        client = connect(self.url)
        try:
            return await client.execute_command(*command)
        finally:
            await client.aclose()

    async def answers(self) -> bool:
        """Return whether this server's own process has loaded its data and answers."""
        try:
            info = await self.ask("INFO", "server")
        except RedisUnavailable:
            return False
        pid = info["process_id"] if isinstance(info, dict) else None
        return bool(pid == self.pid)
