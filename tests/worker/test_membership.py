"""A worker's registration in the pool, its heartbeats, and its lease."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import chain, repeat
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import call, create_autospec

import pytest
from adapter_versions import BASE
from queue_support import INFO, make_adapter
from running_jobs import WID, add_job
from structlog.testing import capture_logs
from worker_support import until

from shared.cancel_tasks import cancel_tasks
from shared.errors import LeaseLost, RedisUnavailable, SettingsError
from shared.protocol.ids import AdapterVersion, JobId, WorkerId
from shared.protocol.queue_replies import Standing
from shared.protocol.workers import WorkerMode
from shared.store.adapters.registry import Registry
from shared.store.jobs.queue import Queue
from worker import lease as lease_module
from worker.adapters.retention import Retention
from worker.jobs.operator_drain import OperatorDrain
from worker.jobs.publisher import Publisher
from worker.jobs.running import RunningJobs
from worker.lease import BEATS_PER_LEASE, Lease, new_worker_id
from worker.membership import MISMATCHES_UNTIL_RECONCILED, Membership

LEASE_MS = 900
ADAPTER = make_adapter("a@1")


class Setup:
    """A membership with mocks of its collaborators."""

    def __init__(self) -> None:
        self.jobs = RunningJobs()
        self.queue = create_autospec(Queue, instance=True)
        self.queue.beat.return_value = Standing()
        self.registry = create_autospec(Registry, instance=True)
        self.registry.set_base.return_value = "epoch-1"
        self.registry.add_adapter.side_effect = lambda adapter: adapter.version
        self.publisher = create_autospec(Publisher, instance=True)
        self.retention = create_autospec(Retention, instance=True)
        self.ends = SimpleNamespace(job_ids=[])
        held = {AdapterVersion("b@2"), AdapterVersion("a@1")}
        versions: Any = SimpleNamespace(held=held, loading={AdapterVersion("c@3")})
        self.membership = Membership(
            self.queue,
            self.registry,
            versions,
            self.retention,
            self.jobs,
            self.publisher,
            cast(Any, self.ends),
            base=BASE,
            lease_ms=LEASE_MS,
            describe=lambda: INFO,
            drain=create_autospec(OperatorDrain, instance=True, mode=WorkerMode.SERVING),
        )

    async def beat(self, **standing: Any) -> None:
        """Renew the lease; the pool replies with `standing`."""
        self.queue.beat.return_value = Standing(**standing)
        await self.membership.beat(WID)


@pytest.fixture
def setup() -> Setup:
    return Setup()


async def test_adapters_are_registered_again_only_after_the_registry_has_lost_them(
    setup: Setup,
) -> None:
    setup.membership.add_adapter(ADAPTER)
    for _ in range(2):
        await setup.membership.enter(WID)
    assert setup.registry.add_adapter.await_args_list == [call(ADAPTER)]
    setup.registry.set_base.return_value = "epoch-2"
    for _ in range(2):
        await setup.membership.enter(WID)
    assert setup.registry.add_adapter.await_args_list == [call(ADAPTER)] * 2
    held, mode = ["a@1", "b@2"], WorkerMode.SERVING
    as_worker = call(WID, lease_ms=LEASE_MS, info=INFO, residents=held, mode=mode)
    assert setup.queue.register.await_args_list == [as_worker] * 4


async def test_another_base_model_is_not_registered_and_a_newer_version_of_a_name_is_logged(
    setup: Setup,
) -> None:
    setup.membership.add_adapter(ADAPTER)
    setup.registry.set_base.side_effect = SettingsError("scripted")
    with pytest.raises(SettingsError):
        await setup.membership.enter(WID)
    setup.registry.add_adapter.assert_not_awaited()
    setup.queue.register.assert_not_awaited()
    setup.registry.set_base.side_effect = None
    setup.registry.add_adapter.side_effect = lambda _: AdapterVersion("a@9")
    with capture_logs() as logs:
        await setup.membership.enter(WID)
    (entry,) = logs
    assert entry["event"] == "adapter_superseded"
    assert (entry["version"], entry["served"]) == ("a@1", "a@9")


async def test_a_heartbeat_names_the_jobs_and_its_reply_is_applied_to_them(setup: Setup) -> None:
    job = add_job(setup.jobs, claim_epoch=7)
    await setup.beat(booked=1, fenced=frozenset({job.id}))
    setup.queue.beat.assert_awaited_once_with(
        WID, lease_ms=LEASE_MS, info=INFO, loading=["c@3"], known={job.id: 7}
    )
    reply = Standing(booked=1, fenced=frozenset({job.id}))
    setup.publisher.apply_standing.assert_called_once_with(reply, {job.id: 7})


@pytest.mark.parametrize(
    ("error", "num_outages"), [(RedisUnavailable("scripted"), 1), (LeaseLost("scripted"), 0)]
)
async def test_an_outage_is_reported_to_the_publisher(
    setup: Setup, error: Exception, num_outages: int
) -> None:
    setup.queue.beat.side_effect = error
    with pytest.raises(type(error)):
        await setup.membership.beat(WID)
    assert setup.publisher.on_redis_away.call_count == num_outages
    setup.publisher.apply_standing.assert_not_called()


async def test_copies_are_tidied_once_for_each_change_of_the_forgotten_versions(
    setup: Setup,
) -> None:
    await setup.beat()
    assert setup.retention.tidy.call_count == 0
    for _ in range(3):
        await setup.beat(num_forgotten=2)
    assert setup.retention.tidy.call_count == 1
    await setup.beat(num_forgotten=3)
    assert setup.retention.tidy.call_count == 2


async def test_jobs_that_the_worker_does_not_know_are_returned_after_several_mismatches_in_a_row(
    setup: Setup,
) -> None:
    for _ in range(3):
        await setup.beat(booked=1)
        await setup.beat(booked=0)
    job = add_job(setup.jobs)
    setup.ends.job_ids.append(JobId("ended"))  # it may still be lost
    for _ in range(MISMATCHES_UNTIL_RECONCILED):
        setup.queue.reconcile.assert_not_awaited()
        await setup.beat(booked=2)
    setup.queue.reconcile.assert_awaited_once()
    (_, known), options = setup.queue.reconcile.await_args
    assert (sorted(known), options) == (sorted([job.id, "ended"]), {"grace_ms": LEASE_MS // 3})


@pytest.fixture
def member(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(lease_module, "RETRY_S", 0.001)
    return create_autospec(Membership, instance=True)


def ids(method: Any) -> list[WorkerId]:
    """Return the ids that a method of the member was called with."""
    return [call.args[0] for call in method.await_args_list]


@asynccontextmanager
async def running(lease: Lease, member: Any) -> AsyncIterator[None]:
    task = asyncio.create_task(lease.run(member))
    yield
    await cancel_tasks(task)


async def test_an_id_that_is_lost_while_it_is_registered_leaves_the_pool(
    member: Any,
) -> None:
    lease = Lease(lease_ms=300)
    lost = lease.wid
    member.enter.side_effect = lease.lose
    await lease.acquire(member)
    assert ids(member.leave) == ids(member.enter) == [lost]
    assert not lease.is_held.is_set()
    member.enter.side_effect = None
    await lease.acquire(member)
    assert lease.is_held.is_set()
    assert ids(member.enter) == [lost, lease.wid]
    assert ids(member.leave) == [lost] != [lease.wid]


async def test_a_lease_that_ends_during_the_registration_is_acquired_under_another_id(
    member: Any,
) -> None:
    lease = Lease(lease_ms=30)
    before = lease.wid
    member.enter.side_effect = [LeaseLost("scripted"), None]
    await lease.acquire(member)
    assert not lease.is_held.is_set()
    async with running(lease, member):
        await until(lambda: member.enter.await_count == 2)
    assert ids(member.enter)[1] != before


async def test_a_held_lease_is_renewed_several_times_before_it_would_expire(
    member: Any,
) -> None:
    lease_s = 1.0
    lease = Lease(lease_ms=int(lease_s * 1000))
    await lease.acquire(member)
    loop = asyncio.get_running_loop()
    start_s = loop.time()
    async with running(lease, member):
        await until(lambda: member.beat.await_count == BEATS_PER_LEASE)
    assert lease_s * 0.9 < loop.time() - start_s < lease_s * 3
    assert set(ids(member.beat)) == {lease.wid}
    assert member.enter.await_count == 1


async def test_a_lost_lease_is_acquired_again_without_waiting_for_the_next_beat(
    member: Any,
) -> None:
    lease = Lease(lease_ms=10**7)
    await lease.acquire(member)
    async with running(lease, member):
        await asyncio.sleep(0)
        lease.lose(lease.wid)
        await until(lease.is_held.is_set)


async def test_subscribers_see_the_next_id_and_a_loss_of_an_earlier_id_is_ignored(
    member: Any,
) -> None:
    lease = Lease(lease_ms=300)
    earlier, seen = lease.wid, []
    lease.lose(earlier)
    await lease.acquire(member)
    lease.lose(earlier)
    assert lease.is_held.is_set()
    assert lease.num_losses == 1
    before = lease.wid
    lease.subscribe(lambda: seen.append((lease.wid, lease.is_held.is_set())))
    lease.lose(before)
    assert seen == [(lease.wid, False)]
    assert lease.wid != before


async def test_if_redis_is_unavailable_a_lease_is_acquired_and_renewed_later_with_the_same_id(
    member: Any,
) -> None:
    lease = Lease(lease_ms=30)
    for method in (member.enter, member.beat):
        method.side_effect = chain([RedisUnavailable("scripted")], repeat(None))
    async with running(lease, member):
        await until(lambda: member.beat.await_count > 1)
    assert ids(member.enter) == [lease.wid] * 2 == ids(member.beat)[:2]
    assert lease.num_losses == 0


def test_worker_ids_are_unique_and_name_the_process() -> None:
    ids = [new_worker_id() for _ in range(3)]
    assert len(set(ids)) == 3
    assert len({worker_id.rsplit(":", 1)[0] for worker_id in ids}) == 1
