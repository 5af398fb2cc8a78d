"""The span of a request for an answer, following OpenTelemetry's conventions for generative AI."""

import asyncio
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING

from fastapi import Request
from starlette.requests import ClientDisconnect

from api.follow.follower import Follower
from api.follow.reply_hub import ClientGone
from api.render.openai_chunks import ChatFormat
from shared.errors import ErrorCode, JobFailed, QueueFull, RedisUnavailable
from shared.protocol.answers import AnswerSpec
from shared.protocol.ids import (
    CHAT_PREFIX,
    COMPLETION_PREFIX,
    EMBEDDING_PREFIX,
    MESSAGE_PREFIX,
    RESPONSE_PREFIX,
    SCORE_PREFIX,
    JobId,
)
from shared.protocol.jobs import Endpoint, Job, View

if TYPE_CHECKING:
    from shared.tracing.tracer import Span, Tracer

OPERATIONS = {
    Endpoint.CHAT: "chat",
    Endpoint.COMPLETIONS: "text_completion",
    Endpoint.EMBEDDINGS: "embeddings",
    Endpoint.SCORES: "scores",
}
"""`gen_ai.operation.name` by endpoint."""
PROVIDER = "lorikeet"
"""`gen_ai.provider.name` of every request."""
CLIENT_GONE = "client_disconnected"
"""`error.type` of a request if the client closed the connection."""

_PREFIX_OF_VIEW = {
    View.RESPONSES: RESPONSE_PREFIX,
    View.MESSAGES: MESSAGE_PREFIX,
    View.GENERATE: "",
}
_PREFIX_OF_ENDPOINT = {
    Endpoint.CHAT: CHAT_PREFIX,
    Endpoint.COMPLETIONS: COMPLETION_PREFIX,
    Endpoint.EMBEDDINGS: EMBEDDING_PREFIX,
    Endpoint.SCORES: SCORE_PREFIX,
}


class RequestTrace:
    """Records one request as a span. If tracing is off, no method has an effect.

    As a context manager, it ends the span at exit.
    """

    def __init__(self, span: "Span | None") -> None:
        self._span = span

    @classmethod
    def begin(cls, tracer: "Tracer | None", request: Request) -> "RequestTrace":
        """Start the span of a request, in the trace that its header `traceparent` names."""
        if tracer is None:
            return cls(None)
        route = getattr(request.scope.get("route"), "path", request.method)
        span = tracer.serve(f"{request.method} {route}", request.headers)
        span.set({"http.request.method": request.method, "http.route": route})
        return cls(span)

    def __enter__(self) -> "RequestTrace":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        failure: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.end(failure)

    def accept(self, job: Job, *, is_stream: bool) -> Job:
        """Write the job's properties to the span, and return the job with the span's context."""
        if (span := self._span) is None:
            return job
        operation, sampling = OPERATIONS[job.endpoint], job.sampling
        generates = job.embedding is None and job.scoring is None
        sets_temperature = "temperature" not in sampling.left_out and generates
        sets_top_p = "top_p" not in sampling.left_out and generates
        span.rename(f"{operation} {job.model}")
        span.set(
            {
                "gen_ai.operation.name": operation,
                "gen_ai.provider.name": PROVIDER,
                "gen_ai.request.model": job.model,
                "gen_ai.request.stream": True if is_stream else None,
                "gen_ai.request.max_tokens": sampling.max_tokens,
                "gen_ai.request.temperature": sampling.temperature if sets_temperature else None,
                "gen_ai.request.top_p": sampling.top_p if sets_top_p else None,
                "gen_ai.request.choice.count": sampling.n if sampling.n > 1 else None,
                "gen_ai.response.model": job.model,
                "gen_ai.response.id": _response_id(job, job.id),
                "lorikeet.job.id": job.id,
                "lorikeet.tenant": job.tenant,
                "lorikeet.adapter.version": job.version,
            }
        )
        return replace(job, traceparent=span.traceparent)

    def replay(self, job: Job, earlier: JobId) -> None:
        """Record that the job `earlier` answers this request.

        An earlier request with the same idempotency key created the job.
        """
        if self._span:
            self._span.set(
                {
                    "gen_ai.response.id": _response_id(job, earlier),
                    "lorikeet.job.id": earlier,
                    "lorikeet.replayed": True,
                }
            )

    def answer(
        self,
        spec: AnswerSpec,
        follower: Follower,
        *,
        first_s: float | None,
        error: ErrorCode | None,
    ) -> None:
        """Describe the answer that was sent.

        `first_s` is the time in seconds from the request to its first tokens; None without tokens.
        `error` is the code of the error that ended a stream.
        """
        if self._span is None:
            return
        if error is not None:
            self._span.fail(error)
        usage = follower.usage
        if usage is None:
            return
        self._span.set(
            {
                "gen_ai.usage.input_tokens": usage.prompt_tokens,
                "gen_ai.usage.output_tokens": usage.completion_tokens,
                "gen_ai.usage.cache_read.input_tokens": usage.cached_tokens,
                "gen_ai.response.finish_reasons": _finish_reasons(spec, follower),
                "gen_ai.response.time_to_first_chunk": first_s,
            }
        )

    def end(self, failure: BaseException | None = None) -> None:
        """End the span, with the error type of `failure` if the request failed."""
        if self._span is None:
            return
        if failure is not None:
            self._span.fail(_error_type(failure))
        self._span.end()


def _response_id(job: Job, job_id: JobId) -> str:
    """Return the id of the answer in the format of the request's API."""
    prefix = _PREFIX_OF_VIEW.get(job.view, _PREFIX_OF_ENDPOINT[job.endpoint])
    return f"{prefix}{job_id}"


def _finish_reasons(spec: AnswerSpec, follower: Follower) -> list[str] | None:
    """Return OpenAI's finish reason of each choice; none for embeddings and scores."""
    if spec.endpoint in (Endpoint.EMBEDDINGS, Endpoint.SCORES):
        return None
    choices = follower.transcript.choices
    if spec.tools is None:
        return [str(choice.finish) for choice in choices]
    # Only the parsed answer shows whether it calls tools.
    chat = ChatFormat(spec, stream=False)
    return [chat.choice(i, choice)["finish_reason"] for i, choice in enumerate(choices)]


def _error_type(failure: BaseException) -> ErrorCode | str:
    match failure:
        case JobFailed():
            return failure.error.code
        case QueueFull():
            return ErrorCode.QUEUE_FULL
        case RedisUnavailable():
            return ErrorCode.UNAVAILABLE
        case ClientGone() | ClientDisconnect():
            return CLIENT_GONE
        case asyncio.CancelledError():  # uvicorn cancels requests that outlast the drain time
            return ErrorCode.SERVER_STOPPING
    return ErrorCode.INTERNAL
