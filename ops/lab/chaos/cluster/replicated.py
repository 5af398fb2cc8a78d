"""A Redis master, its replicas, and Sentinels that promote a replica when the master dies."""

import signal
from pathlib import Path
from typing import Any

from ops.lab.chaos.cluster.clock import Clock
from ops.lab.chaos.cluster.redis_server import LOOPBACK, RedisServer
from ops.lab.chaos.polling import until
from ops.local.ports import free_port
from shared.errors import RedisUnavailable

SERVICE = "main"
DOWN_AFTER_MS = 800
START_S = 30.0
# The shortest safe periods. A replica is promoted only if it was pinged within five ping periods,
# and it is pinged once a second while its master is down. A Sentinel that was itself suspended
# takes no part in failovers for the tilt period.
PERIODS = (
    *("ping-period", 250, "info-period", 200, "publish-period", 100, "ask-period", 100),
    *("tilt-period", 3000),
)


class Replicated:
    """Running servers and Sentinels. They end when the thread that started them ends."""

    def __init__(
        self,
        folder: Path,
        *,
        aof: bool = False,
        host: str = LOOPBACK,
        down_after_ms: int = DOWN_AFTER_MS,
        clock_library: Path | None = None,
    ) -> None:
        self._folder = folder
        self._aof = aof
        self._host = host
        self._down_after_ms = down_after_ms
        self._clock_library = clock_library
        self._servers: dict[int, RedisServer] = {}
        self._sentinels: dict[int, RedisServer] = {}
        self.clocks: dict[int, Clock] = {}
        """Clock of each server, by port."""

    @classmethod
    async def start(
        cls, folder: Path, *, servers: int = 2, sentinels: int = 1, **options: Any
    ) -> "Replicated":
        """Start all servers; return when replicas are in sync and Sentinels know each other.

        Args:
            folder: folder of the servers' files.
            servers: number of servers, one of which is the master.
            sentinels: number of Sentinels.
            options: options of the constructor. With `aof`, servers keep their data in files that
                they sync after each write. `down_after_ms` is the time without an answer after
                which a Sentinel considers the master down. With `clock_library`, each server has a
                clock that can be moved.
        """
        self = cls(folder, **options)
        try:
            await self._start(servers, sentinels)
        except BaseException:
            self.stop()
            raise
        return self

    @property
    def url(self) -> str:
        """URL of the Sentinels, for `--redis-url`."""
        hosts = ",".join(f"{self._host}:{port}" for port in self._sentinels)
        return f"redis+sentinel://{hosts}/{SERVICE}"

    @property
    def ports(self) -> list[int]:
        """Ports of all servers. The first port is that of the server that started as the master."""
        return list(self._servers)

    @property
    def sentinel_ports(self) -> list[int]:
        """Ports of all Sentinels."""
        return list(self._sentinels)

    def pid_of(self, port: int) -> int:
        """Return the process id of a server or Sentinel."""
        return self._at(port).pid

    def is_running(self, port: int) -> bool:
        """Return whether the process of a server runs, or is suspended."""
        return self._servers[port].is_running

    def signal(self, port: int, number: signal.Signals) -> None:
        """Send a signal to one server or Sentinel."""
        self._at(port).signal(number)

    def kill(self, port: int) -> None:
        """Kill one server with SIGKILL."""
        self._servers[port].kill()

    def kill_sentinel(self, number: int) -> None:
        """Kill one Sentinel with SIGKILL. Its address stays in the URL."""
        self._sentinels[self.sentinel_ports[number]].kill()

    async def launch(self, port: int) -> None:
        """Start a server that has ended, and wait until it answers."""
        server = self._servers[port]
        server.start()
        await until(server.answers, f"the Redis server on port {port} answers", within_s=START_S)

    async def restart(self, port: int) -> None:
        """Restart a dead server, and wait until it is a replica of the master."""
        await self.launch(port)
        await until(lambda: self.is_in_sync(port), f"{port} is in sync", within_s=START_S)

    async def master_port(self) -> int:
        """Return the port that the first live Sentinel reports as the master's."""
        sentinel = next(each for each in self._sentinels.values() if each.is_running)
        address = await sentinel.ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE)
        return int(address[1])

    async def promoted(self, old: int, *, within_s: float = 30.0) -> int:
        """Wait until a server other than `old` is the master, and return its port."""

        async def new_port() -> int | None:
            port = await self.master_port()
            is_new = port != old and await self.role(port) == "master"
            return port if is_new else None

        found = await until(new_port, f"Sentinels replace the master {old}", within_s=within_s)
        assert found is not None
        return found

    async def role(self, port: int) -> str:
        """Return the role that a server reports, `master` or `slave`; empty if it is silent."""
        try:
            role: bytes = (await self.ask(port, "ROLE"))[0]
        except RedisUnavailable:
            return ""
        return role.decode()

    async def is_in_sync(self, port: int) -> bool:
        """Return whether a server is a replica that is connected to its master."""
        try:
            role = await self.ask(port, "ROLE")
        except RedisUnavailable:  # its connections close when a Sentinel makes it a replica
            return False
        return bool(role[0] == b"slave" and role[3] == b"connected")

    async def ask(self, port: int, *command: str | int) -> Any:
        """Return the reply of one server or Sentinel to a command."""
        return await self._at(port).ask(*command)

    def stop(self) -> None:
        """Stop all servers and Sentinels that still run. May be called twice."""
        for each in (*self._sentinels.values(), *self._servers.values()):
            each.kill()  # a master that exits normally waits for its replicas

    def _at(self, port: int) -> RedisServer:
        return self._servers.get(port) or self._sentinels[port]

    async def _start(self, servers: int, sentinels: int) -> None:
        for number in range(servers):
            await self._start_server(self._folder / f"server-{number}")
        master, *replicas = self.ports
        for port in replicas:
            await self.ask(port, "REPLICAOF", self._host, master)
        for port in replicas:
            await until(lambda port=port: self.is_in_sync(port), f"{port} is in sync")  # type: ignore[misc]
            await self.ask(port, "CONFIG", "REWRITE")  # a server that restarts is a replica again
        for _ in range(sentinels):
            self._start_sentinel(master, quorum=sentinels // 2 + 1)
        for port in self._sentinels:
            subject = f"the Sentinel on port {port} answers"
            await until(lambda port=port: self._shorten_periods(port), subject)  # type: ignore[misc]
        for port in self._sentinels:
            subject = f"the Sentinel on port {port} knows all others"
            await until(lambda port=port: self._knows_all(port), subject)  # type: ignore[misc]

    async def _start_server(self, folder: Path) -> None:
        server = self._new_server(folder, free_port())
        self._servers[server.port] = server
        await self.launch(server.port)

    def _new_server(self, folder: Path, port: int) -> RedisServer:
        lines = ['save ""', "maxmemory-policy noeviction", "repl-diskless-sync-delay 0"]
        lines += ["appendonly yes", "appendfsync always"] if self._aof else _KEEPS_NOTHING
        environment = None
        if self._clock_library:
            folder.mkdir(parents=True)
            self.clocks[port] = Clock(self._clock_library, folder / "clock")
            environment = self.clocks[port].environment
        return RedisServer(folder, port, lines, host=self._host, environment=environment)

    def _start_sentinel(self, master: int, *, quorum: int) -> None:
        port = free_port()
        lines = [
            f"sentinel monitor {SERVICE} {self._host} {master} {quorum}",
            f"sentinel down-after-milliseconds {SERVICE} {self._down_after_ms}",
            f"sentinel failover-timeout {SERVICE} 3000",
        ]
        folder = self._folder / f"sentinel-{port}"
        self._sentinels[port] = RedisServer(folder, port, lines, host=self._host, is_sentinel=True)
        self._sentinels[port].start()

    async def _shorten_periods(self, port: int) -> bool:
        await self.ask(port, "SENTINEL", "DEBUG", *PERIODS)
        return True

    async def _knows_all(self, port: int) -> bool:
        fields = await self.ask(port, "SENTINEL", "MASTER", SERVICE)
        state = dict(zip(fields[::2], fields[1::2], strict=True))
        found = int(state[b"num-other-sentinels"]), int(state[b"num-slaves"])
        return found == (len(self._sentinels) - 1, len(self._servers) - 1)


# A replica receives the data as a file. A server that restarts must not load this file.
_KEEPS_NOTHING = ["appendonly no", "rdb-del-sync-files yes"]
