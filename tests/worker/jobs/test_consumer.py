"""Unit tests of claims and admissions, with mocks of the queue, the engine and the loader."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import create_autospec

import pytest
from hypothesis import given
from hypothesis import strategies as st
from queue_support import make_job as make_job_of
from running_jobs import WID
from scripted_engine import BASE, ScriptedEngine, scripted_model
from worker_support import until

from shared.cancel_tasks import cancel_tasks
from shared.errors import ErrorCode, LeaseLost, RedisUnavailable
from shared.protocol.ids import AdapterVersion, JobId, WorkerId
from shared.protocol.jobs import ClaimedJob, Job, JobState
from shared.protocol.queue_replies import Claim
from shared.store.jobs.queue import Queue
from worker.adapters.advertiser import Advertiser
from worker.adapters.loader import NoAdapterMemory
from worker.adapters.residency import Residency
from worker.engine.request import Request
from worker.jobs import consumer as consumer_module
from worker.jobs.consumer import Consumer
from worker.jobs.preemption import jobs_to_preempt
from worker.jobs.publisher import Publisher
from worker.jobs.running import RunningJob, RunningJobs
from worker.text.prompt_style import BASE_STYLE

ADAPTER = AdapterVersion("sql@1")
MAX_NUM_SEQS = 4


def make_job(version: AdapterVersion = BASE.version, **fields: Any) -> Job:
    return make_job_of(version, **fields)


def claim_of(*jobs: Job, is_parked: bool = False) -> Claim:
    claimed = tuple(
        ClaimedJob(job=job, try_=1, suspect=False, claim_epoch=7, left_ms=60_000) for job in jobs
    )
    return Claim(jobs=claimed, undecodable=(), next_steal_ms=None, is_parked=is_parked)


class Setup:
    """A consumer with mocks of its collaborators; `async with` runs it."""

    def __init__(self) -> None:
        self.replies: list[Claim | Exception] = []
        """Replies to claims; later ones are empty."""
        self.may_reply = asyncio.Event()
        self.may_reply.set()
        self.jobs = RunningJobs()
        self.queue = create_autospec(Queue, instance=True)
        self.queue.claim.side_effect = self._claim
        self.publisher = create_autospec(Publisher, instance=True)
        self.publisher.end.side_effect = RunningJob.conclude
        self.publisher.cancel.side_effect = lambda job: job.conclude(JobState.CANCELLED)
        self.publisher.drop.side_effect = self.jobs.finish
        self.load_errors: dict[AdapterVersion, Exception] = {}
        """Errors of loads; all other versions become resident."""
        self.advertiser = create_autospec(Advertiser, instance=True)
        self.residency = Residency(BASE.version, BASE_STYLE)
        self.requests: list[Request] = []
        self.is_full: list[bool] = []
        self.lost: list[WorkerId] = []
        self.lease = SimpleNamespace(wid=WID, is_held=asyncio.Event(), lose=self._lose)
        self.lease.is_held.set()
        adapters = SimpleNamespace(
            residency=self.residency,
            loader=SimpleNamespace(resident=self._resident),
            advertiser=self.advertiser,
            prefetcher=SimpleNamespace(set_full=self.is_full.append),
        )
        self.consumer = Consumer(
            self.queue,
            cast(Any, self.lease),
            self.jobs,
            cast(Any, SimpleNamespace(add=self.requests.append)),
            cast(Any, adapters),
            self.publisher,
            served=scripted_model(ScriptedEngine()),
            max_num_seqs=MAX_NUM_SEQS,
            recover=self._recover,
        )

    async def __aenter__(self) -> "Setup":
        self._task = asyncio.create_task(self.consumer.run())
        return self

    async def __aexit__(self, *_: object) -> None:
        await cancel_tasks(self._task)

    @property
    def claims(self) -> list[dict[str, Any]]:
        """What each claim asked for."""
        return [call.kwargs for call in self.queue.claim.call_args_list]

    @property
    def released(self) -> list[JobId]:
        return [job for call in self.queue.release.call_args_list for job in call.args[1]]

    @property
    def admitted(self) -> list[JobId]:
        return [call.args[0].id for call in self.publisher.report_admitted.call_args_list]

    async def _claim(self, wid: WorkerId, **wanted: Any) -> Claim:
        await self.may_reply.wait()
        reply = self.replies.pop(0) if self.replies else claim_of()
        if isinstance(reply, Exception):
            raise reply
        return reply

    @asynccontextmanager
    async def _resident(self, version: AdapterVersion) -> AsyncIterator[None]:
        if version in self.load_errors:
            raise self.load_errors[version]
        yield

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
    setup.replies = [claim_of(job)]
    async with setup:
        await until(lambda: setup.admitted)
        await until(lambda: len(setup.claims) >= 2)
    first, second = setup.claims[:2]
    assert first["sequences"] == MAX_NUM_SEQS
    assert second["sequences"] == MAX_NUM_SEQS - 3
    assert first["tokens"] - second["tokens"] == 1000
    assert first["residents"] == (BASE.version,)


async def test_preemptible_jobs_return_to_the_queue_when_others_need_their_places(
    setup: Setup,
) -> None:
    batch = [make_job(is_preemptible=True) for _ in range(MAX_NUM_SEQS)]
    setup.replies = [claim_of(*batch), claim_of(make_job(n=2))]
    async with setup:
        await until(lambda: setup.released)
    dropped = [call.args[0].id for call in setup.publisher.drop.call_args_list]
    assert setup.released == dropped == [batch[3].id, batch[2].id]
    first, second = setup.claims[:2]
    assert (first["sequences"], first["idle_sequences"]) == (MAX_NUM_SEQS, MAX_NUM_SEQS)
    assert (second["sequences"], second["idle_sequences"]) == (MAX_NUM_SEQS, 0)
    assert second["tokens"] - second["idle_tokens"] == sum(job.cost for job in batch)


async def test_a_worker_that_a_claim_has_parked_does_not_claim_again(
    setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consumer_module, "MAX_PAUSE_S", 3600)
    job, other = make_job(), make_job()
    setup.replies = [claim_of(job, is_parked=True), claim_of(other, is_parked=True)]
    async with setup:
        await until(lambda: setup.admitted == [job.id])
        assert len(setup.claims) == 1
        setup.consumer.wake()
        await until(lambda: setup.admitted == [job.id, other.id])


async def test_a_closed_consumer_asks_for_no_more_jobs(setup: Setup) -> None:
    setup.consumer.close()
    async with setup:
        await until(lambda: setup.claims)
    assert setup.claims[0]["sequences"] == 0
    assert setup.is_full == [False], "a worker that drains prefetches nothing"


async def test_a_finished_job_and_a_finished_load_make_it_claim_again(
    setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consumer_module, "MAX_PAUSE_S", 3600)
    job = make_job()
    setup.replies = [claim_of(job)]
    async with setup:
        await until(lambda: setup.admitted and len(setup.claims) == 2)
        setup.jobs.finish(setup.jobs.get(job.id))
        await until(lambda: len(setup.claims) == 3)
        setup.residency.job_waits(ADAPTER)
        setup.residency.job_served(ADAPTER)
        await until(lambda: len(setup.claims) == 4)


async def test_a_lost_lease_is_reported_and_nothing_is_claimed_without_one(setup: Setup) -> None:
    setup.replies = [LeaseLost("given up")]
    async with setup:
        await until(lambda: setup.lost == [WID])
        await asyncio.sleep(0)
        assert len(setup.claims) == 1


async def test_jobs_of_a_lease_that_was_lost_during_the_claim_are_dropped(setup: Setup) -> None:
    job = make_job()
    setup.replies = [claim_of(job)]
    setup.may_reply.clear()
    async with setup:
        await until(lambda: setup.claims)
        setup.lease.wid = WorkerId("another")
        setup.may_reply.set()
        await until(lambda: len(setup.claims) >= 2)
    assert setup.jobs.get(job.id) is None


async def test_it_tells_the_publisher_when_redis_is_away(
    setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consumer_module, "MAX_PAUSE_S", 0.01)
    setup.replies = [RedisUnavailable("away")]
    async with setup:
        await until(lambda: len(setup.claims) >= 2)
    setup.publisher.on_redis_away.assert_called_once_with()


async def test_a_job_that_was_cancelled_before_its_claim_arrived_never_runs(setup: Setup) -> None:
    job = make_job()
    setup.consumer.cancel(job.id)
    setup.replies = [claim_of(job)]
    async with setup:
        await until(lambda: setup.publisher.cancel.called)
    (cancelled,) = setup.publisher.cancel.call_args.args
    assert cancelled.id == job.id
    assert setup.requests == []


async def test_a_job_whose_adapter_finds_no_memory_goes_back_to_the_queue(setup: Setup) -> None:
    job = make_job(version=ADAPTER)
    setup.load_errors = {ADAPTER: NoAdapterMemory("no room")}
    setup.replies = [claim_of(job)]
    async with setup:
        await until(lambda: setup.released == [job.id])
        view = setup.residency.claim_view(0)
    assert view.refused == (ADAPTER,), "until memory may be free"
    setup.advertiser.end_load.assert_awaited_once_with(ADAPTER)
    assert setup.jobs.get(job.id) is None
    setup.publisher.end.assert_not_called()


async def test_a_fault_of_one_admission_fails_its_job_and_not_the_others(setup: Setup) -> None:
    bad, good = make_job(version=ADAPTER), make_job()
    setup.load_errors = {ADAPTER: ZeroDivisionError("a fault")}
    setup.replies = [claim_of(bad, good)]
    async with setup:
        await until(lambda: setup.publisher.end.called and setup.admitted)
    failed, state, error = setup.publisher.end.call_args.args
    assert (failed.id, state, error.code) == (bad.id, JobState.FAILED, ErrorCode.INTERNAL)
    assert setup.admitted == [good.id]


def running(*, is_preemptible: bool, n: int = 1, cost: int = 10) -> RunningJob:
    job = make_job_of(n=n, cost=cost, is_preemptible=is_preemptible)
    return RunningJob(ClaimedJob(job=job, try_=1, suspect=False))


JOBS = st.lists(
    st.builds(running, is_preemptible=st.booleans(), n=st.integers(1, 4), cost=st.integers(1, 50)),
    max_size=12,
)


@given(JOBS, st.integers(1, 12), st.integers(1, 200))
def test_no_more_preemptible_jobs_than_necessary_make_room_for_others_the_youngest_first(
    jobs: list[RunningJob], max_sequences: int, max_tokens: int
) -> None:
    preempted = jobs_to_preempt(jobs, max_sequences=max_sequences, max_tokens=max_tokens)
    preemptible = [job for job in reversed(jobs) if job.job.is_preemptible]
    assert preempted == preemptible[: len(preempted)]
    kept = [job for job in jobs if job not in preempted]
    others = [job for job in jobs if job not in preemptible]

    def fits(some: list[RunningJob]) -> bool:
        return (
            sum(job.num_open for job in some) <= max_sequences
            and sum(job.job.cost for job in some) <= max_tokens
        )

    if not others:
        assert preempted == [], "they don't make room for each other"
    elif not fits(kept):
        assert kept == others, "only jobs that aren't preemptible are left"
    if preempted:
        assert not fits([*kept, preempted[-1]])
