"""Requests for answers: their model, headers and weights, repeats, and those in the background."""

import asyncio
from typing import Any

import httpx
import openai
import pytest
from api_support import (
    ADAPTER,
    USAGE_BODY,
    RunningApp,
    ScriptedWorker,
    client_of,
    error_of,
    sse_text,
)
from chat_stream import MESSAGES, admitted
from key_support import bearer
from queue_support import eventually
from raw_client import BODY, CHAT, with_settings

from api.app import create_app
from shared.errors import ErrorCode, JobError
from shared.protocol.enqueue import Enqueued
from shared.protocol.ids import JobId
from shared.settings import ApiSettings
from shared.store.adapters.registry import Registry
from shared.store.jobs.queue import Queue
from shared.store.redis.connection import Redis
from shared.store.redis.keys import Keys
from shared.store.views.pool_views import PoolViews

TEXT = "/v1/completions"
BACKGROUND = {**BODY, "background": True}
TEXT_BACKGROUND = {"model": "extract", "prompt": "hi", "background": True}
BAD_HEADERS = {
    "Idempotency-Key": "a b",
    "X-Lorikeet-On-Disconnect": "never",
    "X-Lorikeet-Deadline-S": "601",
}


async def test_an_invalid_header_is_a_400_before_anything_is_queued(
    direct: httpx.AsyncClient, views: PoolViews
) -> None:
    for name, value in BAD_HEADERS.items():
        reply = await direct.post(CHAT, json=BODY, headers={name: value})
        assert error_of(reply) == (400, "invalid_value", name)
    assert (await views.counts()).waiting == 0


async def test_without_a_header_the_servers_deadline_applies(
    settings: ApiSettings, http: httpx.AsyncClient, worker: ScriptedWorker
) -> None:
    for headers, seconds in (({}, settings.deadline_s), ({"X-Lorikeet-Deadline-S": "7.5"}, 7.5)):
        await http.post(CHAT, json=BACKGROUND, headers=headers)
        assert (await worker.take()).job.deadline_ms == seconds * 1000


async def test_a_priority_request_overtakes_and_a_flex_request_is_overtaken(
    http: httpx.AsyncClient, worker: ScriptedWorker
) -> None:
    positions = {}
    for tier in ("flex", "default", "priority", None):
        body = {**BACKGROUND, "service_tier": tier}
        positions[tier] = JobId((await http.post(CHAT, json=body)).json()["id"])
    jobs = {tier: (await http.get(f"/v1/jobs/{job}")).json() for tier, job in positions.items()}
    ordered = sorted(jobs, key=lambda tier: jobs[tier]["position"])
    assert ordered == ["priority", "default", None, "flex"]


async def test_a_tenants_weight_divides_the_tokens_that_it_is_charged(
    settings: ApiSettings, registry: Registry, redis: Redis, keys: Keys
) -> None:
    tenants = {"red": "r" * 16, "blue": "b" * 16}
    given = {
        "api_keys": [f"{tenant}:{secret}" for tenant, secret in tenants.items()],
        "tenant_weights": ["red=4"],
    }
    body = {**TEXT_BACKGROUND, "prompt": [1] * 20, "max_tokens": 80}
    async with client_of(create_app(ApiSettings(**{**settings.model_dump(), **given}))) as http:
        for secret in tenants.values():
            await http.post(TEXT, json=body, headers=bearer(secret))
    charged = {name: float(await redis.hget(keys.tenant(name), "tag") or 0) for name in tenants}
    assert charged == {"red": 100 / 4, "blue": 100}


@pytest.mark.parametrize("stream", [False, True])
async def test_fifty_requests_at_once_with_one_key_get_the_answer_of_one_job(
    http: httpx.AsyncClient, worker: ScriptedWorker, views: PoolViews, stream: bool
) -> None:
    body = {**BODY, "stream": stream}
    requests = [
        asyncio.create_task(http.post(CHAT, json=body, headers={"Idempotency-Key": "once"}))
        for _ in range(50)
    ]
    job = await worker.take()
    await worker.answer(job, "hello")
    replies = await asyncio.gather(*requests)
    assert {reply.status_code for reply in replies} == {200}
    assert {reply.headers["x-lorikeet-job"] for reply in replies} == {job.job.id}
    assert sum("idempotent-replayed" not in reply.headers for reply in replies) == 1
    texts = {sse_text(r) if stream else content(r) for r in replies}
    assert texts == {"hello"}
    counts = await views.counts()
    assert (counts.waiting, sum(counts.totals.values())) == (0, 1)


def content(reply: httpx.Response) -> str:
    text: str = reply.json()["choices"][0]["message"]["content"]
    return text


async def test_a_client_whose_connection_breaks_gets_the_answer_when_it_asks_again(
    http: httpx.AsyncClient, worker: ScriptedWorker
) -> None:
    headers = {"Idempotency-Key": "again"}
    first = asyncio.create_task(http.post(CHAT, json=BODY, headers=headers))
    job = await admitted(worker)
    first.cancel()
    second = asyncio.create_task(http.post(CHAT, json=BODY, headers=headers))
    await worker.answer(job, "hello")
    reply = await second
    assert (content(reply), reply.headers["idempotent-replayed"]) == ("hello", "true")
    late = await http.post(CHAT, json=BODY, headers=headers)
    assert late.json() == reply.json()


async def test_an_official_client_that_tries_again_is_answered_by_a_new_job(
    server: RunningApp, worker: ScriptedWorker
) -> None:
    error = JobError(code=ErrorCode.ADAPTER_UNAVAILABLE, message="its source is away")
    url = f"{server.url}/v1"
    async with openai.AsyncOpenAI(api_key="none", base_url=url, max_retries=2) as client:
        headers = {"Idempotency-Key": "retried"}
        create = client.chat.completions.create
        request, first = await worker.sent(
            create(model="extract", messages=MESSAGES, extra_headers=headers)
        )
        await worker.fail(first, error)
        second = await worker.take()
        await worker.answer(second, "hello")
        assert (await request).choices[0].message.content == "hello"
    assert first.job.id != second.job.id


@pytest.mark.parametrize(
    ("fields", "headers", "keeps_running"),
    [
        ({}, {"X-Lorikeet-On-Disconnect": "continue"}, True),
        ({"stream": True}, {"X-Lorikeet-On-Disconnect": "continue"}, True),
        ({"stream": True, "background": True}, {}, True),
        ({}, {"X-Lorikeet-On-Disconnect": "cancel"}, False),
        ({"stream": True}, {}, False),
    ],
)
@with_settings(disconnect_grace_s=0)
async def test_a_job_outlives_its_client_if_the_request_says_so(
    http: httpx.AsyncClient,
    worker: ScriptedWorker,
    redis: Redis,
    keys: Keys,
    fields: dict[str, Any],
    headers: dict[str, str],
    keeps_running: bool,
) -> None:
    request = asyncio.create_task(http.post(CHAT, json={**BODY, **fields}, headers=headers))
    job = await admitted(worker)
    request.cancel()
    await eventually(lambda: redis.hget(keys.job(job.job.id), "gone"))
    is_cancelled = await redis.hexists(keys.job(job.job.id), "cancel")
    assert is_cancelled is not keeps_running
    await worker.answer(job, "hello")
    body = (await http.get(f"/v1/jobs/{job.job.id}")).json()
    assert body["choices"][0]["message"]["content"] == "hello"


UNKNOWN = (
    *("nothing", "base", "extract@222222222222", "../etc", "x" * 3000, "other:extract"),
    *("extract@", ":extract", "tiny/base:", "@"),
)


@pytest.mark.parametrize("stream", [False, True])
async def test_an_unknown_model_is_a_404_before_anything_is_queued(
    direct: httpx.AsyncClient, views: PoolViews, stream: bool
) -> None:
    for model in UNKNOWN:
        reply = await direct.post(CHAT, json={**BODY, "model": model, "stream": stream})
        assert error_of(reply) == (404, "model_not_found", "model"), model
    assert (await views.counts()).waiting == 0


async def test_before_a_model_is_registered_the_answer_is_a_503(settings: ApiSettings) -> None:
    async with client_of(create_app(settings)) as client:
        response = await client.post(CHAT, json=BODY)
    assert response.status_code == 503
    assert response.json()["error"]["code"] == "service_unavailable"
    assert response.headers["retry-after"] == "2"


def keyed(key: str) -> dict[str, str]:
    return {"Idempotency-Key": key}


async def test_the_response_is_the_job_and_its_answer_comes_later(
    http: httpx.AsyncClient, worker: ScriptedWorker
) -> None:
    reply = await http.post(CHAT, json={**BACKGROUND, "service_tier": "flex"})
    accepted = reply.json()
    assert reply.status_code == 202
    assert reply.headers["location"] == f"/v1/jobs/{accepted['id']}"
    assert reply.headers["x-lorikeet-job"] == accepted["id"]
    assert "idempotent-replayed" not in reply.headers
    found = (await http.get(reply.headers["location"])).json()
    assert found.pop("duration_s") >= accepted.pop("duration_s")  # it is queued meanwhile
    assert accepted == found
    assert (accepted["state"], accepted["position"], accepted["choices"]) == ("queued", 1, None)
    job = await worker.take()
    assert job.job.id == accepted["id"]
    await worker.answer(job, "hello")
    answer = (await http.get(reply.headers["location"])).json()
    assert (answer["object"], answer["state"]) == ("job", "done")
    (choice,) = answer["choices"]
    assert choice["message"] == {"role": "assistant", "content": "hello", "tool_calls": None}
    assert (choice["finish_reason"], choice["logprobs"]) == ("stop", None)
    assert answer["usage"] == USAGE_BODY
    assert (answer["created"], answer["service_tier"]) == (job.job.created_s, "flex")
    assert answer["system_fingerprint"] == job.job.fingerprint
    assert (answer["model"], answer["version"]) == ("extract", ADAPTER.version)


async def test_a_new_job_that_ended_at_once_is_accepted_too(
    http: httpx.AsyncClient,
    server: RunningApp,
    worker: ScriptedWorker,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    enqueue = server.pool.part(Queue).enqueue

    async def enqueue_and_answer(*args: Any, **options: Any) -> Enqueued:
        enqueued = await enqueue(*args, **options)
        await worker.answer(await worker.take(), "hello")
        return enqueued

    monkeypatch.setattr(server.pool.part(Queue), "enqueue", enqueue_and_answer)
    reply = await http.post(CHAT, json=BACKGROUND)
    assert (reply.status_code, reply.json()["state"]) == (202, "done")


async def test_a_replay_after_a_failure_returns_the_error_of_the_job(
    http: httpx.AsyncClient, worker: ScriptedWorker
) -> None:
    await http.post(CHAT, json=BACKGROUND, headers=keyed("broken"))
    await worker.fail(await worker.take(), JobError(code=ErrorCode.INTERNAL, message="broken"))
    again = await http.post(CHAT, json=BACKGROUND, headers=keyed("broken"))
    assert again.status_code == 200
    assert (again.json()["state"], again.json()["error"]["message"]) == ("failed", "broken")
    assert again.json()["choices"] is None


async def test_a_key_with_another_body_or_endpoint_is_a_conflict(
    http: httpx.AsyncClient, views: PoolViews
) -> None:
    await http.post(TEXT, json=TEXT_BACKGROUND, headers=keyed("k"))
    for url, body in ((TEXT, {**TEXT_BACKGROUND, "n": 2}), (CHAT, BACKGROUND)):
        reply = await http.post(url, json=body, headers=keyed("k"))
        assert error_of(reply) == (409, "idempotency_conflict", None)
        assert reply.headers["x-should-retry"] == "false"
    assert (await http.post(TEXT, json=TEXT_BACKGROUND, headers=keyed("k2"))).status_code == 202
    assert (await views.counts()).waiting == 2


@with_settings(max_waiting=1)
async def test_a_full_queue_refuses_requests_in_the_background_too(http: httpx.AsyncClient) -> None:
    assert (await http.post(CHAT, json=BACKGROUND, headers=keyed("k"))).status_code == 202
    refused = await http.post(CHAT, json=BACKGROUND)
    assert error_of(refused) == (429, "queue_full", None)
    assert (await http.post(CHAT, json=BACKGROUND, headers=keyed("k"))).status_code == 202
