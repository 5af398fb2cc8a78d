"""Routes of SGLang that trainers call around an update, while a test plays the worker.

The calls are those of slime/backends/sglang_utils/sglang_engine.py and external.py,
miles/backends/sglang_utils/sglang_engine.py, areal/engine/sglang_remote.py and
verl/workers/rollout/sglang_rollout/http_server_engine.py.
"""

import asyncio
from typing import Any

import httpx
import pytest
from api_support import BASE, ScriptedWorker, error_of
from key_support import bearer, new_key
from queue_support import eventually
from raw_client import with_settings

from api.routes.base_weights import REASONS
from shared.errors import ErrorCode, JobError
from shared.protocol.access.rights import Scope
from shared.protocol.jobs import JobState
from shared.store.access.key_store import KeyStore
from shared.store.views.pool_views import PoolViews

PAUSE, CONTINUE = "/pause_generation", "/continue_generation"
URL = "/generate"
BODY = {"text": "hi", "lora_path": "extract"}
CANCELLED = JobError(code=ErrorCode.CANCELLED, message="Aborted.")


async def waits(views: PoolViews) -> bool:
    return (await views.counts()).waiting > 0


async def is_paused(http: httpx.AsyncClient) -> bool:
    return bool((await http.get("/ready")).json()["is_paused"])


async def test_slime_s_pause_ends_its_requests_and_lets_new_ones_wait(
    http: httpx.AsyncClient, worker: ScriptedWorker, views: PoolViews
) -> None:
    running = asyncio.create_task(http.post(URL, json=BODY))
    job = await worker.take()
    reply = await http.post(PAUSE, json={})
    assert (reply.status_code, reply.json()["status"]) == (200, "ok")
    assert (await worker.mail()).job == job.job.id
    await worker.fail(job, CANCELLED, JobState.CANCELLED)
    assert (await running).json()["meta_info"]["finish_reason"]["type"] == "abort"

    waiting = asyncio.create_task(http.post(URL, json=BODY))
    await eventually(lambda: waits(views))
    assert (await http.get("/flush_cache")).status_code == 200
    claim = await worker.queue.claim(
        *(worker.id,),
        sequences=64,
        tokens=1000,
        steal_ms=0,
        max_cold=9,
        residents=worker.residents,
    )
    assert claim.jobs == ()
    assert not waiting.done()
    assert (await http.post(CONTINUE, json={})).status_code == 200
    await worker.answer(await worker.take())
    assert (await waiting).json()["text"] == "hello"


@pytest.mark.parametrize("mode", ["in_place", "retract"])
async def test_running_requests_go_on_during_other_pauses(
    http: httpx.AsyncClient, worker: ScriptedWorker, mode: str
) -> None:
    running = asyncio.create_task(http.post(URL, json=BODY))
    job = await worker.take()
    assert (await http.post(PAUSE, json={"mode": mode})).status_code == 200
    await worker.answer(job)
    assert (await running).json()["meta_info"]["finish_reason"]["type"] == "stop"
    await http.post(CONTINUE, json={"torch_empty_cache": True})


async def test_every_front_end_shows_a_pause(
    http: httpx.AsyncClient, other: httpx.AsyncClient, worker: ScriptedWorker
) -> None:
    assert not await is_paused(other)
    await http.post(PAUSE, json={"mode": "in_place"})
    await eventually(lambda: is_paused(other))
    pool = (await other.get("/v1/pool")).json()
    assert pool["pause"]["by"] == "default"
    assert pool["reason"] == "the pool is paused"
    assert (await other.get("/health_generate")).status_code == 200
    for _ in range(2):
        await other.post(CONTINUE, json={})
    changes = (await http.get("/v1/audit_log")).json()["data"]
    assert [change["action"] for change in changes[:2]] == ["continued", "paused"]


@with_settings(require_keys=True)
async def test_a_pause_needs_the_scope_admin_and_ends_only_its_tenants_requests(
    http: httpx.AsyncClient, worker: ScriptedWorker, store: KeyStore
) -> None:
    red, _ = await new_key(store, *Scope, tenant="red")
    blue, _ = await new_key(store, Scope.INFERENCE, Scope.ADAPTERS, tenant="blue")
    running = asyncio.create_task(http.post(URL, json=BODY, headers=bearer(blue)))
    job = await worker.take()
    for route in (PAUSE, CONTINUE):
        reply = await http.post(route, json={}, headers=bearer(blue))
        assert error_of(reply)[:2] == (403, "permission_denied")
        assert "scope admin" in reply.text
    reply = await http.post(PAUSE, json={}, headers=bearer(red))
    assert "0 unfinished requests were ended" in reply.json()["message"]
    await worker.answer(job)
    assert (await running).json()["meta_info"]["finish_reason"]["type"] == "stop"


@with_settings(host="0.0.0.0", require_keys=True)
async def test_a_server_on_the_network_needs_keys(
    http: httpx.AsyncClient, worker: ScriptedWorker
) -> None:
    for route in (PAUSE, CONTINUE, "/flush_cache", "/load_lora_adapter"):
        assert (await http.post(route, json={})).status_code == 401
    # slime and miles wait for the server with this header.
    headers = {"Authorization": "Bearer None"}
    assert (await http.get("/health_generate", headers=headers)).status_code == 200


async def test_a_mode_that_does_not_exist_is_refused(http: httpx.AsyncClient) -> None:
    reply = await http.post(PAUSE, json={"mode": "keep"})
    assert error_of(reply) == (400, "invalid_value", "mode")
    assert not await is_paused(http)


@pytest.mark.parametrize("path", REASONS)
async def test_changes_of_base_weights_and_memory_are_refused(
    http: httpx.AsyncClient, path: str
) -> None:
    reply = await http.post(path, json={"model_path": "/m", "tags": None})
    assert error_of(reply)[:2] == (400, "unsupported_parameter")
    if path.startswith("/update_weights_from"):
        assert reply.json()["success"] is False
        assert "/load_lora_adapter" in reply.json()["message"]


async def test_the_model_and_the_server_are_described(
    http: httpx.AsyncClient, worker: ScriptedWorker
) -> None:
    for path in ("/get_model_info", "/model_info"):
        body = (await http.get(path)).json()
        assert (body["model_path"], body["weight_version"]) == (BASE.name, BASE.version)
        assert body["is_generation"] is True
    for path in ("/server_info", "/get_server_info"):
        info: dict[str, Any] = (await http.get(path)).json()
        # external.py of slime reads these.
        assert (info["tp_size"], info["pp_size"], info["disaggregation_mode"]) == (1, 1, "null")
        assert info["vllm_config"]["model_config"]["model"] == info["model_path"] == BASE.name


async def test_health_generate_needs_a_worker(http: httpx.AsyncClient) -> None:
    assert (await http.get("/health_generate")).status_code == 503
