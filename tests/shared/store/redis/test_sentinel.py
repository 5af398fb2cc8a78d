"""A pool with a URL of Sentinels, which name its master, or of a node of a Redis Cluster."""

import asyncio
import signal
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from queue_support import LIMITS, Actor, eventually, make_job

from ops.control import process
from ops.lab.chaos.cluster.replicated import Replicated
from ops.local.embedded_redis import EmbeddedRedis, find_server
from ops.local.ports import free_port
from shared.die_with_parent import die_with_parent
from shared.errors import RedisUnavailable
from shared.protocol.ids import WorkerId
from shared.settings import ControlSettings
from shared.store.jobs.queue import Queue
from shared.store.redis.connection import Redis, check_redis, check_redis_at, connect
from shared.store.redis.durability import Durability
from shared.store.redis.keys import Keys
from shared.store.views.pool_views import PoolViews

Start = Callable[..., Awaitable[Replicated]]


class FakeSentinel:
    """Sentinel that names `master`, and requires `password` if it is set."""

    def __init__(self, master: int | None = None) -> None:
        self.master = master
        self.password: bytes | None = None
        self.is_silent = False
        self.num_asked = 0
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
                continue
            self.num_asked += 1
            if not self.is_silent:
                writer.write(
                    self._answer() if is_known else b"-NOAUTH Authentication required.\r\n"
                )
        writer.close()

    def _answer(self) -> bytes:
        if self.master is None:
            return b"*-1\r\n"
        port = str(self.master).encode()
        return b"*2\r\n$9\r\n127.0.0.1\r\n$%d\r\n%s\r\n" % (len(port), port)


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
    mail = asyncio.create_task(queue.wait(worker.id, timeout_s=60))
    await eventually(lambda: is_waiting(servers, old))
    servers.kill(old)
    servers.kill_sentinel(0)
    with pytest.raises(RedisUnavailable):
        await mail
    with pytest.raises(RedisUnavailable, match="no master of 'main'"):
        await views.counts()
    assert await eventually(lambda: answers(views))
    new = await servers.promoted(old)
    await queue.enqueue(make_job(), LIMITS)
    assert len(await worker.claim()) == 2
    await worker.claim()
    mail = asyncio.create_task(queue.wait(worker.id, timeout_s=60))
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


@pytest.mark.slow
async def test_a_suspended_master_is_replaced_by_the_new_one(
    replicated: Start, open_client, keys: Keys
) -> None:
    servers = await replicated()
    queue = Queue(open_client(servers.url), keys)
    views = PoolViews(open_client(servers.url), keys)
    await queue.enqueue(make_job(), LIMITS)
    servers.signal(servers.ports[0], signal.SIGSTOP)
    assert await eventually(lambda: answers(views))
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
        Queue(open_client(url_of(sentinel)), keys).wait(WorkerId("w"), timeout_s=60)
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
        address, url = gone.address, url_of(gone, sentinel, user="me:secret@")
    with pytest.raises(RedisUnavailable) as caught:
        await check_redis_at(url)
    message = str(caught.value)
    assert message.startswith(f"no Redis at redis+sentinel://me:***@{address}")
    assert "has no service 'main'" in message
    assert "secret" not in message


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


LAST_SLOT = 16383


class Cluster:
    """Redis Cluster of two nodes. The second node has the slot of a pool, the first all others."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._processes: list[subprocess.Popen[bytes]] = []
        self.ports: list[int] = []
        self._bus_ports: list[int] = []
        self.nodes: list[Redis] = []

    async def start(self, keys: Keys) -> None:
        for _ in range(2):
            await self._start_node()
        first, second = self.nodes
        slot = await first.execute_command("CLUSTER", "KEYSLOT", keys.prefix)
        ranges = (0, slot - 1, slot + 1, LAST_SLOT)
        await first.execute_command("CLUSTER", "ADDSLOTSRANGE", *ranges)
        await second.execute_command("CLUSTER", "ADDSLOTS", slot)
        await first.execute_command("CLUSTER", "SET-CONFIG-EPOCH", 1)
        await first.execute_command(
            "CLUSTER", "MEET", "127.0.0.1", self.ports[1], self._bus_ports[1]
        )
        for node in self.nodes:
            await eventually(lambda node=node: self._is_complete(node))

    async def stop(self) -> None:
        for node in self._processes:
            node.kill()
            node.wait()
        for client in self.nodes:
            await client.aclose()

    async def _start_node(self) -> None:
        port = self._spawn()
        self.ports.append(port)
        self.nodes.append(connect(f"redis://127.0.0.1:{port}/0"))
        await eventually(lambda: self._answers(self.nodes[-1]))

    def _spawn(self) -> int:
        port, bus_port = free_port(), free_port()
        words = ["--port", str(port), "--cluster-port", str(bus_port), "--bind", "127.0.0.1"]
        words += ["--cluster-enabled", "yes", "--save", "", "--dir", str(self._folder)]
        words += ["--cluster-config-file", f"{port}.conf"]
        command = [str(find_server()), *words]
        self._processes.append(
            subprocess.Popen(command, stdout=subprocess.DEVNULL, preexec_fn=die_with_parent)
        )
        self._bus_ports.append(bus_port)
        return port

    async def _answers(self, node: Redis) -> bool:
        try:
            return bool(await node.ping())
        except RedisUnavailable:
            return False

    async def _is_complete(self, node: Redis) -> bool:
        info = await node.execute_command("CLUSTER", "INFO")
        return b"cluster_state:ok" in info and b"cluster_slots_ok:%d" % (LAST_SLOT + 1) in info


@pytest.fixture
async def cluster(tmp_path: Path, keys: Keys) -> AsyncIterator[Cluster]:
    cluster = Cluster(tmp_path)
    try:
        await cluster.start(keys)
        yield cluster
    finally:
        await cluster.stop()


async def test_the_node_that_has_the_keys_or_gets_them_is_named(
    cluster: Cluster, keys: Keys
) -> None:
    first, second = cluster.nodes
    named = r"node of a cluster.* set --redis-url to 127\.0\.0\.1:{}$"
    with pytest.raises(RedisUnavailable, match=named.format(cluster.ports[1])):
        await Queue(first, keys).enqueue(make_job(), LIMITS)
    with pytest.raises(RedisUnavailable, match=named.format(cluster.ports[1])):
        await PoolViews(first, keys).counts()
    assert (await Queue(second, keys).enqueue(make_job(), LIMITS)).position == 1
    await second.flushall()
    slot = await first.execute_command("CLUSTER", "KEYSLOT", keys.prefix)
    first_id = await first.execute_command("CLUSTER", "MYID")
    await second.execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", first_id)
    with pytest.raises(RedisUnavailable, match=named.format(cluster.ports[0])):
        await Queue(second, keys).enqueue(make_job(), LIMITS)


async def _read_command(reader: asyncio.StreamReader) -> list[bytes]:
    """Return the next command of a client; an empty list at the end."""
    if not (head := await reader.readline()):
        return []
    words = []
    for _ in range(int(head[1:])):
        size = int((await reader.readline())[1:])
        words.append((await reader.readexactly(size + 2))[:-2])
    return words
