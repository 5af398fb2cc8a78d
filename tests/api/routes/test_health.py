"""GET /health, /ready and /metrics."""

import asyncio

import httpx
import pytest
from api_support import (
    ADAPTER,
    RunningApp,
    ScriptedWorker,
    client_of,
    running_app,
    waiting_job,
)
from key_support import bearer
from pydantic import SecretStr
from raw_client import with_settings

from api.app import create_app
from api.pools import pool_status
from shared.settings import ApiSettings

BODY = {"model": "extract", "messages": [{"role": "user", "content": "hi"}]}
URL = "/v1/chat/completions"


async def test_ready_reports_why_requests_cannot_be_served(
    settings: ApiSettings, http: httpx.AsyncClient
) -> None:
    elsewhere = settings.model_copy(update={"pool": f"{settings.pool}-empty"})
    async with client_of(create_app(elsewhere)) as client:
        response = await client.get("/ready")
        assert response.status_code == 503
        assert response.json()["reason"] == "no base model is registered"
    for path in ("/ready/worker", "/ping"):
        response = await http.get(path)
        assert (response.status_code, response.json()["reason"]) == (503, "no worker is alive")


READY = {"status": "ready", "accepts_jobs": True}
CHECKS = (("GET", "/ready"), ("GET", "/ready/worker"), ("GET", "/ping"), ("POST", "/ping"))


async def test_a_pool_without_workers_is_ready_for_jobs(http: httpx.AsyncClient) -> None:
    response = await http.get("/ready")
    assert response.status_code == 200
    assert response.json() == {**READY, "has_worker": False, "num_workers": 0}


async def test_ready_with_a_live_worker(http: httpx.AsyncClient, worker: ScriptedWorker) -> None:
    for method, path in CHECKS:
        response = await http.request(method, path)
        assert response.status_code == 200
        assert response.json() == {**READY, "has_worker": True, "num_workers": 1}


@with_settings(api_keys=(SecretStr("red:" + "r" * 20),))
async def test_with_keys_only_clients_with_a_key_learn_the_number_of_workers(
    direct: httpx.AsyncClient, worker: ScriptedWorker
) -> None:
    for path in ("/ready", "/ready/worker", "/ping"):
        anonymous = (await direct.get(path)).json()
        assert anonymous == {**READY, "has_worker": True}
        red = await direct.get(path, headers=bearer("r" * 20))
        assert red.json() == {**anonymous, "num_workers": 1}


async def test_checks_models_and_metrics_accept_head_requests(
    http: httpx.AsyncClient, worker: ScriptedWorker
) -> None:
    for path in ("/health", "/ready", "/ready/worker", "/ping", "/v1/models", "/metrics"):
        response = await http.head(path)
        assert (response.status_code, response.content) == (200, b"")


async def test_without_redis_the_process_is_healthy_but_not_ready(
    settings: ApiSettings,
) -> None:
    unreachable = settings.model_copy(update={"redis_url": "redis://127.0.0.1:1/0"})
    async with (
        running_app(unreachable) as running,
        httpx.AsyncClient(base_url=running.url) as client,
    ):
        assert (await client.get("/health")).status_code == 200
        response = await client.get("/ready")
        assert (response.status_code, response.json()["reason"]) == (503, "Redis doesn't answer")
        assert "lorikeet_redis_up 0.0" in (await client.get("/metrics")).text
        assert (await client.get("/openapi.json")).status_code == 200
        response = await client.post(URL, json=BODY)
        assert response.status_code == 503
        assert response.json()["error"]["code"] == "service_unavailable"
        assert response.headers["retry-after"] == "2"


async def test_metrics_cover_requests_queue_and_workers(
    http: httpx.AsyncClient,
    server: RunningApp,
    worker: ScriptedWorker,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pool_status, "MAX_AGE_S", 0)
    request = asyncio.create_task(http.post(URL, json=BODY))
    await waiting_job(server)
    waiting = (await http.get("/metrics")).text
    assert "lorikeet_jobs_waiting 1.0" in waiting
    assert f'lorikeet_adapter_workers{{adapter="{ADAPTER.name}"}} 1.0' in waiting
    assert f'lorikeet_adapter_jobs_waiting{{adapter="{ADAPTER.name}"}} 1.0' in waiting
    job = await worker.take()
    assert "lorikeet_jobs_running 1.0" in (await http.get("/metrics")).text
    await worker.answer(job)
    await request
    metrics = (await http.get("/metrics")).text
    for line in (
        'lorikeet_requests_total{endpoint="/v1/chat/completions",status="200"} 1.0',
        "lorikeet_resume_diverged_total 0.0",
        "lorikeet_redis_up 1.0",
        "lorikeet_workers_alive 1.0",
        'lorikeet_jobs_ended_total{state="done"} 1.0',
        f'lorikeet_worker_kv_blocks{{worker="{worker.id}"}} 100.0',
        f'lorikeet_worker_kv_blocks_free{{worker="{worker.id}"}} 90.0',
        f'lorikeet_worker_tokens_total{{worker="{worker.id}"}} 7.0',
        f'lorikeet_worker_preemptions_total{{worker="{worker.id}"}} 3.0',
        f'lorikeet_worker_forced_tokens_total{{worker="{worker.id}"}} 2.0',
        f'lorikeet_worker_drafted_tokens_total{{worker="{worker.id}"}} 6.0',
        f'lorikeet_worker_accepted_tokens_total{{worker="{worker.id}"}} 1.0',
        f'lorikeet_worker_adapter_loads_total{{worker="{worker.id}"}} 4.0',
        f'lorikeet_worker_adapter_load_seconds_total{{worker="{worker.id}"}} 1.5',
        f'lorikeet_worker_adapter_reads_total{{worker="{worker.id}"}} 0.0',
        f'lorikeet_worker_adapter_evictions_total{{worker="{worker.id}"}} 2.0',
        f'lorikeet_worker_adapter_spreads_total{{worker="{worker.id}"}} 5.0',
        f'lorikeet_worker_adapter_shrinks_total{{worker="{worker.id}"}} 0.0',
        f'lorikeet_worker_weight_bytes{{worker="{worker.id}"}} 270.0',
        f'lorikeet_worker_kv_bytes{{worker="{worker.id}"}} 200.0',
        f'lorikeet_worker_adapter_bytes{{worker="{worker.id}"}} 30.0',
        f'lorikeet_worker_adapter_bytes_max{{worker="{worker.id}"}} 40.0',
        f'lorikeet_worker_host_adapter_bytes{{worker="{worker.id}"}} 50.0',
        f'lorikeet_worker_host_adapter_bytes_max{{worker="{worker.id}"}} 60.0',
        'lorikeet_jobs_requeued_total{reason="worker_lost"} 0.0',
        "lorikeet_workers_lost_total 0.0",
    ):
        assert line in metrics
