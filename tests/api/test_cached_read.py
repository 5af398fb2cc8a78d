"""A value that many ask for."""

import asyncio

import pytest

from api import cached_read
from api.cached_read import Recent


class Source:
    """Counts how often it is read."""

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


async def test_those_who_ask_at_once_or_soon_after_share_one_read(source: Source) -> None:
    source.is_open.clear()
    value = Recent(source.read)
    asking = [asyncio.create_task(value.get()) for _ in range(10)]
    await asyncio.sleep(0)
    source.is_open.set()
    assert await asyncio.gather(*asking) == [1] * 10
    assert await value.get() == 1


async def test_a_value_grows_old(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    value = Recent(source.read)
    assert await value.get() == 1
    monkeypatch.setattr(cached_read, "MAX_AGE_S", 0)
    assert await value.get() == 2


async def test_a_reader_that_leaves_takes_nothing_from_the_others(source: Source) -> None:
    source.is_open.clear()
    value = Recent(source.read)
    first, second = (asyncio.create_task(value.get()) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.wait((first,))
    source.is_open.set()
    assert await second == 2
