import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from worker_support import until

from shared.cancel_tasks import cancel_tasks
from shared.errors import LeaseLost, RedisUnavailable
from shared.protocol.ids import WorkerId
from worker import lease as lease_module
from worker.lease import BEATS_PER_LEASE, Lease, new_worker_id


class FakeMember:
    """Records calls to the pool; the next ones may be scripted to fail."""

    def __init__(self) -> None:
        self.entered: list[WorkerId] = []
        self.renewed: list[WorkerId] = []
        self.left: list[WorkerId] = []
        self.entry_error: Exception | None = None
        self.beat_error: Exception | None = None
        self.loses_while_entering: Lease | None = None

    async def enter(self, wid: WorkerId) -> None:
        error, self.entry_error = self.entry_error, None
        if error:
            raise error
        self.entered.append(wid)
        lease, self.loses_while_entering = self.loses_while_entering, None
        if lease:
            lease.lose(wid)

    async def beat(self, wid: WorkerId) -> None:
        error, self.beat_error = self.beat_error, None
        if error:
            raise error
        self.renewed.append(wid)

    async def leave(self, wid: WorkerId) -> None:
        self.left.append(wid)


@pytest.fixture
def member(monkeypatch: pytest.MonkeyPatch) -> FakeMember:
    monkeypatch.setattr(lease_module, "RETRY_S", 0.001)
    return FakeMember()


@asynccontextmanager
async def running(lease: Lease, member: FakeMember) -> AsyncIterator[None]:
    task = asyncio.create_task(lease.run(member))
    yield
    await cancel_tasks(task)


async def test_an_id_that_is_lost_while_it_is_registered_leaves_the_pool(
    member: FakeMember,
) -> None:
    lease = Lease(lease_ms=300)
    member.loses_while_entering = lease
    await lease.acquire(member)
    assert member.left == member.entered
    assert not lease.is_held.is_set()
    assert lease.wid not in member.entered
    await lease.acquire(member)
    assert lease.is_held.is_set()
    assert member.entered[-1] == lease.wid
    assert lease.wid not in member.left


async def test_a_lease_that_ends_during_the_registration_is_acquired_under_another_id(
    member: FakeMember,
) -> None:
    lease = Lease(lease_ms=30)
    before = lease.wid
    member.entry_error = LeaseLost("scripted")
    await lease.acquire(member)
    assert not lease.is_held.is_set()
    member.entry_error = None
    async with running(lease, member):
        await until(lambda: len(member.entered) == 1)
    assert member.entered != [before]


async def test_a_held_lease_is_renewed_several_times_before_it_would_expire(
    member: FakeMember,
) -> None:
    lease_s = 0.3
    lease = Lease(lease_ms=int(lease_s * 1000))
    await lease.acquire(member)
    loop = asyncio.get_running_loop()
    start_s = loop.time()
    async with running(lease, member):
        await until(lambda: len(member.renewed) == BEATS_PER_LEASE)
    assert lease_s * 0.9 < loop.time() - start_s < lease_s * 3
    assert set(member.renewed) == {lease.wid}
    assert len(member.entered) == 1


async def test_a_lost_lease_is_acquired_again_without_waiting_for_the_next_beat(
    member: FakeMember,
) -> None:
    lease = Lease(lease_ms=10**7)
    await lease.acquire(member)
    async with running(lease, member):
        await asyncio.sleep(0)
        lease.lose(lease.wid)
        await until(lease.is_held.is_set, within_s=5)


async def test_subscribers_are_called_after_the_id_was_replaced(member: FakeMember) -> None:
    lease = Lease(lease_ms=300)
    await lease.acquire(member)
    before, seen = lease.wid, []
    lease.subscribe(lambda: seen.append((lease.wid, lease.is_held.is_set())))
    lease.lose(before)
    assert seen == [(lease.wid, False)]
    assert lease.wid != before


async def test_a_loss_of_an_earlier_id_is_ignored(member: FakeMember) -> None:
    lease = Lease(lease_ms=300)
    earlier = lease.wid
    lease.lose(earlier)
    await lease.acquire(member)
    lease.lose(earlier)
    assert lease.is_held.is_set()
    assert lease.num_losses == 1


async def test_a_lease_is_kept_and_renewed_later_if_redis_is_unavailable(
    member: FakeMember,
) -> None:
    lease = Lease(lease_ms=30)
    await lease.acquire(member)
    wid = lease.wid
    member.beat_error = RedisUnavailable("scripted")
    async with running(lease, member):
        await until(lambda: member.renewed)
    assert (lease.wid, lease.num_losses, member.renewed[0]) == (wid, 0, wid)


async def test_an_acquisition_is_retried_if_redis_is_unavailable(member: FakeMember) -> None:
    lease = Lease(lease_ms=30)
    member.entry_error = RedisUnavailable("scripted")
    async with running(lease, member):
        await until(lease.is_held.is_set)
    assert member.entered == [lease.wid]


def test_worker_ids_are_unique_and_name_the_process() -> None:
    ids = [new_worker_id() for _ in range(3)]
    assert len(set(ids)) == 3
    assert len({worker_id.rsplit(":", 1)[0] for worker_id in ids}) == 1
