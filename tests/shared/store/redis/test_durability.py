"""`--durability strict`: acknowledged writes survive power loss and failover."""

import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from queue_support import LIMITS, Actor, eventually, make_job

from ops.local.embedded_redis import EmbeddedRedis
from shared.errors import DuplicateJob, RedisUnavailable, SettingsError
from shared.settings import PoolSettings
from shared.store.jobs.queue import Queue
from shared.store.redis.connection import Redis
from shared.store.redis.durability import (
    LEAVING_S,
    Durability,
    ReplicaCount,
    Replication,
    durability_at,
    durability_of,
)
from shared.store.redis.keys import Keys
from shared.store.views.pool_views import PoolViews

AddReplica = Callable[[], Awaitable[EmbeddedRedis]]


def strict(url: str) -> PoolSettings:
    return PoolSettings(redis_url=url, durability="strict")


@pytest.fixture
async def durable(start_server, open_client, tmp_path: Path) -> EmbeddedRedis:
    """Server that syncs each write to its append-only file."""
    server: EmbeddedRedis = start_server(tmp_path / "data")
    await open_client(server.url).config_set("appendfsync", "always")
    return server


@pytest.fixture
async def add_replica(own_server, start_server, open_client) -> AsyncIterator[AddReplica]:
    """Start a replica of `own_server`, and return it once it is in sync."""
    servers: list[EmbeddedRedis] = []

    async def add() -> EmbeddedRedis:
        servers.append(start_server())
        redis = open_client(servers[-1].url)
        await open_client(own_server.url).config_set("repl-diskless-sync-delay", 0)
        await redis.replicaof("127.0.0.1", own_server.port)

        async def is_in_sync() -> bool:
            return (await redis.info("replication"))["master_link_status"] == "up"

        await eventually(is_in_sync)
        return servers[-1]

    yield add
    for server in servers:
        server.stop()  # before its master, which would wait for it at shutdown


@pytest.fixture
async def replica(add_replica: AddReplica) -> EmbeddedRedis:
    return await add_replica()


async def test_by_default_writes_are_not_waited_for(redis: Redis, redis_url: str) -> None:
    assert await durability_of(redis, PoolSettings(redis_url=redis_url)) is None


async def test_the_append_only_file_is_waited_for_if_each_write_is_synced(
    durable: EmbeddedRedis, open_client, keys: Keys
) -> None:
    redis = open_client(durable.url)
    durability = await durability_of(redis, strict(durable.url))
    assert durability == Durability(local=1, replicas=0)
    queue = Queue(redis, keys, durability=durability)
    worker = await Actor(queue, redis, keys, "w1", ["a@1"]).register()
    job = make_job()
    assert (await queue.enqueue(job, LIMITS)).position == 1
    assert await worker.claim_ids() == [job.id]
    waited = await redis.info("commandstats")
    assert waited["cmdstat_waitaof"]["calls"] == 2


async def test_a_disabled_append_only_file_is_reported(
    durable: EmbeddedRedis, open_client, keys: Keys
) -> None:
    redis = open_client(durable.url)
    durability = await durability_of(redis, strict(durable.url))
    await redis.config_set("appendonly", "no")
    with pytest.raises(RedisUnavailable, match=r"not acknowledged: .*appendonly is disabled"):
        await Queue(redis, keys, durability=durability).enqueue(make_job(), LIMITS)


@pytest.mark.parametrize("appendonly", [True, False])
async def test_a_redis_that_could_lose_writes_is_refused(
    start_server, tmp_path: Path, appendonly: bool
) -> None:
    server = start_server(tmp_path / "data" if appendonly else None)
    with pytest.raises(
        SettingsError, match=r"--durability strict: .*`appendfsync always`.*replica"
    ):
        await durability_at(strict(server.url))


async def test_a_redis_that_hides_its_configuration_counts_as_one_that_could_lose_writes(
    durable: EmbeddedRedis, open_client
) -> None:
    redis = open_client(durable.url)
    await redis.execute_command("ACL", "SETUSER", "default", "-config")
    with pytest.raises(SettingsError, match="--durability strict"):
        await durability_of(redis, strict(durable.url))


async def test_sentinels_promise_a_replica(durable: EmbeddedRedis, open_client) -> None:
    settings = strict("redis+sentinel://127.0.0.1/main")
    assert await durability_of(open_client(durable.url), settings) == Durability(
        local=1, replicas=1
    )


@pytest.mark.slow
async def test_a_replica_is_waited_for(own_server, replica, open_client, keys: Keys) -> None:
    redis = open_client(own_server.url)
    durability = await durability_of(redis, strict(own_server.url))
    assert durability == Durability(local=0, replicas=1)
    queue = Queue(redis, keys, durability=durability)
    worker = await Actor(queue, redis, keys, "w1", ["a@1"]).register()
    job = make_job()
    os.kill(replica.pid, signal.SIGSTOP)
    started_s = time.monotonic()
    with pytest.raises(
        RedisUnavailable, match=r"not acknowledged by 1 of 1 replicas within 1\.5 s"
    ):
        await queue.enqueue(job, LIMITS)
    assert time.monotonic() - started_s > 1
    # Another connection, which hasn't written anything, doesn't report it as accepted either.
    other = Queue(open_client(own_server.url), keys, durability=durability)
    with pytest.raises(RedisUnavailable, match="not acknowledged"):
        await other.enqueue(job, LIMITS)
    with pytest.raises(RedisUnavailable, match="not acknowledged"):
        await worker.claim()
    assert await worker.claim() == []  # an empty claim has nothing to be acknowledged
    os.kill(replica.pid, signal.SIGCONT)
    with pytest.raises(DuplicateJob):
        await queue.enqueue(job, LIMITS)
    await queue.enqueue(make_job(), LIMITS)
    assert len(await worker.claim()) == 1


@pytest.mark.slow
async def test_a_replica_that_was_promoted_is_still_waited_for(
    own_server, replica, add_replica: AddReplica, open_client, keys: Keys
) -> None:
    await add_replica()
    redis = open_client(own_server.url)
    await eventually(lambda: has_replicas(redis, 2))
    queue = Queue(redis, keys, durability=await durability_of(redis, strict(own_server.url)))
    await queue.enqueue(make_job(), LIMITS)
    # The first step of a failover by an operator. The old master doesn't know of it yet.
    await open_client(replica.url).replicaof("no", "one")
    await eventually(lambda: has_replicas(redis, 1))
    with pytest.raises(RedisUnavailable, match="not acknowledged by 1 of 2 replicas"):
        await queue.enqueue(make_job(), LIMITS)


async def has_replicas(redis: Redis, number: int) -> bool:
    return (await redis.info("replication"))["connected_slaves"] == number


LATE = 100 + LEAVING_S


@pytest.mark.parametrize(
    "steps",
    [
        [
            *(("a", 3, 0, 3), ("a", 1, 100, 3), ("a", 2, 101, 3), ("a", 1, LATE, 2)),
            *(("a", 1, LATE + 1, 2), ("a", 1, LATE + LEAVING_S + 1, 1)),
        ],
        [("a", 2, 0, 2), ("a", 1, 1, 2), ("a", 2, LEAVING_S, 2), ("a", 1, LEAVING_S + 2, 2)],
        [("a", 2, 0, 2), ("b", 1, 1, 1)],
    ],
    ids=["replicas leave", "a replica comes back", "a new master"],
)
def test_replicas_that_have_left_count_for_a_while(steps: list[Any]) -> None:
    count = ReplicaCount()
    for master, num_replicas, now_s, num_counted in steps:
        assert count.update(Replication(master, num_replicas), now_s) == num_counted


async def test_a_script_that_redis_has_lost_runs_once(
    durable: EmbeddedRedis, open_client, keys: Keys
) -> None:
    redis = open_client(durable.url)
    queue = Queue(redis, keys, durability=Durability(local=1, replicas=0))
    views = PoolViews(redis, keys)
    for position in (1, 2):
        await redis.script_flush()
        assert (await queue.enqueue(make_job(), LIMITS)).position == position
    assert (await views.counts()).waiting == 2
