"""Follows one job from its events to what is new for its client."""

import time
from collections.abc import Awaitable, Callable

import structlog

from api.follow.reply_hub import Inbox, max_events
from api.follow.transcript import Delta, Diverged, Transcript, whole_choices
from api.redis_guard import redis_guard
from shared.errors import ErrorCode, JobError, JobFailed, RedisUnavailable
from shared.protocol.events import Admitted, End, Event, Retry, Tokens
from shared.protocol.ids import JobId
from shared.protocol.jobs import Job, JobState
from shared.protocol.results import Result, Usage
from shared.store.queue import Queue

SILENCE_S = 5.0
"""After this long without an event, look at the job itself."""
REFILL_AGAIN_S = 0.25
"""How often checkpoints are written, and so read again while a gap stays open."""

Step = Admitted | Delta
"""What a client sees of a job."""
Shown = Callable[[JobId], Awaitable[tuple[Tokens, ...]]]
"""The checkpoints of a job, each choice as one event from index 0."""

log = structlog.get_logger()


class Follower:
    """One job as its client sees it; every token once, in order, whoever computed it."""

    def __init__(self, job: Job, inbox: Inbox, queue: Queue, shown: Shown) -> None:
        self.transcript = Transcript(job.num_choices)
        self.usage: Usage | None = None
        """Set when the job is done."""
        self.is_ended = False
        """Whether the job itself has ended, well or not."""
        self.failure: JobError | None = None
        """Why there will be no full answer."""
        self._job = job
        self._inbox = inbox
        self._queue = queue
        self._shown = shown
        now = time.monotonic()
        self._deadline = now + job.deadline_ms / 1000
        self._look_at = now + SILENCE_S
        self._held: list[Tokens] = []
        self._max_held = max_events(job.num_choices)
        self._refill_at = 0.0
        self._prompt_tokens = 0
        self._end: End | None = None

    @property
    def is_done(self) -> bool:
        """Whether the job was answered in full."""
        return self.usage is not None

    async def steps(self, patience_s: float) -> list[Step]:
        """What is new; waits for it, and is empty after `patience_s` or when the job is done.

        Raises:
            JobFailed: the job ended with an error, is lost, or its deadline has passed. Everything
                that came before the error has been returned then.
            ClientGone: the client has closed its connection.
        """
        give_up_at = time.monotonic() + patience_s
        steps: list[Step] = []
        while not (steps or self.is_ended or self.failure):
            now = time.monotonic()
            if now >= self._deadline:
                self.failure = _deadline_exceeded(self._job)
            elif now >= give_up_at:
                break
            else:
                steps = await self._wait(min(give_up_at, self._deadline) - now, now)
        if self.failure and not steps:
            raise JobFailed(self.failure)
        return steps

    async def _wait(self, timeout_s: float, now: float) -> list[Step]:
        """One wait, until something comes or it is time to look at Redis."""
        look_at = min(self._look_at, self._refill_at) if self._held else self._look_at
        events = await self._inbox.get(min(timeout_s, look_at - now))
        now = time.monotonic()
        if events:
            self._look_at = now + SILENCE_S
        steps = [step for event in events for step in self._take(event)]
        if self._held and now >= self._refill_at:
            steps += await self._refill()
        is_silent = not events and now >= self._look_at
        return steps + await self._conclude(is_silent)

    async def _conclude(self, is_silent: bool) -> list[Step]:
        """Close a job that has ended; look at Redis for what is missing, or after silence."""
        if self.failure:
            return []
        if self._end and self.transcript.is_complete:
            self._done(self._end.usage)
        elif self._end or is_silent:
            # The result is stored together with the end, and has every token.
            self._look_at = time.monotonic() + (REFILL_AGAIN_S if self._end else SILENCE_S)
            return await self._look()
        return []

    def _take(self, event: Event) -> list[Step]:
        if self.transcript.is_void(event) and not isinstance(event, End):
            return []
        match event:
            case Tokens():
                return self._accept(event)
            case Admitted():
                self._prompt_tokens = event.prompt_tokens
                return [event]
            case Retry():
                self.transcript.void(event)
            case End(state=JobState.DONE):
                self._end = event
            case End():
                self._fail(event.state, event.error)
        return []

    def _accept(self, event: Tokens) -> list[Step]:
        """What `event` adds; held back while tokens in front of it are missing."""
        if not self.transcript.can_accept(event):
            self._hold(event)
            return []
        try:
            delta = self.transcript.accept(event)
        except Diverged as diverged:
            log.error("resume_diverged", job_id=self._job.id, where=str(diverged))
            self.failure = _diverged()
            return []
        return [delta] if delta else []

    def _hold(self, event: Tokens) -> None:
        """Keep an event until the gap in front of it is closed; of too many, each choice's newest.

        The checkpoints will have the others as well.
        """
        self._held.append(event)
        if len(self._held) > self._max_held:
            self._held = list({held.choice: held for held in self._held}.values())

    async def _refill(self) -> list[Step]:
        """Close a gap from the checkpoints; tries again later if they don't reach far enough."""
        try:
            async with redis_guard():
                checkpoints = await self._shown(self._job.id)
        except RedisUnavailable:
            checkpoints = ()
        held, self._held = self._held, []
        self._refill_at = time.monotonic() + REFILL_AGAIN_S
        return [step for event in (*checkpoints, *held) for step in self._accept(event)]

    async def _look(self) -> list[Step]:
        """Take what is missing from the job's result, if it has ended."""
        try:
            async with redis_guard():
                view = await self._queue.job_view(self._job.id)
                is_ended = view and view.state not in (JobState.QUEUED, JobState.RUNNING)
                result = await self._queue.result(self._job.id) if is_ended else None
        except RedisUnavailable:
            return []
        if view is None:
            self.is_ended, self.failure = True, _lost()
        elif result:
            return self._take_result(result)
        elif is_ended:
            self._fail(view.state, view.error)
        return []

    def _take_result(self, result: Result) -> list[Step]:
        if result.state is not JobState.DONE:
            self._fail(result.state, result.error)
            return []
        self._held.clear()
        steps = [step for event in whole_choices(result) for step in self._accept(event)]
        if not self.failure:
            self._done(result.usage)
        return steps

    def _done(self, usage: Usage | None) -> None:
        self.is_ended = True
        self.usage = usage or Usage(
            prompt_tokens=self._prompt_tokens, completion_tokens=self.transcript.num_tokens
        )

    def _fail(self, state: JobState, error: JobError | None) -> None:
        self.is_ended = True
        self.failure = error or _without_reason(state)


def _deadline_exceeded(job: Job) -> JobError:
    return JobError(
        code=ErrorCode.DEADLINE_EXCEEDED,
        message=f"no answer within {job.deadline_ms / 1000:g} s; ask for fewer tokens, or try "
        "again when less is waiting",
    )


def _diverged() -> JobError:
    return JobError(
        code=ErrorCode.RESUME_DIVERGED,
        message="the answer was moved to another worker, which contradicts what was already sent; "
        "send the request again",
    )


def _lost() -> JobError:
    return JobError(code=ErrorCode.UNAVAILABLE, message="the job was lost; send it again")


def _without_reason(state: JobState) -> JobError:
    codes = {
        JobState.CANCELLED: ErrorCode.CANCELLED,
        JobState.EXPIRED: ErrorCode.DEADLINE_EXCEEDED,
        JobState.DEAD: ErrorCode.POISON_JOB,
    }
    code = codes.get(state, ErrorCode.INTERNAL)
    return JobError(code=code, message=f"the job ended as {state}")
