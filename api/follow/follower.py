"""Follows one job: turns the job's events into updates for its client.

If another request created the job, the follower attaches to it. It attaches again after each outage
of Redis, because Redis may have lost the attachment. After a failover of Redis, workers write full
checkpoints (`worker/jobs/publisher.py`).
"""

import math
import time
from collections.abc import Awaitable, Callable

import structlog

from api.follow.follow_state import (
    FINAL_STATES,
    Action,
    Checkpoints,
    DeadlinePassed,
    FollowState,
    Progress,
    Signal,
    StoredJob,
    Timer,
    advance,
)
from api.follow.reply_hub import Inbox, max_events
from api.follow.transcript import Transcript
from api.follow.updates import Update
from shared.errors import JobError, JobFailed, RedisUnavailable
from shared.protocol.answers import AnswerSpec
from shared.protocol.events import Tokens
from shared.protocol.ids import JobId
from shared.protocol.jobs import JobState
from shared.protocol.results import Usage
from shared.store.views.pool_views import PoolViews

SILENCE_S = 5.0
"""Seconds without an event after which the follower reads the job from Redis."""
REFILL_AGAIN_S = 0.25
"""Seconds between two reads of the checkpoints. Workers write checkpoints about as often.

If the result of a finished job can't be read, this is also the delay until the next attempt.
"""

ReadCheckpoints = Callable[[JobId], Awaitable[tuple[Tokens, ...]]]
"""Reads a job's checkpoints and returns one event per choice, with tokens from index 0."""
Attach = Callable[[JobId], Awaitable[None]]
"""Makes the pool send the job's events to this process, from now on. Safe to repeat."""

log = structlog.get_logger()


class Follower:
    """Delivers each token of one job exactly once, in order.

    This holds even if the job moves to another worker. The follower drives the state machine in
    `follow_state`.
    """

    def __init__(
        self,
        spec: AnswerSpec,
        inbox: Inbox,
        views: PoolViews,
        read_checkpoints: ReadCheckpoints,
        *,
        left_ms: int,
        attach: Attach | None = None,
    ) -> None:
        """Create a follower of a job. The job's deadline is `left_ms` milliseconds away.

        Callers must have opened `inbox` before the pool sent any event of the job to this process.
        A job that another request created needs `attach`. The follower calls it at once, after each
        silence, and after an outage of Redis, because Redis may have lost the effect of an earlier
        call.
        """
        self.transcript = Transcript(spec.num_choices, has_ids=spec.counts_tokens)
        self._progress = Progress(max_pending=max_events(spec.num_choices))
        self._job_id = spec.id
        self._inbox = inbox
        self._views = views
        self._read_checkpoints = read_checkpoints
        self._attach = attach
        self._is_caught_up = attach is None
        """Whether the follower is attached and has read the job's state since then."""
        self._limit_ms = left_ms if attach is None else None
        now = time.monotonic()
        self._deadline = now + left_ms / 1000
        self._silence_at = now + SILENCE_S if attach is None else now
        self._refill_at = 0.0

    @property
    def is_done(self) -> bool:
        """Whether the job is done and all its tokens have been delivered."""
        return self._progress.state is FollowState.DONE

    @property
    def has_ended(self) -> bool:
        """Whether the job itself has ended, with an answer or an error."""
        return self._progress.state in (FollowState.DONE, FollowState.FAILED)

    @property
    def usage(self) -> Usage | None:
        """Token counts of the job; None until it is done."""
        return self._progress.usage if self.is_done else None

    @property
    def error(self) -> JobError | None:
        """Error that prevents a complete answer, or None if there is no error so far."""
        return self._progress.error

    async def updates(self, timeout_s: float) -> list[Update]:
        """Wait for updates and return them.

        Returns an empty list if no update arrives within `timeout_s` seconds, or if the job is
        done.

        Raises:
            JobFailed: the job ended with an error, was lost or missed its deadline, or a later try
                generated tokens that contradict those of an earlier try. Earlier calls have
                already returned all updates that precede the error.
            ClientGone: the client has closed its connection.
            ServerStopping: this process stops.
        """
        return_at = time.monotonic() + timeout_s
        updates: list[Update] = []
        while not updates and self._progress.state not in FINAL_STATES:
            now = time.monotonic()
            deadline = self._deadline if self._is_caught_up else math.inf  # the job may have ended
            if now >= deadline:
                updates = await self._apply(DeadlinePassed(self._limit_ms))
            elif now >= return_at:
                break
            else:
                updates = await self._wait(min(return_at, deadline) - now, now)
        if self.error and not updates:
            raise JobFailed(self.error)
        return updates

    async def _wait(self, timeout_s: float, now: float) -> list[Update]:
        """Wait once for events or a timer, and apply the resulting signals."""
        timer_at = self._silence_at
        if self._progress.pending:
            timer_at = min(timer_at, self._refill_at)
        events = await self._inbox.get(min(timeout_s, timer_at - now))
        now = time.monotonic()
        if self._attach and self._inbox.take_outage():
            self._is_caught_up, self._silence_at = False, now
        if events and self._is_caught_up:  # otherwise, `attach` is still due
            self._silence_at = now + SILENCE_S
        updates = [update for event in events for update in await self._apply(event)]
        if self._progress.pending and now >= self._refill_at:
            updates += await self._apply(Timer.REFILL)
        if now >= self._silence_at:
            updates += await self._apply(Timer.SILENCE)
        return updates

    async def _apply(self, signal: Signal) -> list[Update]:
        """Apply a signal, perform all resulting actions, and return all updates."""
        updates: list[Update] = []
        reply: Signal | None = signal
        while reply is not None:
            outcome = advance(self._progress, self.transcript, reply)
            if outcome.progress.diverged_at and not self._progress.diverged_at:
                where = outcome.progress.diverged_at
                log.error("resume_diverged", job_id=self._job_id, where=where)
            self._progress = outcome.progress
            updates += outcome.updates
            reply = await self._perform(outcome.action) if outcome.action else None
        return updates

    async def _perform(self, action: Action) -> Signal | None:
        """Perform a read, and set the time of the next read of this kind.

        Returns the reply, or None if Redis is unavailable.
        """
        try:
            if action is Action.READ_CHECKPOINTS:
                return await self._checkpoints()
            return await self._stored_job()
        except RedisUnavailable:
            return None

    async def _checkpoints(self) -> Checkpoints:
        try:
            return Checkpoints(await self._read_checkpoints(self._job_id))
        finally:
            self._refill_at = time.monotonic() + REFILL_AGAIN_S

    async def _stored_job(self) -> StoredJob:
        is_urgent = not self._is_caught_up or self._progress.state is FollowState.COMPLETING
        self._silence_at = time.monotonic() + (REFILL_AGAIN_S if is_urgent else SILENCE_S)
        if self._attach:
            await self._attach(self._job_id)
        stored = await self._read_job()
        self._is_caught_up = True
        return stored

    async def _read_job(self) -> StoredJob:
        view, result = await self._views.job_and_result(self._job_id)
        if view is None:
            return StoredJob(None)
        if view.state is JobState.DONE:
            return StoredJob(view.state, result=result)
        checkpoints = await self._read_checkpoints(self._job_id)
        return StoredJob(view.state, view.error, checkpoints=checkpoints)
