"""Cached reads of the pool's status."""

import asyncio

import httpx
import pytest
from api_support import (
    RunningApp,
)

from api.pools import pool_status
from api.pools.pool_status import CachedRead
from shared.store.views.pool_views import PoolViews, WorkerView


async def test_frequent_checks_and_scrapes_share_one_read(
    http: httpx.AsyncClient, server: RunningApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool_status, "MAX_AGE_S", 60)
    num_reads = 0
    read = PoolViews.workers

    async def counting_read(views: PoolViews) -> list[WorkerView]:
        nonlocal num_reads
        num_reads += 1
        return await read(views)

    monkeypatch.setattr(PoolViews, "workers", counting_read)
    for path in ("/ready", "/metrics"):
        num_reads = 0
        replies = await asyncio.gather(*(http.get(path) for _ in range(20)))
        assert len({reply.status_code for reply in replies}) == 1
        assert num_reads == 1
    assert (
        'endpoint="/metrics"' in (await http.get("/metrics")).text
    )  # metrics of this process aren't cached


class Source:
    """Source that counts its reads."""

    def __init__(self) -> None:
        self.num_reads = 0
        self.is_open = asyncio.Event()
        self.is_open.set()

    async def read(self) -> int:
        self.num_reads += 1
        await self.is_open.wait()
        return self.num_reads


@pytest.fixture
def source() -> Source:
    return Source()


async def test_an_old_value_is_read_again(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    value = CachedRead(source.read)
    assert await value.get() == 1
    monkeypatch.setattr(pool_status, "MAX_AGE_S", 0)
    assert await value.get() == 2


async def test_a_cancelled_caller_does_not_affect_the_others(source: Source) -> None:
    source.is_open.clear()
    value = CachedRead(source.read)
    first, second = (asyncio.create_task(value.get()) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.wait((first,))
    source.is_open.set()
    assert await second == 2
