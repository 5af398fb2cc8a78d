"""The follower with stored jobs and checkpoints in memory: gaps, silence, ends and outages."""

import asyncio
from typing import Any, cast

import pytest
from api_support import until
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


class FakeViews:
    """Stands in for `PoolViews` and for the reader of checkpoints."""

    def __init__(self) -> None:
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
def views() -> FakeViews:
    return FakeViews()


@pytest.fixture
def inbox() -> Inbox:
    return Inbox(num_choices=1)


def follow(
    views: FakeViews,
    inbox: Inbox,
    *,
    n: int = 1,
    left_ms: int = 20_000,
    attach: Attach | None = None,
) -> Follower:
    return Follower(
        AnswerSpec.of(followed_job(n)),
        inbox,
        cast(PoolViews, views),
        views.read_checkpoints,
        left_ms=left_ms,
        attach=attach,
    )


async def text_of(following: Follower) -> str:
    """Return all text until the job is done."""
    text = ""
    while not following.is_done:
        text += "".join(u.text for u in await following.updates(1) if isinstance(u, Delta))
    return text


async def failure_of(following: Follower) -> ErrorCode:
    with pytest.raises(JobFailed) as caught:
        await text_of(following)
    return caught.value.error.code


async def test_updates_before_an_error_are_returned_before_it(
    views: FakeViews, inbox: Inbox
) -> None:
    following = follow(views, inbox)
    inbox.put(tokens(0, (1,), "a"))
    inbox.put(end(JobState.FAILED, JobError(code=ErrorCode.INTERNAL, message="broken")))
    assert await following.updates(1) == [Delta(0, "a", None)]
    with pytest.raises(JobFailed, match="broken"):
        await following.updates(1)
    assert following.has_ended


@pytest.mark.parametrize("is_unavailable", [False, True])
async def test_a_gap_stays_open_until_redis_has_its_tokens_in_the_checkpoints(
    views: FakeViews, inbox: Inbox, is_unavailable: bool
) -> None:
    following = follow(views, inbox)
    views.is_unavailable = is_unavailable
    views.checkpoints = (tokens(0, (1,), "a"),) if is_unavailable else ()
    inbox.put(tokens(1, (2,), "b"))
    assert await following.updates(0.05) == []
    views.checkpoints, views.is_unavailable = (tokens(0, (1,), "a"),), False
    assert await following.updates(1) == [Delta(0, "a", None), Delta(0, "b", None)]


async def test_an_end_with_a_gap_is_completed_after_an_outage(
    views: FakeViews, inbox: Inbox
) -> None:
    views.stored, views.is_unavailable = done("abc", 1, 2, 3), True
    following = follow(views, inbox)
    inbox.put(end())
    assert await following.updates(0.05) == []
    views.is_unavailable = False
    assert await text_of(following) == "abc"


async def test_a_silent_running_job_is_waited_for(views: FakeViews, inbox: Inbox) -> None:
    following = follow(views, inbox)
    waiting = asyncio.create_task(following.updates(5))
    await until(lambda: views.num_job_reads >= 3)
    inbox.put(tokens(0, (1,), "a"))
    assert await waiting == [Delta(0, "a", None)]


async def test_a_job_that_redis_does_not_know_is_lost(views: FakeViews, inbox: Inbox) -> None:
    views.state = None
    assert await failure_of(follow(views, inbox)) is ErrorCode.UNAVAILABLE


@pytest.mark.parametrize(
    ("is_attached", "left_ms", "is_unavailable"),
    [(False, 30, False), (False, 60, True), (True, -1000, False)],
)
async def test_the_deadline_of_an_unfinished_job_ends_the_wait(
    views: FakeViews, inbox: Inbox, is_attached: bool, left_ms: int, is_unavailable: bool
) -> None:
    views.is_unavailable = is_unavailable
    attach = Attachments(views) if is_attached else None
    following = follow(views, inbox, left_ms=left_ms, attach=attach)
    assert await failure_of(following) is ErrorCode.DEADLINE_EXCEEDED
    assert not following.has_ended


class Attachments:
    """Counts the calls of a follower's `attach`."""

    def __init__(self, views: FakeViews) -> None:
        self._views = views
        self.num_calls = 0

    async def __call__(self, job_id: JobId) -> None:
        self._views._raise_if_unavailable()
        self.num_calls += 1


async def test_an_attached_follower_reads_at_once_what_it_missed(
    views: FakeViews, inbox: Inbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follower, "SILENCE_S", 60)
    attach = Attachments(views)
    views.checkpoints = (tokens(0, (1, 2), "ab"),)
    following = follow(views, inbox, attach=attach)
    assert await following.updates(60) == [Delta(0, "ab", None)]
    inbox.put(tokens(2, (3,), "c", STOP))
    inbox.put(end())
    assert await text_of(following) == "c"
    assert attach.num_calls == 1


async def test_an_attached_follower_gets_every_token_even_if_no_event_reaches_it(
    views: FakeViews, inbox: Inbox
) -> None:
    attach = Attachments(views)
    following = follow(views, inbox, attach=attach)
    for num in (1, 2, 3):
        views.checkpoints = (tokens(0, tuple(range(num)), "abc"[:num]),)
        assert await following.updates(5) == [Delta(0, "abc"[num - 1], None)]
    views.stored = done("abcd", *range(4))
    assert await text_of(following) == "d"
    assert attach.num_calls >= 4


async def test_an_attached_follower_attaches_again_after_an_outage(
    views: FakeViews, inbox: Inbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failover may have lost the earlier call, and its client would then seem to be gone."""
    monkeypatch.setattr(follower, "SILENCE_S", 60)
    attach = Attachments(views)
    following = follow(views, inbox, attach=attach)
    inbox.put(tokens(0, (1,), "a"))
    assert await following.updates(60) == [Delta(0, "a", None)]
    assert attach.num_calls == 1
    inbox.note_outage()
    inbox.put(tokens(1, (2,), "b"))
    assert await following.updates(60) == [Delta(0, "b", None)]
    assert attach.num_calls == 2


async def test_an_attached_follower_of_an_ended_job_has_its_answer_despite_the_deadline(
    views: FakeViews, inbox: Inbox
) -> None:
    views.stored = done("ab", 1, 2)
    following = follow(views, inbox, left_ms=-1000, attach=Attachments(views))
    assert await text_of(following) == "ab"
    assert following.usage == USAGE


async def test_an_attached_follower_waits_for_redis(views: FakeViews, inbox: Inbox) -> None:
    views.is_unavailable = True
    following = follow(views, inbox, attach=Attachments(views))
    assert await following.updates(0.02) == []
    views.is_unavailable = False
    views.stored = done("ab", 1, 2)
    assert await text_of(following) == "ab"


async def test_tokens_that_do_not_fit_are_neither_lost_nor_repeated(
    views: FakeViews, inbox: Inbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follower, "SILENCE_S", 60)  # only the newest event shows what is missing
    num = 3 * max_events(1)
    following = follow(views, inbox)
    for index in range(num):
        inbox.put(tokens(index, (index,), f"{index} ", STOP if index == num - 1 else None))
    views.checkpoints = (tokens(0, tuple(range(num - 5)), words(num - 5)),)
    text = "".join([u.text for u in await following.updates(1) if isinstance(u, Delta)])
    assert text == words(num - 5)
    views.checkpoints = (tokens(0, tuple(range(num)), words(num), STOP),)
    text += "".join([u.text for u in await following.updates(1) if isinstance(u, Delta)])
    assert text == words(num)
    inbox.put(end())
    assert await text_of(following) == ""


def words(num: int) -> str:
    return "".join(f"{index} " for index in range(num))


async def test_the_end_of_a_choice_that_did_not_fit_arrives_while_the_job_runs(
    views: FakeViews, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follower, "SILENCE_S", 60)
    inbox = Inbox(num_choices=2)
    following = follow(views, inbox, n=2)
    for index in range(max_events(2)):
        inbox.put(tokens(index, (index,), f"{index} ", choice=1))
    inbox.put(tokens(0, (1,), "a", choice=0))
    inbox.put(tokens(1, (2,), "b", STOP, choice=0))
    inbox.put(tokens(max_events(2), (3,), "last", choice=1))
    views.checkpoints = (tokens(0, (1, 2), "ab", STOP, choice=0),)
    updates = [update for update in await following.updates(1) if isinstance(update, Delta)]
    assert [u for u in updates if u.choice == 0] == [Delta(0, "ab", STOP)]
    assert "".join(u.text for u in updates if u.choice == 1) == words(max_events(2)) + "last"


async def test_pending_events_are_bounded_while_a_gap_stays_open(
    views: FakeViews, inbox: Inbox
) -> None:
    following, num = follow(views, inbox), 4 * max_events(1)
    for index in range(1, num):
        inbox.put(tokens(index, (index,), f"{index} "))
        if index % 10 == 0:
            assert await following.updates(0.001) == []
            assert len(following._progress.pending) <= max_events(1)
    views.checkpoints = (tokens(0, tuple(range(num - 1)), words(num - 1)),)
    inbox.put(tokens(num, (num,), "last", STOP))
    views.stored = done(words(num) + "last", *range(num + 1))
    inbox.put(end())
    assert await text_of(following) == words(num) + "last"
