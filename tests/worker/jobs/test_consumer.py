"""Unit tests of claims and admissions, with fakes of the queue, the engine and the loader."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, cast

import pytest
from queue_support import make_job as make_any_job
from running_jobs import WID
from scripted_engine import BASE, ScriptedEngine, scripted_model
from worker_support import until

from shared.cancel_tasks import cancel_tasks
from shared.errors import ErrorCode, LeaseLost, RedisUnavailable
from shared.protocol.ids import AdapterVersion, JobId, WorkerId
from shared.protocol.jobs import ClaimedJob, Job, JobState
from shared.protocol.queue_replies import Claim, Undecodable
from worker.adapters.loader import NoAdapterMemory
from worker.adapters.residency import Residency
from worker.engine.request import Request
from worker.jobs import consumer as consumer_module
from worker.jobs.consumer import Consumer
from worker.jobs.publisher import CANCELLED
from worker.jobs.running import RunningJob, RunningJobs
from worker.text.prompt_style import BASE_STYLE

ADAPTER = AdapterVersion("sql@1")
MAX_NUM_SEQS = 4


def make_job(version: AdapterVersion = BASE.version, **fields: Any) -> Job:
    return make_any_job(version, **fields)


def claim_of(
    *jobs: Job, undecodable: tuple[Undecodable, ...] = (), is_parked: bool = False
) -> Claim:
    claimed = tuple(
        ClaimedJob(job=job, try_=1, suspect=False, claim_epoch=7, left_ms=60_000) for job in jobs
    )
    return Claim(jobs=claimed, undecodable=undecodable, next_steal_ms=None, is_parked=is_parked)


class FakeQueue:
    """Gives scripted replies to claims, then empty ones; records all calls."""

    def __init__(self) -> None:
        self.replies: list[Claim | Exception] = []
        self.claims: list[dict[str, Any]] = []
        self.released: list[JobId] = []
        self.finished: list[tuple[JobId, JobState]] = []
        self.may_reply = asyncio.Event()
        self.may_reply.set()

    async def claim(self, wid: WorkerId, **wanted: Any) -> Claim:
        self.claims.append(wanted)
        await self.may_reply.wait()
        reply = self.replies.pop(0) if self.replies else claim_of()
        if isinstance(reply, Exception):
            raise reply
        return reply

    async def release(self, wid: WorkerId, jobs: list[JobId]) -> None:
        self.released += jobs

    async def finish(self, wid: WorkerId, end: Any, result: Any, *, claim_epoch: int) -> None:
        self.finished.append((end.job, end.state))


class FakePublisher:
    """Records how jobs end."""

    def __init__(self) -> None:
        self.ended: list[tuple[JobId, JobState, ErrorCode | None]] = []
        self.admitted: list[JobId] = []
        self.dropped: list[JobId] = []
        self.jobs: RunningJobs | None = None
        self.num_away = 0

    def report_admitted(self, job: RunningJob) -> None:
        self.admitted.append(job.id)

    def end(self, job: RunningJob, state: JobState, error: Any = None) -> None:
        job.conclude(state, error)
        self.ended.append((job.id, state, error.code if error else None))

    def cancel(self, job: RunningJob) -> None:
        self.end(job, JobState.CANCELLED, CANCELLED)

    def drop(self, job: RunningJob) -> None:
        self.jobs.finish(job)
        self.dropped.append(job.id)

    def on_redis_away(self) -> None:
        self.num_away += 1


class FakeLoader:
    """Makes every version resident, or fails as scripted."""

    def __init__(self) -> None:
        self.error: Exception | None = None

    @asynccontextmanager
    async def resident(self, version: AdapterVersion) -> AsyncIterator[None]:
        if self.error:
            raise self.error
        yield


class FakeAdvertiser:
    """Records the loads that were given up."""

    def __init__(self) -> None:
        self.ended_loads: list[AdapterVersion] = []
        self.is_elsewhere = False

    async def end_load(self, version: AdapterVersion) -> None:
        self.ended_loads.append(version)

    async def is_held_elsewhere(self, version: AdapterVersion) -> bool:
        return self.is_elsewhere


class Setup:
    """A consumer with fakes of its collaborators; `async with` runs it."""

    def __init__(self) -> None:
        self.queue = FakeQueue()
        self.publisher = FakePublisher()
        self.loader = FakeLoader()
        self.advertiser = FakeAdvertiser()
        self.jobs = self.publisher.jobs = RunningJobs()
        self.residency = Residency(BASE.version, BASE_STYLE)
        self.requests: list[Request] = []
        self.is_full: list[bool] = []
        self.lost: list[WorkerId] = []
        self.lease = SimpleNamespace(wid=WID, is_held=asyncio.Event(), lose=self._lose)
        self.lease.is_held.set()
        adapters = SimpleNamespace(
            residency=self.residency,
            loader=self.loader,
            advertiser=self.advertiser,
            prefetcher=SimpleNamespace(set_full=self.is_full.append),
        )
        self.consumer = Consumer(
            cast(Any, self.queue),
            cast(Any, self.lease),
            self.jobs,
            cast(Any, SimpleNamespace(add=self.requests.append)),
            cast(Any, adapters),
            cast(Any, self.publisher),
            served=scripted_model(ScriptedEngine()),
            max_num_seqs=MAX_NUM_SEQS,
            recover=self._recover,
        )

    async def __aenter__(self) -> "Setup":
        self._task = asyncio.create_task(self.consumer.run())
        return self

    async def __aexit__(self, *_: object) -> None:
        await cancel_tasks(self._task)

    async def _recover(self, claimed: ClaimedJob) -> tuple[()]:
        return ()

    def _lose(self, wid: WorkerId) -> None:
        self.lost.append(wid)
        self.lease.is_held.clear()


@pytest.fixture
def setup() -> Setup:
    return Setup()


async def test_a_claim_asks_for_what_the_running_jobs_leave(setup: Setup) -> None:
    job = make_job(n=3, cost=1000)
    setup.queue.replies = [claim_of(job)]
    async with setup:
        await until(lambda: setup.publisher.admitted)
        await until(lambda: len(setup.queue.claims) >= 2)
    first, second = setup.queue.claims[:2]
    assert first["sequences"] == MAX_NUM_SEQS
    assert second["sequences"] == MAX_NUM_SEQS - 3
    assert first["tokens"] - second["tokens"] == 1000
    assert first["residents"] == (BASE.version,)


async def test_preemptible_jobs_return_to_the_queue_when_others_need_their_places(
    setup: Setup,
) -> None:
    batch = [make_job(is_preemptible=True) for _ in range(MAX_NUM_SEQS)]
    setup.queue.replies = [claim_of(*batch), claim_of(make_job(n=2))]
    async with setup:
        await until(lambda: setup.queue.released)
    assert setup.queue.released == setup.publisher.dropped == [batch[3].id, batch[2].id]
    first, second = setup.queue.claims[:2]
    assert (first["sequences"], first["idle_sequences"]) == (MAX_NUM_SEQS, MAX_NUM_SEQS)
    assert (second["sequences"], second["idle_sequences"]) == (MAX_NUM_SEQS, 0)
    assert second["tokens"] - second["idle_tokens"] == sum(job.cost for job in batch)


async def test_a_worker_that_a_claim_has_parked_does_not_claim_again(
    setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consumer_module, "MAX_PAUSE_S", 3600)
    job, other = make_job(), make_job()
    setup.queue.replies = [claim_of(job, is_parked=True), claim_of(other, is_parked=True)]
    async with setup:
        await until(lambda: setup.publisher.admitted == [job.id])
        assert len(setup.queue.claims) == 1
        setup.consumer.wake()
        await until(lambda: setup.publisher.admitted == [job.id, other.id])


async def test_a_closed_consumer_asks_for_no_more_jobs(setup: Setup) -> None:
    setup.consumer.close()
    async with setup:
        await until(lambda: setup.queue.claims)
    assert setup.queue.claims[0]["sequences"] == 0
    assert setup.is_full == [False], "a worker that drains prefetches nothing"


async def test_a_finished_job_and_a_finished_load_make_it_claim_again(
    setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consumer_module, "MAX_PAUSE_S", 3600)
    job = make_job()
    setup.queue.replies = [claim_of(job)]
    async with setup:
        await until(lambda: setup.publisher.admitted and len(setup.queue.claims) == 2)
        running = setup.jobs.get(job.id)
        assert running is not None
        setup.jobs.finish(running)
        await until(lambda: len(setup.queue.claims) == 3)
        setup.residency.job_waits(ADAPTER)
        setup.residency.job_served(ADAPTER)
        await until(lambda: len(setup.queue.claims) == 4)


async def test_a_lost_lease_is_reported_and_nothing_is_claimed_without_one(setup: Setup) -> None:
    setup.queue.replies = [LeaseLost("given up")]
    async with setup:
        await until(lambda: setup.lost == [WID])
        await asyncio.sleep(0)
        assert len(setup.queue.claims) == 1


async def test_jobs_of_a_lease_that_was_lost_during_the_claim_are_dropped(setup: Setup) -> None:
    job = make_job()
    setup.queue.replies = [claim_of(job)]
    setup.queue.may_reply.clear()
    async with setup:
        await until(lambda: setup.queue.claims)
        setup.lease.wid = WorkerId("another")
        setup.queue.may_reply.set()
        await until(lambda: len(setup.queue.claims) >= 2)
    assert setup.jobs.get(job.id) is None


async def test_it_tells_the_publisher_when_redis_is_away(
    setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consumer_module, "MAX_PAUSE_S", 0.01)
    setup.queue.replies = [RedisUnavailable("away")]
    async with setup:
        await until(lambda: len(setup.queue.claims) >= 2)
    assert setup.publisher.num_away == 1


async def test_a_job_that_was_cancelled_before_its_claim_arrived_never_runs(setup: Setup) -> None:
    job = make_job()
    setup.consumer.cancel(job.id)
    setup.queue.replies = [claim_of(job)]
    async with setup:
        await until(lambda: setup.publisher.ended)
    assert setup.publisher.ended == [(job.id, JobState.CANCELLED, ErrorCode.CANCELLED)]
    assert setup.requests == []


async def test_a_job_whose_adapter_finds_no_memory_goes_back_to_the_queue(setup: Setup) -> None:
    job = make_job(version=ADAPTER)
    setup.loader.error = NoAdapterMemory("no room")
    setup.queue.replies = [claim_of(job)]
    async with setup:
        await until(lambda: setup.queue.released == [job.id])
        view = setup.residency.claim_view(0)
    assert view.refused == (ADAPTER,), "until memory may be free"
    assert setup.advertiser.ended_loads == [ADAPTER]
    assert setup.jobs.get(job.id) is None
    assert setup.publisher.ended == []


async def test_a_fault_of_one_admission_fails_its_job_and_not_the_others(setup: Setup) -> None:
    bad, good = make_job(version=ADAPTER), make_job()
    setup.loader.error = None

    original = setup.loader.resident

    def resident(version: AdapterVersion) -> Any:
        if version == ADAPTER:
            raise ZeroDivisionError("a fault")
        return original(version)

    setup.loader.resident = resident  # type: ignore[method-assign]
    setup.queue.replies = [claim_of(bad, good)]
    async with setup:
        await until(lambda: setup.publisher.ended and setup.publisher.admitted)
    assert setup.publisher.ended == [(bad.id, JobState.FAILED, ErrorCode.INTERNAL)]
    assert setup.publisher.admitted == [good.id]
