"""Metrics of one app and of its pool, also in vLLM's names, and spans of requests."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from api_support import (
    BASE,
    RunningApp,
    ScriptedWorker,
    metric_samples,
    queue_counts,
    running_app,
    worker_info,
)
from otlp_collector import Collector, Received, collecting
from queue_support import eventually
from raw_client import CHAT

from api.follow.transcript import Delta
from api.metrics import stream_timing
from api.metrics.metrics import MAX_MODELS, OTHER_MODELS, Metrics
from api.metrics.pool_metrics import MAX_ADAPTERS, OTHER_ADAPTERS, PoolSnapshot
from api.metrics.stream_timing import StreamTiming
from api.metrics.vllm_metrics import MAX_LISTED
from shared.cancel_tasks import cancel_tasks
from shared.errors import ErrorCode, JobError
from shared.protocol.events import Admitted
from shared.protocol.ids import AdapterVersion, JobId, WorkerId
from shared.protocol.jobs import ClaimedJob
from shared.protocol.results import FinishReason, Usage
from shared.settings import ApiSettings
from shared.store.adapters.registry import Registry
from shared.store.views.pool_views import RedisMemory, WorkerView
from shared.tracing.tracer import Tracer


def test_models_beyond_a_limit_share_one_label() -> None:
    metrics, usage = Metrics(), Usage(prompt_tokens=2, completion_tokens=1)
    for number in (*range(MAX_MODELS + 3), 0):
        metrics.count_tokens(f"m{number}", usage)
    found = metric_samples(metrics)
    assert found["lorikeet_prompt_tokens_total", "m0"] == 4
    assert found["lorikeet_prompt_tokens_total", OTHER_MODELS] == 6
    assert sum(name == "lorikeet_completion_tokens_total" for name, *_ in found) == MAX_MODELS + 1


ADMITTED = Admitted(job=JobId("j"), try_=1, prompt_tokens=3)


def test_queue_time_first_token_and_token_gaps_are_observed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now_s = 100.0
    monkeypatch.setattr(stream_timing, "time", SimpleNamespace(monotonic=lambda: now_s))
    metrics = Metrics()
    answer = StreamTiming(metrics)
    for passed_s, step in (
        (1.0, ADMITTED),
        (0.5, Delta(0, "a", None)),
        (0.25, Delta(1, "b", None)),  # another choice, so there is no gap
        (2.0, ADMITTED),  # the job moved to another worker
        (0.75, Delta(0, "c", None)),
    ):
        now_s += passed_s
        answer.record([step])
    found = metric_samples(metrics)
    assert found["lorikeet_queue_seconds_sum",] == 1.0
    assert found["lorikeet_queue_seconds_count",] == 1
    assert found["lorikeet_time_to_first_token_seconds_sum",] == 1.5
    assert found["lorikeet_time_to_first_token_seconds_count",] == 1
    assert found["lorikeet_inter_token_seconds_sum",] == 3.0
    assert found["lorikeet_inter_token_seconds_count",] == 1


def test_adapters_with_the_most_waiting_jobs_have_their_own_label() -> None:
    waiting = {version_of(f"a{n}"): n for n in range(1, MAX_ADAPTERS + 3)}
    waiting[version_of(f"a{MAX_ADAPTERS + 2}", "1")] = 5
    found = metric_samples(Metrics(), pool(waiting))
    exported = {n[1]: v for n, v in found.items() if n[0] == "lorikeet_adapter_jobs_waiting"}
    assert len(exported) == MAX_ADAPTERS + 1
    assert exported[f"a{MAX_ADAPTERS + 2}"] == MAX_ADAPTERS + 2 + 5
    assert exported[OTHER_ADAPTERS] == 1 + 2


def test_adapters_on_the_most_workers_have_their_own_label_in_any_version() -> None:
    hot = [version_of("hot"), version_of("hot", "1")]
    others = [version_of(f"a{n}") for n in range(MAX_ADAPTERS)]
    workers = busy("w1", hot[0], *others), busy("w2", *hot), busy("w3")
    found = metric_samples(Metrics(), pool({}, *workers))
    exported = {n[1]: v for n, v in found.items() if n[0] == "lorikeet_adapter_workers"}
    assert len(exported) == MAX_ADAPTERS
    assert exported["hot"] == 2
    assert exported["a0"] == 1


def test_memory_is_exported_by_kind_of_key() -> None:
    counts = pool({}).counts
    memory = RedisMemory(used=900, limit=0, by_kind={"job": 500, "dead": 0})
    found = metric_samples(Metrics(), PoolSnapshot(counts, (), memory))
    assert found["lorikeet_redis_bytes", "job"] == 500
    assert found["lorikeet_redis_bytes", "dead"] == 0


@pytest.mark.parametrize("number", [None, 0, 3])
def test_strays_are_counted_and_have_no_value_without_an_audit(number: int | None) -> None:
    found = metric_samples(Metrics(), replace(pool({}), num_strays=number))
    assert found.get(("lorikeet_stray_keys",)) == number


def version_of(name: str, digit: str = "0") -> AdapterVersion:
    return AdapterVersion(f"{name}@{digit * 12}")


def busy(name: str, *residents: AdapterVersion, lease_left_ms: int = 1) -> WorkerView:
    return WorkerView(
        id=WorkerId(name),
        lease_left_ms=lease_left_ms,
        info=worker_info(),
        residents=residents,
        running=3,
    )


def pool(waiting: dict[AdapterVersion, int], *workers: WorkerView) -> PoolSnapshot:
    return PoolSnapshot(queue_counts(waiting), workers, RedisMemory(1, 2), base=BASE)


INFO = "vllm:lora_requests_info"


def test_the_values_are_totals_over_live_workers() -> None:
    sql, old, mail = version_of("sql"), version_of("sql", "1"), version_of("mail")
    waiting = {BASE.version: 4, sql: 2, old: 1}
    dead = busy("w3", version_of("dead"), lease_left_ms=-1)
    alive = busy("w1", BASE.version, sql, old), busy("w2", mail)
    found = metric_samples(Metrics(), pool(waiting, *alive, dead))
    assert found["vllm:num_requests_waiting", BASE.name] == 7
    assert found["vllm:num_requests_running", BASE.name] == 6
    for name in ("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc"):
        assert abs(found[name, BASE.name] - 0.1) < 1e-9
    assert found[INFO, "128", BASE.name, "mail,sql", "sql"] > 1e9


def test_adapters_with_the_most_jobs_are_listed() -> None:
    waiting = {version_of(f"a{n:04}"): n for n in range(1, 3000)}
    resident = busy("w1", *waiting, *(version_of(f"idle{n}") for n in range(100)))
    found = metric_samples(Metrics(), pool(waiting, resident))
    ((_, _, _, running, queued),) = [name for name in found if name[0] == INFO]
    busiest = [f"a{n:04}" for n in range(3000 - MAX_LISTED, 3000)]
    assert running.split(",") == queued.split(",") == busiest


def test_an_unknown_value_is_left_out() -> None:
    assert not [name for name in metric_samples(Metrics(), None) if name[0].startswith("vllm:")]
    unregistered = replace(pool({}), base=None)
    names = [name[0] for name in metric_samples(Metrics(), unregistered)]
    assert not [name for name in names if name.startswith("vllm:")]
    without_workers = metric_samples(Metrics(), pool({}))
    assert ("vllm:kv_cache_usage_perc", BASE.name) not in without_workers
    assert without_workers["vllm:num_requests_running", BASE.name] == 0
    assert (INFO, "0", BASE.name, "", "") in without_workers


SECRET = "pecorino"
BODY: dict[str, Any] = {"model": "extract", "messages": [{"role": "user", "content": SECRET}]}
CALL = '<tool_call>\n{"name": "look", "arguments": {}}\n</tool_call>'
TOOLS = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}]
ERROR_STATUS = 2


class Traced:
    """A front end whose spans go to a collector."""

    def __init__(self, app: RunningApp, tracer: Tracer, collector: Collector) -> None:
        self.http = httpx.AsyncClient(base_url=app.url, timeout=60)
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
