"""Faults of a Redis server's memory, scripts and clock."""

import time

from ops.lab.chaos.faults.fault import Scene
from ops.lab.chaos.faults.redis_servers import MasterFault
from shared.store.redis.connection import OutOfMemory

PROBE = "chaos:probe"
"""Key that the run writes to see whether Redis accepts writes."""
CLOCK_STEP_S = (60, 120)
CLOCK_TOLERANCE_S = 5


class FillRedis(MasterFault):
    """Makes the Redis master run out of memory, by lowering its memory limit below its usage."""

    kind = "fill-redis"
    hold_s = (2.0, 5.0)

    async def _hit(self) -> None:
        info = await self._servers.ask(self._master, "INFO", "memory")
        limit = int(info["used_memory"]) // 2
        await self._servers.ask(self._master, "CONFIG", "SET", "maxmemory", limit)

    async def evidence(self) -> str:
        """Return a note if Redis refuses a probe write, or an empty text if Redis accepts it."""
        try:
            await self._servers.ask(self._master, "SET", PROBE, 1, "EX", 60)
        except OutOfMemory:
            return "a write was refused for lack of memory"
        return ""

    async def heal(self) -> None:
        """Remove the memory limit."""
        await self._servers.ask(self._master, "CONFIG", "SET", "maxmemory", 0)


class FlushScripts(MasterFault):
    """Removes all Lua scripts that the Redis master has cached."""

    kind = "flush-scripts"

    def __init__(self, scene: Scene) -> None:
        super().__init__(scene)
        self._num_before = 0
        self._num_after = 0

    async def _hit(self) -> None:
        self._num_before = await self._num_scripts()
        pipe = self._pool.redis.pipeline(transaction=True)
        pipe.execute_command("SCRIPT", "FLUSH", "SYNC")
        pipe.info("memory")
        _, info = await pipe.execute()
        self._num_after = int(info["number_of_cached_scripts"])

    async def evidence(self) -> str:
        """Return a note with the number of removed scripts; empty if scripts are left."""
        removed = self._num_before - self._num_after
        return f"{removed} scripts removed" if removed > 0 and not self._num_after else ""

    async def has_recovered(self) -> bool:
        """Return whether processes have loaded scripts again."""
        return await self._num_scripts() > 0

    async def _num_scripts(self) -> int:
        info = await self._servers.ask(self._master, "INFO", "memory")
        return int(info["number_of_cached_scripts"])


class StepClock(MasterFault):
    """Makes the clock of the Redis master jump, and later jump back."""

    hold_s = (3.0, 8.0)
    _sign = 1

    async def _hit(self) -> None:
        step_s = self._sign * self._rng.randint(*CLOCK_STEP_S)
        self._servers.clocks[self._master].set(step_s)

    async def evidence(self) -> str:
        """Return a note with the offset of the server's clock; empty if the clock hasn't jumped."""
        seconds, _ = await self._servers.ask(self._master, "TIME")
        ahead_s = int(seconds) - time.time()
        is_moved = abs(ahead_s - self._servers.clocks[self._master].offset_s) < CLOCK_TOLERANCE_S
        return f"the server's clock is {ahead_s:+.0f} s off" if is_moved else ""

    async def heal(self) -> None:
        """Move the clock back."""
        self._servers.clocks[self._master].set(0)


class ClockForward(StepClock):
    """Makes the clock of the Redis master jump forward."""

    kind = "clock-forward"


class ClockBackward(StepClock):
    """Makes the clock of the Redis master jump backward."""

    kind = "clock-backward"
    _sign = -1
