"""The follower on a queue in memory: what it makes of gaps, silence and ends."""

import asyncio
from typing import Any, cast

import pytest
from api_support import until

from api.follow import follower
from api.follow.follower import Follower, Step
from api.follow.reply_hub import ClientGone, Inbox, max_events
from api.follow.transcript import Delta
from shared.errors import ErrorCode, JobError, JobFailed, RedisUnavailable
from shared.protocol.events import Admitted, End, Retry, Tokens
from shared.protocol.ids import AdapterVersion, ApiId, JobId
from shared.protocol.jobs import Endpoint, Job, JobState, SamplingParams
from shared.protocol.results import Choice, FinishReason, Result, Usage
from shared.store.pool_views import JobView
from shared.store.queue import Queue

ID = JobId("j")
STOP = FinishReason.STOP
USAGE = Usage(prompt_tokens=3, completion_tokens=2)


class FakeQueue:
    """What the follower looks at."""

    def __init__(self) -> None:
        self.stored: Result | None = None
        self.state: JobState | None = JobState.RUNNING
        self.error: JobError | None = None
        self.is_away = False
        self.checkpoints: tuple[Tokens, ...] = ()
        self.num_looks = 0

    async def result(self, job_id: JobId) -> Result | None:
        self._answer()
        return self.stored

    async def job_view(self, job_id: JobId) -> JobView | None:
        self.num_looks += 1
        self._answer()
        state = self.stored.state if self.stored else self.state
        return view(state, self.error) if state else None

    async def shown(self, job_id: JobId) -> tuple[Tokens, ...]:
        self._answer()
        return self.checkpoints

    def _answer(self) -> None:
        if self.is_away:
            raise RedisUnavailable("away")


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
        **empty,
    )


def job(n: int = 1, deadline_ms: int = 20_000) -> Job:
    return Job(
        id=ID,
        endpoint=Endpoint.CHAT,
        model="m",
        version=AdapterVersion("m@1"),
        sampling=SamplingParams(seed=1, n=n),
        created_s=0,
        deadline_ms=deadline_ms,
        cost=1,
        reply_to=ApiId("api"),
    )


def tokens(
    index: int,
    ids: tuple[int, ...],
    text: str,
    finish: FinishReason | None = None,
    try_: int = 1,
    choice: int = 0,
) -> Tokens:
    return Tokens(job=ID, try_=try_, choice=choice, index=index, ids=ids, text=text, finish=finish)


def end(state: JobState = JobState.DONE, error: JobError | None = None, try_: int = 1) -> End:
    usage = USAGE if state is JobState.DONE else None
    return End(job=ID, try_=try_, state=state, usage=usage, error=error)


def done(text: str, *ids: int) -> Result:
    choices = (Choice(text=text, finish=STOP, ids=ids),)
    return Result(job=ID, state=JobState.DONE, choices=choices, usage=USAGE)


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follower, "SILENCE_S", 0.02)
    monkeypatch.setattr(follower, "REFILL_AGAIN_S", 0.01)


@pytest.fixture
def queue() -> FakeQueue:
    return FakeQueue()


@pytest.fixture
def inbox() -> Inbox:
    return Inbox(num_choices=1)


def follow(queue: FakeQueue, inbox: Inbox, of: Job | None = None) -> Follower:
    return Follower(of or job(), inbox, cast(Queue, queue), queue.shown)


async def text_of(following: Follower) -> str:
    """All text until the job is done."""
    text = ""
    while not following.is_done:
        text += "".join(s.text for s in await following.steps(1) if isinstance(s, Delta))
    return text


async def failure_of(following: Follower) -> ErrorCode:
    with pytest.raises(JobFailed) as caught:
        await text_of(following)
    return caught.value.error.code


async def test_events_become_steps_and_the_end_tells_the_usage(
    queue: FakeQueue, inbox: Inbox
) -> None:
    following = follow(queue, inbox)
    inbox.put(Admitted(job=ID, try_=1, prompt_tokens=3))
    inbox.put(tokens(0, (1,), "a", STOP))
    steps: list[Step] = await following.steps(1)
    assert steps == [Admitted(job=ID, try_=1, prompt_tokens=3), Delta(0, "a", STOP)]
    inbox.put(end())
    assert await following.steps(1) == []
    assert following.usage == USAGE


async def test_nothing_comes_within_the_patience(queue: FakeQueue, inbox: Inbox) -> None:
    following = follow(queue, inbox)
    assert await following.steps(0.01) == []
    assert not following.is_ended


async def test_what_came_before_an_error_is_shown_before_it(queue: FakeQueue, inbox: Inbox) -> None:
    following = follow(queue, inbox)
    inbox.put(tokens(0, (1,), "a"))
    inbox.put(end(JobState.FAILED, JobError(code=ErrorCode.INTERNAL, message="broken")))
    assert await following.steps(1) == [Delta(0, "a", None)]
    with pytest.raises(JobFailed, match="broken"):
        await following.steps(1)
    assert following.is_ended


async def test_a_gap_is_refilled_from_the_checkpoints(queue: FakeQueue, inbox: Inbox) -> None:
    queue.checkpoints = (tokens(0, (1, 2), "ab"),)
    for event in (tokens(0, (1,), "a"), tokens(2, (3,), "c", STOP), end()):
        inbox.put(event)
    assert await text_of(follow(queue, inbox)) == "abc"


async def test_a_gap_stays_open_until_the_checkpoints_reach_over_it(
    queue: FakeQueue, inbox: Inbox
) -> None:
    following = follow(queue, inbox)
    inbox.put(tokens(1, (2,), "b"))
    assert await following.steps(0.05) == []
    queue.checkpoints = (tokens(0, (1,), "a"),)
    assert await following.steps(1) == [Delta(0, "a", None), Delta(0, "b", None)]


async def test_a_gap_waits_for_redis(queue: FakeQueue, inbox: Inbox) -> None:
    following = follow(queue, inbox)
    queue.checkpoints, queue.is_away = (tokens(0, (1,), "a"),), True
    inbox.put(tokens(1, (2,), "b"))
    assert await following.steps(0.05) == []
    queue.is_away = False
    assert await following.steps(1) == [Delta(0, "a", None), Delta(0, "b", None)]


async def test_a_gap_at_the_end_is_filled_from_the_result(queue: FakeQueue, inbox: Inbox) -> None:
    queue.stored = done("abc", 1, 2, 3)
    for event in (tokens(0, (1,), "a"), end()):
        inbox.put(event)
    assert await text_of(follow(queue, inbox)) == "abc"


async def test_an_end_with_a_gap_waits_for_redis(queue: FakeQueue, inbox: Inbox) -> None:
    queue.stored, queue.is_away = done("abc", 1, 2, 3), True
    following = follow(queue, inbox)
    inbox.put(end())
    assert await following.steps(0.05) == []
    queue.is_away = False
    assert await text_of(following) == "abc"


async def test_after_silence_the_result_is_looked_up(queue: FakeQueue, inbox: Inbox) -> None:
    queue.stored = done("abc", 1, 2, 3)
    inbox.put(tokens(0, (1,), "a"))
    assert await text_of(follow(queue, inbox)) == "abc"


async def test_silence_of_a_running_job_is_waited_out(queue: FakeQueue, inbox: Inbox) -> None:
    following = follow(queue, inbox)
    waiting = asyncio.create_task(following.steps(5))
    await until(lambda: queue.num_looks >= 3)
    inbox.put(tokens(0, (1,), "a"))
    assert await waiting == [Delta(0, "a", None)]


async def test_a_job_that_redis_does_not_know_is_lost(queue: FakeQueue, inbox: Inbox) -> None:
    queue.state = None
    assert await failure_of(follow(queue, inbox)) is ErrorCode.UNAVAILABLE


async def test_a_job_that_failed_silently_fails_with_its_error(
    queue: FakeQueue, inbox: Inbox
) -> None:
    queue.state = JobState.DEAD
    queue.error = JobError(code=ErrorCode.POISON_JOB, message="twice")
    assert await failure_of(follow(queue, inbox)) is ErrorCode.POISON_JOB


@pytest.mark.parametrize(
    ("state", "code"),
    [
        (JobState.CANCELLED, ErrorCode.CANCELLED),
        (JobState.EXPIRED, ErrorCode.DEADLINE_EXCEEDED),
        (JobState.DEAD, ErrorCode.POISON_JOB),
        (JobState.FAILED, ErrorCode.INTERNAL),
    ],
)
async def test_an_end_without_a_reason_is_told_by_its_state(
    queue: FakeQueue, inbox: Inbox, state: JobState, code: ErrorCode
) -> None:
    inbox.put(end(state))
    assert await failure_of(follow(queue, inbox)) is code


async def test_the_deadline_ends_the_wait(queue: FakeQueue, inbox: Inbox) -> None:
    following = follow(queue, inbox, job(deadline_ms=30))
    assert await failure_of(following) is ErrorCode.DEADLINE_EXCEEDED
    assert not following.is_ended


async def test_the_deadline_holds_while_redis_is_away(queue: FakeQueue, inbox: Inbox) -> None:
    queue.is_away = True
    following = follow(queue, inbox, job(deadline_ms=60))
    assert await failure_of(following) is ErrorCode.DEADLINE_EXCEEDED


async def test_a_moved_job_goes_on_where_it_was_and_its_old_worker_is_ignored(
    queue: FakeQueue, inbox: Inbox
) -> None:
    events = (
        tokens(0, (1,), "a", try_=1),
        Retry(job=ID, try_=1),
        tokens(1, (9,), "x", try_=1),
        tokens(1, (2,), "b", STOP, try_=2),
        end(try_=2),
    )
    for event in events:
        inbox.put(event)
    assert await text_of(follow(queue, inbox)) == "ab"


async def test_the_end_of_a_job_that_was_cancelled_between_two_tries_counts(
    queue: FakeQueue, inbox: Inbox
) -> None:
    inbox.put(Retry(job=ID, try_=1))
    inbox.put(end(JobState.CANCELLED, try_=1))
    assert await failure_of(follow(queue, inbox)) is ErrorCode.CANCELLED


async def test_a_moved_job_that_contradicts_what_was_shown_ends(
    queue: FakeQueue, inbox: Inbox
) -> None:
    inbox.put(tokens(0, (1, 2), "ab"))
    inbox.put(tokens(1, (9,), "x", try_=2))
    following = follow(queue, inbox)
    assert await following.steps(1) == [Delta(0, "ab", None)]
    assert await failure_of(following) is ErrorCode.RESUME_DIVERGED


async def test_a_client_that_leaves_ends_the_wait(queue: FakeQueue, inbox: Inbox) -> None:
    waiting = asyncio.create_task(follow(queue, inbox).steps(5))
    await asyncio.sleep(0)
    inbox.client_gone()
    with pytest.raises(ClientGone):
        await waiting


async def test_of_more_tokens_than_fit_none_is_lost_or_shown_twice(
    queue: FakeQueue, inbox: Inbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follower, "SILENCE_S", 60)  # the newest event alone shows what is missing
    num = 3 * max_events(1)
    following = follow(queue, inbox)
    for index in range(num):
        inbox.put(tokens(index, (index,), f"{index} ", STOP if index == num - 1 else None))
    queue.checkpoints = (tokens(0, tuple(range(num - 5)), words(num - 5)),)
    text = "".join([s.text for s in await following.steps(1) if isinstance(s, Delta)])
    assert text == words(num - 5)
    queue.checkpoints = (tokens(0, tuple(range(num)), words(num), STOP),)
    text += "".join([s.text for s in await following.steps(1) if isinstance(s, Delta)])
    assert text == words(num)
    inbox.put(end())
    assert await text_of(following) == ""


def words(num: int) -> str:
    return "".join(f"{index} " for index in range(num))


async def test_the_end_of_a_choice_that_didnt_fit_is_shown_while_the_job_goes_on(
    queue: FakeQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follower, "SILENCE_S", 60)
    inbox = Inbox(num_choices=2)
    following = follow(queue, inbox, job(n=2))
    for index in range(max_events(2)):
        inbox.put(tokens(index, (index,), f"{index} ", choice=1))
    inbox.put(tokens(0, (1,), "a", choice=0))
    inbox.put(tokens(1, (2,), "b", STOP, choice=0))
    inbox.put(tokens(max_events(2), (3,), "last", choice=1))
    queue.checkpoints = (tokens(0, (1, 2), "ab", STOP, choice=0),)
    steps = [step for step in await following.steps(1) if isinstance(step, Delta)]
    assert [s for s in steps if s.choice == 0] == [Delta(0, "ab", STOP)]
    assert "".join(s.text for s in steps if s.choice == 1) == words(max_events(2)) + "last"


async def test_what_is_held_while_a_gap_stays_open_is_bounded(
    queue: FakeQueue, inbox: Inbox
) -> None:
    following, num = follow(queue, inbox), 4 * max_events(1)
    for index in range(1, num):
        inbox.put(tokens(index, (index,), f"{index} "))
        if index % 10 == 0:
            assert await following.steps(0.001) == []
            assert len(following._held) <= max_events(1)
    queue.checkpoints = (tokens(0, tuple(range(num - 1)), words(num - 1)),)
    inbox.put(tokens(num, (num,), "last", STOP))
    queue.stored = done(words(num) + "last", *range(num + 1))
    inbox.put(end())
    assert await text_of(following) == words(num) + "last"
