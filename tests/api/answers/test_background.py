"""Requests that run in the background."""

from typing import Any

import httpx
import pytest
from api_support import ADAPTER, USAGE_BODY, RunningApp, ScriptedWorker, error_of
from raw_client import with_settings

from shared.errors import ErrorCode, JobError
from shared.protocol.enqueue import Enqueued
from shared.store.adapters.registry import Registry
from shared.store.jobs.queue import Queue
from shared.store.views.pool_views import PoolViews

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
BODY = {
    "model": "extract",
    "messages": [{"role": "user", "content": "hi"}],
    "background": True,
}
TEXT_BODY = {"model": "extract", "prompt": "hi", "background": True}


def keyed(key: str) -> dict[str, str]:
    return {"Idempotency-Key": key}


async def test_the_response_is_the_job_and_its_answer_comes_later(
    http: httpx.AsyncClient, worker: ScriptedWorker
) -> None:
    reply = await http.post(CHAT, json=BODY)
    accepted = reply.json()
    assert reply.status_code == 202
    assert reply.headers["location"] == f"/v1/jobs/{accepted['id']}"
    assert reply.headers["x-lorikeet-job"] == accepted["id"]
    assert "idempotent-replayed" not in reply.headers
    assert accepted == (await http.get(reply.headers["location"])).json()
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
    assert answer["created"] == job.job.created_s
    assert answer["system_fingerprint"] == job.job.fingerprint
    assert (answer["model"], answer["version"]) == ("extract", ADAPTER.version)


async def test_a_completion_runs_in_the_background_too(
    http: httpx.AsyncClient, worker: ScriptedWorker
) -> None:
    reply = await http.post(
        TEXT, json={**TEXT_BODY, "service_tier": "flex", "prompt_cache_key": "k"}
    )
    assert reply.headers["x-lorikeet-warning"] == "not used: prompt_cache_key"
    await worker.answer(await worker.take(), "hello")
    answer = (await http.get(reply.headers["location"])).json()
    (choice,) = answer["choices"]
    assert (choice["text"], choice["finish_reason"]) == ("hello", "stop")
    assert answer["service_tier"] == "flex"


async def test_a_replay_after_the_end_returns_the_answer_with_status_200(
    http: httpx.AsyncClient, worker: ScriptedWorker
) -> None:
    first = await http.post(CHAT, json=BODY, headers=keyed("again"))
    await worker.answer(await worker.take(), "hello")
    again = await http.post(CHAT, json=BODY, headers=keyed("again"))
    assert (again.status_code, again.headers["idempotent-replayed"]) == (200, "true")
    assert again.json() == (await http.get(first.headers["location"])).json()
    assert again.json()["choices"][0]["message"]["content"] == "hello"


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
    reply = await http.post(CHAT, json=BODY)
    assert (reply.status_code, reply.json()["state"]) == (202, "done")


async def test_a_replay_after_a_failure_returns_the_error_of_the_job(
    http: httpx.AsyncClient, worker: ScriptedWorker
) -> None:
    await http.post(CHAT, json=BODY, headers=keyed("broken"))
    await worker.fail(await worker.take(), JobError(code=ErrorCode.INTERNAL, message="broken"))
    again = await http.post(CHAT, json=BODY, headers=keyed("broken"))
    assert again.status_code == 200
    assert (again.json()["state"], again.json()["error"]["message"]) == ("failed", "broken")
    assert again.json()["choices"] is None


async def test_a_key_with_another_body_or_endpoint_is_a_conflict(
    http: httpx.AsyncClient, views: PoolViews
) -> None:
    await http.post(TEXT, json=TEXT_BODY, headers=keyed("k"))
    for url, body in ((TEXT, {**TEXT_BODY, "n": 2}), (CHAT, BODY)):
        reply = await http.post(url, json=body, headers=keyed("k"))
        assert error_of(reply) == (409, "idempotency_conflict", None)
        assert reply.headers["x-should-retry"] == "false"
    assert (await http.post(TEXT, json=TEXT_BODY, headers=keyed("k2"))).status_code == 202
    assert (await views.counts()).waiting == 2


@with_settings(max_waiting=1)
async def test_a_full_queue_refuses_requests_in_the_background_too(
    http: httpx.AsyncClient, registry: Registry
) -> None:
    assert (await http.post(CHAT, json=BODY, headers=keyed("k"))).status_code == 202
    refused = await http.post(CHAT, json=BODY)
    assert error_of(refused) == (429, "queue_full", None)
    assert (await http.post(CHAT, json=BODY, headers=keyed("k"))).status_code == 202
