"""The follower with stored jobs and checkpoints in memory: gaps, silence, ends and outages."""

from typing import Any, cast

import pytest
from followed_job import ID, STOP, USAGE, done, end, followed_job, tokens

from api.follow import follower
from api.follow.follower import Attach, Follower
from api.follow.reply_hub import Inbox, max_events
from api.follow.transcript import Delta
from shared.errors import ErrorCode, JobError, JobFailed, RedisUnavailable
from shared.protocol.answers import AnswerSpec
from shared.protocol.events import Tokens
from shared.protocol.ids import AdapterVersion, JobId
from shared.protocol.jobs import JobState
from shared.protocol.results import Result
from shared.store.views.job_view import JobView
from shared.store.views.pool_views import PoolViews


class FakeJob:
    """A job's inbox, and its stored state in place of `PoolViews` and the reader of checkpoints."""

    def __init__(self, num_choices: int = 1) -> None:
        self.inbox = Inbox(num_choices)
        self._answer = AnswerSpec.of(followed_job(num_choices))
        self.stored: Result | None = None
        self.state: JobState | None = JobState.RUNNING
        self.error: JobError | None = None
        self.is_unavailable = False
        self.checkpoints: tuple[Tokens, ...] = ()
        self.num_job_reads = 0

    async def job(self, job_id: JobId) -> JobView | None:
        self.num_job_reads += 1
        self._raise_if_unavailable()
        state = self.stored.state if self.stored else self.state
        return view(state, self.error) if state else None

    async def job_and_result(self, job_id: JobId) -> tuple[JobView | None, Result | None]:
        return await self.job(job_id), self.stored

    async def read_checkpoints(self, job_id: JobId) -> tuple[Tokens, ...]:
        self._raise_if_unavailable()
        return self.checkpoints

    def _raise_if_unavailable(self) -> None:
        if self.is_unavailable:
            raise RedisUnavailable("unavailable")

    def follow(self, *, left_ms: int = 20_000, attach: Attach | None = None) -> Follower:
        """Return a follower of the job."""
        views = cast(PoolViews, self)
        return Follower(
            self._answer, self.inbox, views, self.read_checkpoints, left_ms=left_ms, attach=attach
        )


def view(state: JobState, error: JobError | None) -> JobView:
    empty: dict[str, Any] = dict.fromkeys(("started_ms", "ended_ms", "position", "worker", "usage"))
    return JobView(
        id=ID,
        state=state,
        model="m",
        version=AdapterVersion("m@1"),
        tenant="default",
        enqueued_ms=0,
        try_=1,
        error=error,
        spec=AnswerSpec.of(followed_job()),
        **empty,
    )


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follower, "SILENCE_S", 0.02)
    monkeypatch.setattr(follower, "REFILL_AGAIN_S", 0.01)


@pytest.fixture
def job() -> FakeJob:
    return FakeJob()


async def text_of(following: Follower) -> str:
    """Return all text until the job is done."""
    text = ""
    while not following.is_done:
        text += await next_text(following)
    return text


async def next_text(following: Follower) -> str:
    return "".join([u.text for u in await following.updates(1) if isinstance(u, Delta)])


async def failure_of(following: Follower) -> ErrorCode:
    with pytest.raises(JobFailed) as caught:
        await text_of(following)
    return caught.value.error.code


@pytest.mark.parametrize("is_unavailable", [False, True])
async def test_a_gap_stays_open_until_redis_has_its_tokens_in_the_checkpoints(
    job: FakeJob, is_unavailable: bool
) -> None:
    following = job.follow()
    job.is_unavailable = is_unavailable
    job.checkpoints = (tokens(0, (1,), "a"),) if is_unavailable else ()
    job.inbox.put(tokens(1, (2,), "b"))
    assert await following.updates(0.05) == []
    job.checkpoints, job.is_unavailable = (tokens(0, (1,), "a"),), False
    assert await following.updates(1) == [Delta(0, "a", None), Delta(0, "b", None)]


async def test_a_job_that_redis_does_not_know_is_lost(job: FakeJob) -> None:
    job.state = None
    assert await failure_of(job.follow()) is ErrorCode.UNAVAILABLE


@pytest.mark.parametrize(
    ("is_attached", "left_ms", "is_unavailable"),
    [(False, 30, False), (False, 60, True), (True, -1000, False)],
)
async def test_the_deadline_of_an_unfinished_job_ends_the_wait(
    job: FakeJob, is_attached: bool, left_ms: int, is_unavailable: bool
) -> None:
    job.is_unavailable = is_unavailable
    attach = Attachments(job) if is_attached else None
    following = job.follow(left_ms=left_ms, attach=attach)
    assert await failure_of(following) is ErrorCode.DEADLINE_EXCEEDED
    assert not following.has_ended


class Attachments:
    """Counts the calls of a follower's `attach`."""

    def __init__(self, job: FakeJob) -> None:
        self._job = job
        self.num_calls = 0

    async def __call__(self, job_id: JobId) -> None:
        self._job._raise_if_unavailable()
        self.num_calls += 1


async def test_an_attached_follower_attaches_again_after_an_outage(
    job: FakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failover may have lost the earlier call, and its client would then seem to be gone."""
    monkeypatch.setattr(follower, "SILENCE_S", 60)
    attach = Attachments(job)
    following = job.follow(attach=attach)
    job.inbox.put(tokens(0, (1,), "a"))
    assert await following.updates(60) == [Delta(0, "a", None)]
    assert attach.num_calls == 1
    job.inbox.note_outage()
    job.inbox.put(tokens(1, (2,), "b"))
    assert await following.updates(60) == [Delta(0, "b", None)]
    assert attach.num_calls == 2


async def test_an_attached_follower_of_an_ended_job_has_its_answer_despite_the_deadline(
    job: FakeJob,
) -> None:
    job.stored = done("ab", 1, 2)
    following = job.follow(left_ms=-1000, attach=Attachments(job))
    assert await text_of(following) == "ab"
    assert following.usage == USAGE


@pytest.mark.parametrize("is_attached", [False, True])
async def test_an_answer_is_completed_after_an_outage(job: FakeJob, is_attached: bool) -> None:
    job.stored, job.is_unavailable = done("abc", 1, 2, 3), True
    following = job.follow(attach=Attachments(job) if is_attached else None)
    if not is_attached:
        job.inbox.put(end())
    assert await following.updates(0.05) == []
    job.is_unavailable = False
    assert await text_of(following) == "abc"


def words(num: int) -> str:
    return "".join(f"{index} " for index in range(num))


async def test_the_end_of_a_choice_that_did_not_fit_arrives_while_the_job_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(follower, "SILENCE_S", 60)
    job = FakeJob(num_choices=2)
    following = job.follow()
    for index in range(max_events(2)):
        job.inbox.put(tokens(index, (index,), f"{index} ", choice=1))
    job.inbox.put(tokens(0, (1,), "a", choice=0))
    job.inbox.put(tokens(1, (2,), "b", STOP, choice=0))
    job.inbox.put(tokens(max_events(2), (3,), "last", choice=1))
    job.checkpoints = (tokens(0, (1, 2), "ab", STOP, choice=0),)
    updates = [update for update in await following.updates(1) if isinstance(update, Delta)]
    assert [u for u in updates if u.choice == 0] == [Delta(0, "ab", STOP)]
    assert "".join(u.text for u in updates if u.choice == 1) == words(max_events(2)) + "last"
