"""A pool with a URL of Sentinels, which name its master."""

import asyncio
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from queue_support import LIMITS, Actor, eventually, make_job
from sentinels import FakeSentinel

from ops.control import process
from ops.lab.chaos.cluster.replicated import Replicated
from ops.local.embedded_redis import EmbeddedRedis
from shared.errors import RedisUnavailable
from shared.protocol.ids import WorkerId
from shared.settings import ControlSettings
from shared.store.jobs.queue import Queue
from shared.store.redis.connection import Redis, check_redis, check_redis_at, connect
from shared.store.redis.durability import Durability
from shared.store.redis.keys import Keys
from shared.store.views.pool_views import PoolViews

Start = Callable[..., Awaitable[Replicated]]


@pytest.fixture
async def replicated(tmp_path: Path) -> AsyncIterator[Start]:
    """Return a function that starts a master, replicas and Sentinels, as in
    `await replicated(sentinels=3)`."""
    started: list[Replicated] = []

    async def start(**options: int) -> Replicated:
        started.append(await Replicated.start(tmp_path, **options))
        return started[-1]

    yield start
    for each in started:
        each.stop()


@pytest.fixture
async def sentinel(own_server: EmbeddedRedis) -> AsyncIterator[FakeSentinel]:
    """Fake Sentinel that names `own_server` as the master until a test changes it."""
    async with FakeSentinel(own_server.port) as fake:
        yield fake


def url_of(*sentinels: FakeSentinel, user: str = "") -> str:
    return f"redis+sentinel://{user}{','.join(each.address for each in sentinels)}/main"


async def num_waiting(redis: Redis, keys: Keys) -> int:
    return (await PoolViews(redis, keys).counts()).waiting


@pytest.mark.slow
async def test_a_pool_continues_at_the_new_master(
    replicated: Start, open_client, keys: Keys
) -> None:
    servers = await replicated(sentinels=3)
    redis = open_client(servers.url)
    await check_redis(redis, servers.url)
    queue = Queue(redis, keys)
    views = PoolViews(redis, keys)
    worker = await Actor(queue, redis, keys, "w1", ["a@1"]).register()
    await queue.enqueue(make_job(), LIMITS)
    old = servers.ports[0]
    assert await servers.ask(old, "WAIT", 1, 5000) == 1
    mail = asyncio.create_task(queue.wait(worker.id, timeout_s=2))
    await eventually(lambda: is_waiting(servers, old))
    servers.kill(old)
    servers.kill_sentinel(0)
    with pytest.raises(RedisUnavailable):
        await mail
    with pytest.raises(RedisUnavailable, match="no master of 'main'"):
        await views.counts()
    assert await eventually(lambda: answers(views), within_s=15)
    new = await servers.promoted(old)
    await queue.enqueue(make_job(), LIMITS)
    assert len(await worker.claim()) == 2
    await worker.claim()
    mail = asyncio.create_task(queue.wait(worker.id, timeout_s=2))
    await queue.enqueue(make_job(), LIMITS)
    assert (await mail) is not None
    strict = Queue(redis, keys, durability=Durability(local=0, replicas=1))
    with pytest.raises(RedisUnavailable, match="not acknowledged by 1 of 1 replicas"):
        await strict.enqueue(make_job(), LIMITS)
    await servers.restart(old)
    await strict.enqueue(make_job(), LIMITS)
    assert await servers.role(new) == "master"
    assert b"cmdstat_eval" not in await servers.ask(old, "INFO", "commandstats")


async def is_waiting(servers: Replicated, port: int) -> bool:
    return b"cmd=blpop" in await servers.ask(port, "CLIENT", "LIST")


async def answers(views: PoolViews) -> bool:
    try:
        async with asyncio.timeout(1):  # as in front ends; a suspended server never answers
            await views.counts()
    except (RedisUnavailable, TimeoutError):
        return False
    return True


async def test_a_suspended_master_is_replaced_by_the_new_one(
    replicated: Start, open_client, keys: Keys
) -> None:
    servers = await replicated()
    queue = Queue(open_client(servers.url), keys)
    views = PoolViews(open_client(servers.url), keys)
    await queue.enqueue(make_job(), LIMITS)
    servers.signal(servers.ports[0], signal.SIGSTOP)
    assert await eventually(lambda: answers(views), within_s=20)
    assert await servers.master_port() == servers.ports[1]


async def test_connections_to_a_master_that_becomes_a_replica_end(
    own_server, start_server, sentinel: FakeSentinel, open_client, keys: Keys
) -> None:
    redis, new = open_client(url_of(sentinel)), start_server()
    queue = Queue(redis, keys)
    views = PoolViews(redis, keys)
    await queue.enqueue(make_job(), LIMITS)
    await open_client(own_server.url).replicaof("127.0.0.1", new.port)
    with pytest.raises(RedisUnavailable, match="has become a replica"):
        await queue.enqueue(make_job(), LIMITS)
    with pytest.raises(RedisUnavailable, match=f"127.0.0.1:{own_server.port} is a replica"):
        await views.counts()  # a replica could answer this command
    sentinel.master = new.port
    await queue.enqueue(make_job(), LIMITS)
    assert await num_waiting(open_client(new.url), keys) == 1


async def test_a_wait_ends_when_its_master_becomes_a_replica(
    own_server, start_server, sentinel: FakeSentinel, open_client, keys: Keys
) -> None:
    direct, new = open_client(own_server.url), start_server()
    mail = asyncio.create_task(
        Queue(open_client(url_of(sentinel)), keys).wait(WorkerId("w"), timeout_s=2)
    )

    async def waits() -> bool:
        return any(each["cmd"] == "blpop" for each in await direct.client_list())

    await eventually(waits)
    await direct.replicaof("127.0.0.1", new.port)
    with pytest.raises(RedisUnavailable, match="has become a replica"):
        await mail


async def test_idle_connections_to_an_earlier_master_are_not_used(
    own_server, start_server, sentinel: FakeSentinel, open_client, keys: Keys
) -> None:
    redis, old, new = open_client(url_of(sentinel)), open_client(own_server.url), start_server()
    queue = Queue(redis, keys)
    await asyncio.gather(*(queue.enqueue(make_job(), LIMITS) for _ in range(4)))
    sentinel.master = new.port
    # The old master keeps running, isolated from its Sentinels. One connection to it breaks.
    async with redis.client() as broken:
        await old.client_kill_filter(_id=str(await broken.client_id()))
    await queue.enqueue(make_job(), LIMITS)
    await asyncio.gather(*(queue.enqueue(make_job(), LIMITS) for _ in range(4)))
    assert await num_waiting(old, keys) == 4
    assert await num_waiting(open_client(new.url), keys) == 5


async def test_a_sentinel_that_names_a_replica_is_skipped(
    own_server, start_server, sentinel: FakeSentinel, open_client, keys: Keys
) -> None:
    replica = start_server()
    await open_client(replica.url).replicaof("127.0.0.1", own_server.port)
    async with FakeSentinel(replica.port) as stale, FakeSentinel(None) as ignorant:
        redis = open_client(url_of(stale, ignorant, sentinel))
        await Queue(redis, keys).enqueue(make_job(), LIMITS)
    assert await num_waiting(open_client(own_server.url), keys) == 1
    replica.stop()  # before its master, which would wait for it at shutdown


async def test_a_silent_sentinel_is_skipped(sentinel: FakeSentinel, open_client) -> None:
    async with FakeSentinel() as silent:
        silent.is_silent = True
        assert await open_client(url_of(silent, sentinel)).ping()
        assert silent.num_asked > 0


async def test_a_call_that_is_cut_off_does_not_ask_silent_sentinels_again(
    sentinel: FakeSentinel, open_client
) -> None:
    async with FakeSentinel() as silent:
        silent.is_silent = True
        redis = open_client(url_of(silent, sentinel))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await redis.ping()
        num_asked = silent.num_asked
        assert await redis.ping()
        assert silent.num_asked == num_asked


async def test_without_a_master_the_message_gives_the_reasons(sentinel: FakeSentinel) -> None:
    sentinel.master = None
    async with FakeSentinel() as gone:
        url = url_of(gone, sentinel, user="me:secret@")
    with pytest.raises(RedisUnavailable) as caught:
        await check_redis_at(url)
    message = str(caught.value)
    assert message.startswith(f"no Redis at redis+sentinel://me:***@{gone_address(url)}")
    assert "has no service 'main'" in message
    assert "secret" not in message


def gone_address(url: str) -> str:
    return url.partition("@")[2].partition(",")[0]


async def test_a_password_is_sent_to_the_master_and_to_sentinels_that_require_it(
    own_server, sentinel: FakeSentinel, open_client
) -> None:
    await open_client(own_server.url).config_set("requirepass", "secret")
    url = url_of(sentinel, user=":secret@")
    await check_redis_at(url)
    sentinel.password = b"secret"
    await check_redis_at(url)
    sentinel.password = b"another"
    with pytest.raises(RedisUnavailable, match="no master"):
        await check_redis_at(url)


async def test_an_exhausted_pool_waits_for_a_connection(sentinel: FakeSentinel) -> None:
    redis = connect(url_of(sentinel), max_connections=1)
    answers = await asyncio.gather(*(redis.blpop(["nothing"], timeout=0.1) for _ in range(3)))
    assert answers == [None] * 3
    await redis.aclose()


async def test_the_control_process_finds_the_master(
    own_server, sentinel: FakeSentinel, open_client, keys: Keys
) -> None:
    redis = open_client(own_server.url)
    await Actor(Queue(redis, keys), redis, keys, "w1", ["a@1"]).register(lease_ms=100)
    settings = ControlSettings(redis_url=url_of(sentinel), pool=keys.pool)
    stopping = asyncio.Event()
    running = asyncio.create_task(process._run_until(stopping, settings, None))

    async def is_given_up() -> bool:
        return not await redis.zcard(keys.workers)

    await eventually(is_given_up)
    stopping.set()
    await running
