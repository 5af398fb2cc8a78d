"""Responses that send the answer of a new job or of an existing one."""

from collections.abc import Mapping
from functools import partial

import structlog
from fastapi import Response
from starlette.types import Receive, Scope, Send

from api.access.own_job import own_job
from api.answers.delivery import Delivery
from api.answers.draft import Draft
from api.answers.job_description import answer_headers
from api.answers.parts import Following
from api.answers.rate_headers import rate_headers
from api.follow.follower import Follower
from api.follow.reply_hub import Inbox
from api.formats import AnyPosition
from api.http.headers import REPLAYED_HEADER
from api.metrics.request_trace import RequestTrace
from api.metrics.stream_timing import StreamTiming
from api.schema.base import JobRequest
from shared.errors import ErrorCode, RedisUnavailable
from shared.protocol.answers import AnswerSpec
from shared.protocol.enqueue import Enqueued
from shared.protocol.ids import JobId
from shared.store.views.job_view import JobView

log = structlog.get_logger()


class Answer(Response):
    """Response to a request that was admitted.

    Creating this object doesn't queue the job; `__call__` does. If an earlier request with the same
    idempotency key has created a job, the response is the answer of that job. If an error occurs
    before the response headers are sent, the client gets an HTTP error status. If an error occurs
    later in a stream, the client gets an error event. If the client closes its connection, the job
    is abandoned. If this process stops, the job is abandoned as well, but the client has more time
    to reconnect to it through another process.
    """

    def __init__(
        self,
        following: Following,
        request: JobRequest,
        draft: Draft,
        headers: Mapping[str, str],
        trace: RequestTrace,
    ) -> None:
        """Create a response. A successful response also gets `headers`.

        `trace` ends together with the response.
        """
        super().__init__()
        self._following = following
        self._draft = draft
        self._is_stream = bool(request.stream)
        self._extra_headers = dict(headers)
        self._timing = StreamTiming(following.metrics)
        self._trace = trace

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Queue the job, follow it, and send its answer."""
        following, job = self._following, self._draft.job
        scope.setdefault("state", {})["job_id"] = job.id
        # Without the first bytes of a stream, a client knows the job only by a key of its own.
        may_return = self._is_stream or self._draft.options.idempotency is not None
        client = following.cancels.client(job.id, job.num_choices, may_return=may_return)
        with client as inbox, self._trace:
            enqueued = await self._enqueue()
            if enqueued.is_new:
                await self._answer(inbox, scope, receive, send)
            else:
                self._trace.replay(self._draft.job, enqueued.id)
                await (await self._earlier(enqueued.id))(scope, receive, send)

    async def _enqueue(self) -> Enqueued:
        following, job = self._following, self._draft.job
        try:
            enqueued = await self._draft.enqueue()
        except RedisUnavailable:
            # The job may be queued despite the error. If the client sends the request again with
            # its idempotency key, it gets this job's answer.
            if self._draft.options.idempotency:
                following.cancels.abandon(job.id)
            else:
                following.cancels.add(job.id)
            raise
        self._extra_headers |= rate_headers(enqueued.rates, self._draft.job.view)
        event = "job_accepted" if enqueued.is_new else "job_replayed"
        log.info(event, job_id=enqueued.id, version=self._draft.job.version)
        return enqueued

    async def _answer(self, inbox: Inbox, scope: Scope, receive: Receive, send: Send) -> None:
        following, job = self._following, self._draft.job
        spec = AnswerSpec.of(job)
        follower = Follower(
            spec, inbox, following.views, following.read_checkpoints, left_ms=job.deadline_ms
        )
        headers = {**answer_headers(spec), **self._extra_headers}
        delivery = Delivery(following, spec, inbox, follower, headers=headers, timing=self._timing)
        try:
            if self._is_stream:
                await delivery.send_stream(receive, send)
            else:
                await delivery.send_whole(scope, receive, send)
        finally:
            self._count(follower)
            error = delivery.error.code if delivery.error else None
            first_s = self._timing.first_token_s if self._is_stream else None
            self._trace.answer(spec, follower, first_s=first_s, error=error)

    async def _earlier(self, job_id: JobId) -> "AttachedAnswer":
        """Return the response with the answer of an earlier request's job."""
        view = await own_job(self._following.views, self._draft.access, job_id)
        headers = {REPLAYED_HEADER: "true", **self._extra_headers}
        return AttachedAnswer(self._following, view, is_stream=self._is_stream, headers=headers)

    def _count(self, follower: Follower) -> None:
        metrics = self._following.metrics
        if follower.usage is not None:
            metrics.count_tokens(self._draft.job.model, follower.usage)
        if follower.error and follower.error.code is ErrorCode.RESUME_DIVERGED:
            metrics.diverged.inc()


class AttachedAnswer(Response):
    """Response with the answer of a job that another request created, perhaps elsewhere."""

    def __init__(
        self,
        following: Following,
        view: JobView,
        *,
        is_stream: bool,
        after: AnyPosition | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Create a response for the job in `view`. A stream starts after `after`, if given.

        A successful response has the additional `headers`.
        """
        super().__init__()
        self._following = following
        self._view = view
        self._is_stream = is_stream
        self._after = after
        self._extra_headers = {**answer_headers(view.spec), **(headers or {})}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Attach this process to the job, follow it from its beginning, and send its answer."""
        following, spec = self._following, self._view.spec
        scope.setdefault("state", {})["job_id"] = spec.id
        with following.cancels.client(spec.id, spec.num_choices) as inbox:
            follower = Follower(
                spec,
                inbox,
                following.views,
                following.read_checkpoints,
                left_ms=self._view.left_ms,
                attach=partial(following.queue.attach, api=following.api_id),
            )
            delivery = Delivery(
                *(following, spec, inbox, follower),
                headers=self._extra_headers,
                is_only_client=False,
            )
            if self._is_stream:
                await delivery.send_stream(receive, send, after=self._after)
            else:
                await delivery.send_whole(scope, receive, send)
