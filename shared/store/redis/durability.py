"""Waits until copies of writes exist, so that the writes survive a power loss and a failover.

Only `--durability strict` uses this. `durability_barrier.lua` reads what the server reports about
its replicas.
"""

import time
from dataclasses import dataclass, field

from redis.exceptions import ResponseError

from shared.errors import RedisUnavailable, SettingsError
from shared.settings import PoolSettings
from shared.store.redis.connection import Redis, connect
from shared.store.redis.sentinel import is_sentinel_url

TIMEOUT_MS = 1500
"""Maximum milliseconds to wait for the copies of one write. It is less than the two seconds that a
call of a front end may take."""
LEAVING_S = 20.0
"""Seconds for which writes still wait for a replica that has left.

Perhaps the replica left because it was promoted, and the old master goes on with the other
replicas. Sentinel makes the old master a replica within about ten seconds. `LEAVING_S` is longer,
so the old master acknowledges no write that the new master lacks."""


@dataclass(frozen=True, slots=True)
class Replication:
    """Report of a Redis master about its replicas."""

    history: str
    """Replication id of the master. It changes when another server becomes the master."""
    num_replicas: int
    """Number of replicas that are in sync and answer."""


class ReplicaCount:
    """Number of replicas to wait for. It decreases `LEAVING_S` seconds after a replica has left."""

    def __init__(self) -> None:
        self._history = ""
        self._count = 0
        self._fewer_since_s: float | None = None
        self._most_since = 0

    def update(self, seen: Replication, now_s: float) -> int:
        """Process a report of the master, and return the number of replicas to wait for.

        `now_s` is the monotonic time of the report.
        """
        if seen.history != self._history or seen.num_replicas >= self._count:
            self._history = seen.history
            self._set(seen.num_replicas)
            return self._count
        if self._fewer_since_s is None:
            self._fewer_since_s = now_s
        self._most_since = max(self._most_since, seen.num_replicas)
        if now_s - self._fewer_since_s >= LEAVING_S:
            self._set(self._most_since)
        return self._count

    def _set(self, count: int) -> None:
        self._count = count
        self._fewer_since_s = None
        self._most_since = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Durability:
    """Number of copies that must exist before a write is acknowledged."""

    local: int
    """1 if the master must have synced the write to its append-only file, else 0."""
    replicas: int
    """0 if no replica needs the write. Otherwise all replicas must have it, because each may be
    promoted, and there must be at least this number of them. If `local` is 1, the write must be in
    their append-only files."""
    _count: ReplicaCount = field(default_factory=ReplicaCount, compare=False, repr=False)

    async def confirm(self, connection: Redis, replication: Replication) -> None:
        """Wait until the required copies exist for all writes that `connection` has made.

        `connection` is a client with a single connection, because Redis can wait only for the
        writes of the connection that asks. `replication` is the server's current report about its
        replicas.

        Raises:
            RedisUnavailable: too few copies exist after `TIMEOUT_MS`. Redis can still make the
                missing copies later.
        """
        required = self._required(replication)
        try:
            local, replicas = await self._wait(connection, required)
        except ResponseError as error:  # the server's role or configuration has changed
            raise RedisUnavailable(f"the write was not acknowledged: {error}") from error
        if local < self.local:
            raise _lacks("the append-only file")
        if replicas < required:
            kind = "append-only files of replicas" if self.local else "replicas"
            raise _lacks(f"{required - replicas} of {required} {kind}")

    def _required(self, replication: Replication) -> int:
        if not self.replicas:
            return 0
        return max(self.replicas, self._count.update(replication, time.monotonic()))

    async def _wait(self, connection: Redis, replicas: int) -> tuple[int, int]:
        if not self.local:
            return 0, int(await connection.wait(replicas, TIMEOUT_MS))
        local, replicas = await connection.waitaof(self.local, replicas, TIMEOUT_MS)
        return local, replicas


def _lacks(copies: str) -> RedisUnavailable:
    within = f"within {TIMEOUT_MS / 1000:g} s"
    return RedisUnavailable(f"the write was not acknowledged by {copies} {within}")


async def durability_of(client: Redis, settings: PoolSettings) -> Durability | None:
    """Return how many copies writes to this server need; None with `--durability default`.

    Raises:
        RedisUnavailable: Redis can't be reached.
        SettingsError: the server doesn't sync each write to an append-only file, and has no
            replica.
    """
    if settings.durability == "default":
        return None
    local = await _syncs_each_write(client)
    has_replica = (await client.info("replication")).get("connected_slaves", 0) > 0
    replicas = has_replica or is_sentinel_url(settings.redis_url)
    if not local and not replicas:
        raise SettingsError(
            "--durability strict: this Redis has no replica and doesn't sync each write to an "
            "append-only file; set `appendonly yes` and `appendfsync always` (Redis 7.2 or "
            "later, or Valkey), or connect a replica"
        )
    return Durability(local=int(local), replicas=int(replicas))


async def durability_at(settings: PoolSettings) -> Durability | None:
    """Run `durability_of` with a temporary client for the pool's Redis.

    Raises:
        RedisUnavailable: Redis can't be reached.
        SettingsError: `durability_of` raises it, or `redis_url` isn't the URL of a Redis server or
            of Sentinels.
    """
    async with connect(settings.redis_url) as client:
        return await durability_of(client, settings)


async def _syncs_each_write(client: Redis) -> bool:
    if not (await client.info("persistence")).get("aof_enabled"):
        return False
    try:
        (waitaof,) = await client.execute_command("COMMAND INFO", "WAITAOF")
        found = await client.config_get("appendfsync")
    except ResponseError:  # some hosted services forbid these commands
        return False
    # With `everysec` some servers acknowledge before they sync: redis/redis#13793.
    return bool(waitaof) and found.get("appendfsync") == "always"
