"""A pool with the URL of the wrong node of a Redis Cluster."""

import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from queue_support import LIMITS, eventually, make_job
from sentinels import spawn

from ops.local.ports import free_port
from shared.errors import RedisUnavailable
from shared.store.jobs.queue import Queue
from shared.store.redis.connection import Redis, connect
from shared.store.redis.keys import Keys
from shared.store.views.pool_views import PoolViews

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
            await eventually(lambda node=node: self._is_complete(node), within_s=15)

    async def stop(self) -> None:
        for process in self._processes:
            process.kill()
            process.wait()
        for node in self.nodes:
            await node.aclose()

    async def _start_node(self) -> None:
        port, bus_port = free_port(), free_port()
        self._processes.append(
            spawn(
                *("--port", str(port), "--cluster-port", str(bus_port), "--bind", "127.0.0.1"),
                *("--cluster-enabled", "yes", "--save", "", "--dir", str(self._folder)),
                *("--cluster-config-file", f"{port}.conf"),
            )
        )
        self.ports.append(port)
        self._bus_ports.append(bus_port)
        self.nodes.append(connect(f"redis://127.0.0.1:{port}/0"))
        await eventually(lambda: self._answers(self.nodes[-1]))

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
