"""Spans of requests, as a collector receives them."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from api_support import RunningApp, ScriptedWorker, running_app
from otlp_collector import Collector, Received, collecting
from queue_support import eventually

from shared.cancel_tasks import cancel_tasks
from shared.errors import ErrorCode, JobError
from shared.protocol.jobs import ClaimedJob
from shared.protocol.results import FinishReason
from shared.settings import ApiSettings
from shared.store.adapters.registry import Registry
from shared.tracing.tracer import Tracer

CHAT = "/v1/chat/completions"
SECRET = "pecorino"
BODY: dict[str, Any] = {"model": "extract", "messages": [{"role": "user", "content": SECRET}]}
CALL = '<tool_call>\n{"name": "look", "arguments": {}}\n</tool_call>'
TOOLS = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}]
ERROR_STATUS = 2


class Traced:
    """A front end whose spans go to a collector."""

    def __init__(self, app: RunningApp, tracer: Tracer, collector: Collector) -> None:
        self.http = httpx.AsyncClient(base_url=app.url, timeout=20)
        self._tracer = tracer
        self._collector = collector

    async def spans(self) -> list[Received]:
        """Export all spans that have ended, and return them in the order of their starts."""
        await asyncio.to_thread(self._tracer._provider.force_flush)
        assert SECRET.encode() not in b"".join(self._collector.bodies)
        return sorted(self._collector.spans, key=lambda span: span.start_ns)

    async def span(self) -> Received:
        """Return the only span once it has ended."""
        (span,) = await eventually(self.spans)
        assert isinstance(span, Received)
        return span


@pytest.fixture
async def traced(settings: ApiSettings, registry: Registry) -> AsyncIterator[Traced]:
    with collecting() as collector:
        tracer = Tracer(collector.url, service="lorikeet-api", pool=settings.pool)
        async with running_app(settings, tracer=tracer) as app:
            front = Traced(app, tracer, collector)
            async with front.http:
                yield front
        await asyncio.to_thread(tracer.close)


async def post(traced: Traced, path: str = CHAT, **fields: Any) -> httpx.Response:
    headers = fields.pop("headers", {})
    return await traced.http.post(path, json={**BODY, **fields}, headers=headers)


def belongs_to(claimed: ClaimedJob, span: Received) -> bool:
    """Whether the spans of a job are children of `span`."""
    return (claimed.job.traceparent or "").startswith(f"00-{span.trace}-{span.id}-")


async def test_the_job_carries_the_span_of_its_request(
    traced: Traced, worker: ScriptedWorker
) -> None:
    _, job = await worker.serve(post(traced))
    span = await traced.span()
    assert belongs_to(job, span)
    assert span.name == "chat extract"
    assert span.attributes["gen_ai.response.finish_reasons"] == ["stop"]
    assert "error.type" not in span.attributes


async def test_a_request_without_tracing_has_a_job_without_a_trace(
    http: httpx.AsyncClient, worker: ScriptedWorker
) -> None:
    headers = {"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}
    _, job = await worker.serve(http.post(CHAT, json=BODY, headers=headers))
    assert job.job.traceparent is None


async def test_an_answer_that_calls_a_tool_says_so(traced: Traced, worker: ScriptedWorker) -> None:
    await worker.serve(post(traced, tools=TOOLS), CALL)
    span = await traced.span()
    assert span.attributes["gen_ai.response.finish_reasons"] == ["tool_calls"]


@pytest.mark.parametrize(
    ("path", "fields", "prefix"),
    [
        ("/v1/responses", {"messages": None, "input": SECRET}, "resp_"),
        ("/v1/messages", {"max_tokens": 5}, "msg_"),
    ],
)
async def test_requests_of_other_apis_have_the_id_of_their_answer(
    traced: Traced, worker: ScriptedWorker, path: str, fields: dict[str, Any], prefix: str
) -> None:
    body = {k: v for k, v in {**BODY, **fields}.items() if v is not None}
    reply, _ = await worker.serve(traced.http.post(path, json=body))
    span = await traced.span()
    assert span.attributes["gen_ai.response.id"] == reply.json()["id"]
    assert span.attributes["gen_ai.response.id"].startswith(prefix)
    assert (span.name, span.attributes["http.route"]) == ("chat extract", path)


@pytest.mark.parametrize("is_stream", [False, True])
async def test_a_job_that_fails_is_an_error_of_its_request(
    traced: Traced, worker: ScriptedWorker, is_stream: bool
) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(post(traced, stream=is_stream))
        job = await worker.take()
        await worker.admit(job)
        await worker.tokens(job, 0, (1,), "he")
        await worker.fail(job, JobError(code=ErrorCode.INTERNAL, message=SECRET))
    span = await traced.span()
    assert (span.attributes["error.type"], span.status) == ("internal_error", ERROR_STATUS)


async def test_an_invalid_request_is_no_error_of_the_server(traced: Traced) -> None:
    assert (await post(traced, temperature=SECRET)).status_code == 400
    span = await traced.span()
    assert span.name == f"POST {CHAT}"
    assert (span.attributes["error.type"], span.status) == ("invalid_value", 0)


async def test_a_client_that_leaves_is_no_error_of_the_server(
    traced: Traced, worker: ScriptedWorker
) -> None:
    posting = asyncio.create_task(post(traced))
    await worker.take()
    await cancel_tasks(posting)
    span = await traced.span()
    assert (span.attributes["error.type"], span.status) == ("client_disconnected", 0)


async def test_a_request_in_the_background_ends_when_it_is_accepted(
    traced: Traced, worker: ScriptedWorker
) -> None:
    reply = await post(traced, background=True)
    assert reply.status_code == 202
    span = await traced.span()
    assert span.attributes["lorikeet.job.id"] == reply.json()["id"]
    assert belongs_to(await worker.take(), span)


@pytest.mark.parametrize("is_background", [False, True])
async def test_a_replayed_request_names_the_earlier_job(
    traced: Traced, worker: ScriptedWorker, is_background: bool
) -> None:
    keyed: dict[str, Any] = {"headers": {"Idempotency-Key": "k"}, "background": is_background}
    _, job = await worker.serve(post(traced, **keyed))
    await post(traced, **keyed)
    one, two = await traced.spans()
    assert one.attributes["lorikeet.job.id"] == two.attributes["lorikeet.job.id"] == job.job.id
    assert "lorikeet.replayed" not in one.attributes
    assert two.attributes["lorikeet.replayed"] is True
    assert "gen_ai.usage.output_tokens" not in two.attributes


async def test_an_embedding_has_no_finish_reason(traced: Traced, worker: ScriptedWorker) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(
            traced.http.post("/v1/embeddings", json={"model": "extract", "input": SECRET})
        )
        job = await worker.take()
        await worker.tokens(job, 0, (), "AACAPwAAAAA=", FinishReason.STOP)
        await worker.finish(job)
    span = await traced.span()
    assert span.name == "embeddings extract"
    assert "gen_ai.response.finish_reasons" not in span.attributes
    assert "gen_ai.request.temperature" not in span.attributes
