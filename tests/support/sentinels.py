"""Starts a master, its replicas and their Sentinels as real servers that end with the tests."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

from queue_support import eventually

from ops.local import embedded_redis
from ops.local.embedded_redis import EmbeddedRedis, find_server, start_redis
from shared.errors import RedisUnavailable
from shared.store.connection import connect

SERVICE = "main"
DOWN_AFTER_MS = 800
# The shortest safe periods. A replica is promoted only if it was pinged within five ping periods,
# and it is pinged once a second while its master is down.
PERIODS = ("ping-period", 250, "info-period", 200, "publish-period", 100, "ask-period", 100)


def spawn(*words: str) -> "subprocess.Popen[bytes]":
    """Start the server program in a process that ends with this one."""
    wrapper = [sys.executable, "-I", "-S", "-c", embedded_redis._DIE_WITH_PARENT, str(os.getpid())]
    return subprocess.Popen(
        [*wrapper, str(find_server()), *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


class Replicated:
    """A master, its replicas, and Sentinels that promote a replica when the master dies."""

    def __init__(self, folder: Path, *, aof: bool = False) -> None:
        self._folder = folder
        self._aof = aof
        self._folders: dict[int, Path | None] = {}
        self._servers: dict[int, EmbeddedRedis] = {}
        self._sentinels: dict[int, subprocess.Popen[bytes]] = {}

    @classmethod
    async def start(
        cls, folder: Path, *, servers: int = 2, sentinels: int = 1, aof: bool = False
    ) -> "Replicated":
        """Start all servers; return when replicas are in sync and Sentinels know each other."""
        self = cls(folder, aof=aof)
        try:
            await self._start(servers, sentinels)
        except BaseException:
            self.stop()
            raise
        return self

    @property
    def url(self) -> str:
        """URL of the Sentinels, for `--redis-url`."""
        hosts = ",".join(f"127.0.0.1:{port}" for port in self._sentinels)
        return f"redis+sentinel://{hosts}/{SERVICE}"

    @property
    def ports(self) -> list[int]:
        """Ports of all servers, that of the first master first."""
        return list(self._folders)

    def url_of(self, port: int) -> str:
        """Return the URL of one server."""
        return f"redis://127.0.0.1:{port}/0"

    def signal(self, port: int, number: signal.Signals) -> None:
        """Send a signal to one server."""
        os.kill(self._servers[port].pid, number)

    def kill(self, port: int) -> None:
        """Kill one server with SIGKILL."""
        self.signal(port, signal.SIGKILL)
        self._servers.pop(port).stop()

    def kill_sentinel(self, number: int) -> None:
        """Kill one Sentinel with SIGKILL. Its address stays in the URL."""
        process = list(self._sentinels.values())[number]
        process.kill()
        process.wait()

    async def restart(self, port: int) -> None:
        """Restart a dead server, and wait until it is a replica of the master."""
        await self._start_server(self._folders[port], port)
        await eventually(lambda: self._is_in_sync(port), within_s=30)

    async def master_port(self) -> int:
        """Return the master's port according to the first live Sentinel."""
        sentinel = next(port for port, each in self._sentinels.items() if each.poll() is None)
        address = await self.ask(sentinel, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE)
        return int(address[1])

    async def promoted(self, old: int) -> int:
        """Wait until a server other than `old` is the master, and return its port."""

        async def new_port() -> int | None:
            port = await self.master_port()
            is_new = port != old and await self.role(port) == "master"
            return port if is_new else None

        port: int = await eventually(new_port, within_s=30)
        return port

    async def role(self, port: int) -> str:
        """Return the role that a server reports, `master` or `slave`; empty without an answer."""
        try:
            role: bytes = (await self.ask(port, "ROLE"))[0]
        except RedisUnavailable:
            return ""
        return role.decode()

    async def ask(self, port: int, *command: str | int) -> Any:
        """Return the reply of one server or Sentinel to a command."""
        client = connect(self.url_of(port))
        try:
            return await client.execute_command(*command)
        finally:
            await client.aclose()

    def stop(self) -> None:
        """Stop all servers and Sentinels that still run. May be called twice."""
        for process in self._sentinels.values():
            process.kill()
            process.wait()
        for port in tuple(self._servers):
            self.kill(port)  # a master that exits normally waits for its replicas

    async def _start(self, servers: int, sentinels: int) -> None:
        for number in range(servers):
            folder = self._folder / f"server-{number}" if self._aof else None
            port = await self._start_server(folder)
            self._folders[port] = folder
        master, *replicas = self.ports
        for replica in replicas:
            await self.ask(replica, "REPLICAOF", "127.0.0.1", master)
        for replica in replicas:
            await eventually(lambda replica=replica: self._is_in_sync(replica))
        for _ in range(sentinels):
            self._start_sentinel(master, quorum=sentinels // 2 + 1)
        for sentinel in self._sentinels:
            await eventually(lambda sentinel=sentinel: self._shorten_periods(sentinel))
        for sentinel in self._sentinels:
            await eventually(lambda sentinel=sentinel: self._knows_all(sentinel), within_s=30)

    async def _start_server(self, folder: Path | None, port: int | None = None) -> int:
        server = start_redis(folder, port=port)
        self._servers[server.port] = server
        await self.ask(server.port, "CONFIG", "SET", "repl-diskless-sync-delay", 0)
        await self.ask(server.port, "CONFIG", "SET", "appendfsync", "always")
        return server.port

    def _start_sentinel(self, master: int, *, quorum: int) -> None:
        port = free_port()
        file = self._folder / f"sentinel-{port}.conf"
        file.write_text(
            f"port {port}\nbind 127.0.0.1\ndir {self._folder}\n"
            f"sentinel monitor {SERVICE} 127.0.0.1 {master} {quorum}\n"
            f"sentinel down-after-milliseconds {SERVICE} {DOWN_AFTER_MS}\n"
            f"sentinel failover-timeout {SERVICE} 3000\n"
        )
        self._sentinels[port] = spawn(str(file), "--sentinel")

    async def _shorten_periods(self, sentinel: int) -> bool:
        try:
            await self.ask(sentinel, "SENTINEL", "DEBUG", *PERIODS)
        except RedisUnavailable:
            return False
        return True

    async def _knows_all(self, sentinel: int) -> bool:
        fields = await self.ask(sentinel, "SENTINEL", "MASTER", SERVICE)
        state = dict(zip(fields[::2], fields[1::2], strict=True))
        found = int(state[b"num-other-sentinels"]), int(state[b"num-slaves"])
        return found == (len(self._sentinels) - 1, len(self.ports) - 1)

    async def _is_in_sync(self, port: int) -> bool:
        try:
            role = await self.ask(port, "ROLE")
        except RedisUnavailable:  # a Sentinel that makes it a replica closes its connections
            return False
        return role[0] == b"slave" and role[3] == b"connected"


class FakeSentinel:
    """Sentinel that names `master`, and requires `password` if it is set."""

    def __init__(self, master: int | None = None) -> None:
        self.master = master
        self.password: bytes | None = None
        self.is_silent = False
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> "FakeSentinel":
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()

    @property
    def address(self) -> str:
        assert self._server is not None
        return f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        is_known = self.password is None
        while command := await _read_command(reader):
            if command[0] == b"AUTH":
                is_known = command[-1] == self.password
                writer.write(b"+OK\r\n" if is_known else b"-WRONGPASS no\r\n")
            elif not self.is_silent:
                writer.write(
                    self._answer() if is_known else b"-NOAUTH Authentication required.\r\n"
                )
        writer.close()

    def _answer(self) -> bytes:
        if self.master is None:
            return b"*-1\r\n"
        port = str(self.master).encode()
        return b"*2\r\n$9\r\n127.0.0.1\r\n$%d\r\n%s\r\n" % (len(port), port)


async def _read_command(reader: asyncio.StreamReader) -> list[bytes]:
    """Return the next command of a client; an empty list at the end."""
    if not (head := await reader.readline()):
        return []
    words = []
    for _ in range(int(head[1:])):
        size = int((await reader.readline())[1:])
        words.append((await reader.readexactly(size + 2))[:-2])
    return words
