"""Faults that stop, kill, restart or replace Redis servers."""

import signal
from abc import abstractmethod

from api.answers.delivery import KEEP_ALIVE_S
from ops.lab.chaos.cluster.pool import DOWN_AFTER_MS
from ops.lab.chaos.cluster.replicated import SERVICE
from ops.lab.chaos.cluster.supervised import is_suspended
from ops.lab.chaos.faults.fault import Fault, Scene
from shared.store.redis.connection import ResponseError


class RedisFault(Fault):
    """A fault of one or more of the pool's Redis servers."""

    subject = "Redis"

    def __init__(self, scene: Scene) -> None:
        super().__init__(scene)
        self._servers = self._pool.servers

    async def has_recovered(self) -> bool:
        """Return whether there is a master, and all other servers are its replicas."""
        master = await self._servers.master_port()
        others = [port for port in self._servers.ports if port != master]
        is_replicated = all([await self._servers.is_in_sync(port) for port in others])
        return is_replicated and await self._servers.role(master) == "master"


class MasterFault(RedisFault):
    """A fault of the Redis server that is the master when the fault is injected."""

    _master = 0

    async def inject(self) -> None:
        """Find the current master, and cause the fault there."""
        self._master = await self._servers.master_port()
        self.target = f"master {self._master}"
        await self._hit()

    @abstractmethod
    async def _hit(self) -> None:
        """Cause the fault in the server that listens on port `_master`."""

    async def _successor(self) -> int | None:
        """Return the port of the server that has replaced `_master` as master; None if none has."""
        port = await self._servers.master_port()
        is_new = port != self._master and await self._servers.role(port) == "master"
        return port if is_new else None


class PauseRedis(MasterFault):
    """Suspends the master, but not for long enough for a failover."""

    kind = "pause-redis"
    hold_s = (0.2 * DOWN_AFTER_MS / 1000, 0.6 * DOWN_AFTER_MS / 1000)

    async def _hit(self) -> None:
        self._servers.signal(self._master, signal.SIGSTOP)

    async def evidence(self) -> str:
        """Return a note if the server is suspended, otherwise an empty text."""
        return "suspended" if is_suspended(self._servers.pid_of(self._master)) else ""

    async def heal(self) -> None:
        """Continue the server."""
        self._servers.signal(self._master, signal.SIGCONT)


class FreezeRedis(RedisFault):
    """Suspends all servers and Sentinels, for longer than a lease.

    Streams are silent for so long that front ends send keep-alive comments.
    """

    kind = "freeze-redis"
    hold_s = (KEEP_ALIVE_S + 1.0, KEEP_ALIVE_S + 4.0)

    def __init__(self, scene: Scene) -> None:
        super().__init__(scene)
        self._ports = [*self._servers.ports, *self._servers.sentinel_ports]
        self.target = "all servers and Sentinels"

    async def inject(self) -> None:
        """Suspend all servers."""
        for port in self._ports:
            self._servers.signal(port, signal.SIGSTOP)

    async def evidence(self) -> str:
        """Return a note if all servers are suspended, otherwise an empty text."""
        pids = [self._servers.pid_of(port) for port in self._ports]
        return f"{len(pids)} suspended" if all(map(is_suspended, pids)) else ""

    async def heal(self) -> None:
        """Continue all servers."""
        for port in self._ports:
            self._servers.signal(port, signal.SIGCONT)


class KillRedis(MasterFault):
    """Kills the master with SIGKILL. A replica replaces it."""

    kind = "kill-redis"

    async def _hit(self) -> None:
        self._servers.kill(self._master)

    async def evidence(self) -> str:
        """Return a note that names the new master; empty if the master wasn't replaced."""
        port = await self._successor()
        return f"killed, replaced by {port}" if port else ""

    async def heal(self) -> None:
        """Start the server again. It becomes a replica."""
        if not self._servers.is_running(self._master):
            await self._servers.launch(self._master)


class StallRedis(MasterFault):
    """Suspends the master until a replica has replaced it. Then the old master continues."""

    kind = "stall-redis"

    async def _hit(self) -> None:
        self._servers.signal(self._master, signal.SIGSTOP)

    async def evidence(self) -> str:
        """Return a note that names the new master; empty if the master wasn't replaced."""
        port = await self._successor()
        return f"suspended, replaced by {port}" if port else ""

    async def heal(self) -> None:
        """Continue the old master."""
        self._servers.signal(self._master, signal.SIGCONT)


class RestartMaster(MasterFault):
    """Stops the master with SIGTERM, and starts it again at once."""

    kind = "restart-redis-master"

    async def _hit(self) -> None:
        self._servers.signal(self._master, signal.SIGTERM)

    async def evidence(self) -> str:
        """Return a note if the process has ended, otherwise an empty text."""
        return "ended" if not self._servers.is_running(self._master) else ""

    async def heal(self) -> None:
        """Start the server again."""
        if not self._servers.is_running(self._master):
            await self._servers.launch(self._master)


class RestartReplica(RestartMaster):
    """Stops a replica with SIGTERM, and starts it again at once."""

    kind = "restart-redis-replica"

    async def inject(self) -> None:
        """Stop a replica."""
        master = await self._servers.master_port()
        self._master = self._rng.choice([p for p in self._servers.ports if p != master])
        self.target = f"replica {self._master}"
        await self._hit()


class FailOverRedis(MasterFault):
    """Requests a failover from a Sentinel, as an operator does."""

    kind = "fail-over-redis"

    async def _hit(self) -> None:
        await self._request()

    async def evidence(self) -> str:
        """Return a note that names the new master, or an empty text if there is none yet.

        In the second case, request the failover again.
        """
        port = await self._successor()
        if port is None:
            await self._request()
        return f"replaced by {port}" if port else ""

    async def _request(self) -> None:
        sentinel = self._rng.choice(self._servers.sentinel_ports)
        try:
            await self._servers.ask(sentinel, "SENTINEL", "FAILOVER", SERVICE)
        except ResponseError:  # a failover is already in progress, or no replica is suitable yet
            return
