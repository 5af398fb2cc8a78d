"""Records of batches, and the rights to run them."""

import time

import pytest
from batch_records import lines, make_batch, stored

from shared.errors import ErrorCode, JobFailed, LeaseLost, QueueFull
from shared.protocol.access.rights import Access
from shared.protocol.ids import FileId
from shared.protocol.results import Usage
from shared.store.batches import batches as batches_module
from shared.store.batches.batch_ends import BatchEnds
from shared.store.batches.batches import Batches, Turn
from shared.store.batches.records import Batch, BatchStatus
from shared.store.redis.connection import Redis
from shared.store.redis.keys import Keys

RED = Access(tenant="red", scopes=frozenset())
BLUE = Access(tenant="blue", scopes=frozenset())
A, B = "1", "2"
"""Runners: the numbers of turns."""


@pytest.fixture
def batches(redis: Redis, keys: Keys) -> Batches:
    return Batches(redis, keys)


async def added(batches: Batches, batch: Batch | None = None) -> Batch:
    batch = batch or make_batch()
    await batches.add(batch, keep_s=1000, max_tenant=99)
    return batch


async def test_a_batch_is_read_as_it_was_added(batches: Batches) -> None:
    batch = await added(batches, make_batch(metadata={"name": "nightly"}))
    assert await batches.get(batch.id) == batch
    await batches.add(batch, keep_s=1000, max_tenant=99)
    assert await batches.open() == [batch.id]


async def test_pages_have_the_newest_batches_first(batches: Batches) -> None:
    made = [await added(batches, make_batch(age_s=age)) for age in (30, 20, 10)]
    await added(batches, make_batch("blue"))
    page = await batches.page(RED, limit=2, after=None)
    assert page is not None
    assert ([each.id for each in page.items], page.has_more) == ([made[2].id, made[1].id], True)
    page = await batches.page(RED, limit=2, after=made[1].id)
    assert page is not None
    assert ([each.id for each in page.items], page.has_more) == ([made[0].id], False)
    assert await batches.page(BLUE, limit=2, after=made[0].id) is None


async def test_a_pool_has_a_limited_number_of_open_batches(
    batches: Batches, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches_module, "MAX_OPEN", 1)
    await added(batches)
    with pytest.raises(QueueFull):
        await added(batches)


async def test_a_tenant_has_a_limited_number_of_batches_also_ended_ones(
    batches: Batches, redis: Redis, keys: Keys
) -> None:
    first = make_batch(age_s=60)
    await batches.add(first, keep_s=1000, max_tenant=2)
    await ended(batches, first)
    await batches.add(make_batch(), keep_s=1000, max_tenant=2)
    with pytest.raises(JobFailed, match=r"2 batches .* --max-batches-tenant") as caught:
        await batches.add(make_batch(), keep_s=1000, max_tenant=2)
    assert caught.value.error.code is ErrorCode.QUOTA_EXCEEDED
    await batches.add(make_batch("blue"), keep_s=1000, max_tenant=2)
    await redis.delete(keys.batch(first.id))  # it has expired
    await batches.add(make_batch(), keep_s=1000, max_tenant=2)


async def test_an_ended_batch_can_be_deleted(batches: Batches, redis: Redis, keys: Keys) -> None:
    batch = await added(batches)
    assert not await batches.delete(batch)
    assert await batches.get(batch.id) == batch
    await ended(batches, batch, announces=True)
    assert await batches.delete(batch)
    assert await redis.keys(f"{keys.prefix}*") == [keys.ended_batches.encode()]


async def test_a_list_lives_as_long_as_its_batches(
    batches: Batches, redis: Redis, keys: Keys
) -> None:
    long, short = make_batch(), make_batch()
    await batches.add(long, keep_s=1000, max_tenant=9)
    await batches.add(short, keep_s=100, max_tenant=9)
    assert await redis.ttl(keys.batches_of("red")) > 900
    await ended(batches, short, keep_s=2000)
    assert await redis.ttl(keys.batches_of("red")) > 1900


async def ended(
    batches: Batches, batch: Batch, *, keep_s: int = 9, announces: bool = False
) -> None:
    """End a batch as a control process does whose input is faulty."""
    while (turn := await batches.take_turn()) and turn.batch != batch.id:
        pass
    await batches.end(batch.id, A, BatchStatus.FAILED, keep_s=keep_s, announces=announces)


async def test_lines_count_once(batches: Batches) -> None:
    batch = await added(batches)
    await batches.take_turn()
    assert await batches.start(batch.id, A, num_requests=10) is BatchStatus.IN_PROGRESS
    await batches.commit(batch.id, A, lines(0, 9))
    with pytest.raises(LeaseLost):
        await batches.commit(batch.id, A, lines(3, 9, parts=["again"]))
    found = await stored(batches, batch.id)
    assert (found.num_requests, found.num_completed, found.status) == (10, 2, "in_progress")
    assert found.usage == Usage(prompt_tokens=3, completion_tokens=2, cached_tokens=1)
    assert await batches.done(batch.id) == bytes([0b1000_0000, 0b0100_0000])
    assert await batches.parts(batch.id) == ["p"]


async def test_a_process_without_the_lease_changes_nothing(batches: Batches) -> None:
    batch = await added(batches)
    await batches.take_turn()
    await batches.release(Turn(batch.id, 9))
    for call in (
        batches.begin(Turn(batch.id, 9)),
        batches.renew(Turn(batch.id, 9)),
        batches.commit(batch.id, B, lines(1)),
        batches.start(batch.id, B, num_requests=1),
        batches.finalize(batch.id, B),
        batches.end(batch.id, B, BatchStatus.COMPLETED, keep_s=9, announces=True),
    ):
        with pytest.raises(LeaseLost):
            await call
    assert await batches.get(batch.id) == batch


async def test_an_ended_batch_leaves_only_its_record(
    batches: Batches, redis: Redis, keys: Keys
) -> None:
    batch = await added(batches)
    await batches.take_turn()
    await batches.start(batch.id, A, num_requests=2)
    await batches.commit(batch.id, A, lines(0, 1))
    await batches.finalize(batch.id, A)
    await batches.end(
        batch.id, A, BatchStatus.COMPLETED, keep_s=9, announces=False, output_file=FileId("file-o")
    )
    found = await stored(batches, batch.id)
    assert (found.status, found.output_file, found.error_file) == ("completed", "file-o", None)
    assert list(found.times) == ["in_progress", "finalizing", "completed"]
    assert 0 < await redis.pttl(keys.batch(batch.id)) <= 9000
    assert await batches.take_turn() is None
    left = {key.decode() for key in await redis.keys(f"{keys.prefix}*")}
    assert left == {keys.batch(batch.id), keys.batches_of("red"), keys.ended_batches}
    fields = {name.decode() for name in await redis.hkeys(keys.batch(batch.id))}  # type: ignore[misc]
    assert fields.isdisjoint({"turn", "deaths", "failures", "failure", "is_alone"})
    assert await batches.open() == []


async def test_a_cancelled_batch_is_not_finalized(batches: Batches) -> None:
    batch = await added(batches)
    await batches.take_turn()
    await batches.start(batch.id, A, num_requests=2)
    await batches.cancel(batch.id)
    await batches.finalize(batch.id, A)
    found = await stored(batches, batch.id)
    assert found.status is BatchStatus.CANCELLING
    await batches.end(batch.id, A, BatchStatus.CANCELLED, keep_s=9, announces=False)
    await batches.cancel(batch.id)
    found = await stored(batches, batch.id)
    assert found.status is BatchStatus.CANCELLED


async def test_an_end_is_announced_until_it_is_forgotten(
    batches: Batches, redis: Redis, keys: Keys
) -> None:
    batch, ends, now = await added(batches), BatchEnds(redis, keys), time.time()
    await batches.take_turn()
    await batches.end(batch.id, A, BatchStatus.EXPIRED, keep_s=9, announces=True)
    (end,) = await ends.due(now, limit=5)
    assert (end.batch, end.status) == (batch.id, "expired")
    await ends.delay(end, now + 60)
    assert await ends.due(now, limit=5) == []
    assert await ends.due(now + 61, limit=5) == [end]
    await ends.forget(end)
    assert await ends.due(now + 61, limit=5) == []
