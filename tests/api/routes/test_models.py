"""Routes by which clients learn about the server and its models: lists, health and metrics."""

import asyncio
from dataclasses import replace
from importlib.metadata import version
from typing import Any

import httpx
import pytest
from api_support import ADAPTER, BASE, RunningApp, ScriptedWorker, client_of, error_of, waiting_job
from key_support import bearer
from pydantic import SecretStr
from raw_client import BODY, CHAT, with_settings

from api.app import create_app
from api.pools import pool_status
from shared.protocol.ids import AdapterVersion
from shared.settings import ApiSettings
from shared.store.adapters.registry import Registry
from shared.store.jobs.queue import Queue

BASE_CARD = {
    "id": "tiny/base",
    "object": "model",
    "created": 1,
    "owned_by": "lorikeet",
    "root": "tiny/base",
    "parent": None,
    "max_model_len": 1000,
    "permission": [],
}
ADAPTER_CARD = {
    **BASE_CARD,
    "id": "extract",
    "created": 2,
    "root": "extract-v1",
    "parent": "tiny/base",
}


async def test_models_are_the_base_and_every_adapter_and_each_can_be_read(
    http: httpx.AsyncClient,
) -> None:
    cards = [BASE_CARD, ADAPTER_CARD]
    assert (await http.get("/v1/models")).json() == {"object": "list", "data": cards}
    for card in cards:
        assert (await http.get(f"/v1/models/{card['id']}")).json() == card


async def test_a_model_that_does_not_exist_is_a_404(http: httpx.AsyncClient) -> None:
    response = await http.get("/v1/models/no/such")
    assert response.status_code == 404
    assert response.json()["error"] == {
        "message": "The model 'no/such' does not exist or you do not have access to it. "
        "GET /v1/models lists all models.",
        "type": "invalid_request_error",
        "param": "model",
        "code": "model_not_found",
    }


ROOTS = {
    "org/repo": "org/repo",
    "org/repo@v2": "org/repo@v2",
    "./local": "local",
    "/": "4@1",
    "https://private.example/a/sql.zip?signature=secret#sha256=12": "sql.zip",
    "s3://private-bucket/team/sql": "sql",
}
"""Sources of adapters, named 1, 2 and so on, and what models show of them."""


async def test_the_root_of_an_adapter_shows_neither_host_nor_query_of_its_source(
    registry: Registry, http: httpx.AsyncClient
) -> None:
    for number, source in enumerate(ROOTS, 1):
        version = AdapterVersion(f"{number}@1")
        adapter = replace(ADAPTER, name=str(number), version=version, source=source)
        await registry.add_adapter(adapter)
    cards = (await http.get("/v1/models")).json()["data"]
    roots = {card["id"]: card["root"] for card in cards}
    assert [roots[str(number + 1)] for number in range(len(ROOTS))] == list(ROOTS.values())


async def test_the_version_is_the_package_version(http: httpx.AsyncClient) -> None:
    assert (await http.get("/version")).json() == {"version": version("lorikeet-serve")}


async def test_the_load_counts_the_jobs_that_clients_wait_for(
    http: httpx.AsyncClient, server: RunningApp, worker: ScriptedWorker
) -> None:
    request = asyncio.create_task(http.post(CHAT, json=BODY))
    await waiting_job(server)
    assert (await http.get("/load")).json() == {"server_load": 1}
    await worker.answer(await worker.take())
    await request
    assert (await http.get("/load")).json() == {"server_load": 0}


async def test_server_info_has_what_trainers_look_up(
    http: httpx.AsyncClient, worker: ScriptedWorker, queue: Queue
) -> None:
    await ScriptedWorker.start(queue)
    info = (await http.get("/server_info", params={"config_format": "json"})).json()
    assert info == (await http.get("/server_info")).json()
    config: dict[str, Any] = info["vllm_config"]
    assert config["model_config"] == {
        "model": BASE.name,
        "dtype": "torch.float32",
        "max_model_len": BASE.max_model_len,
        "logprobs_mode": "raw_logprobs",
    }
    assert config["lora_config"] == {"max_lora_rank": 2**31 - 1, "max_loras": 128}
    assert config["parallel_config"] == {"data_parallel_size": 1}
    assert config["weight_transfer_config"] is None
    assert (await http.get("/get_world_size")).json() == {"world_size": 2}


async def test_without_workers_server_info_has_only_the_model(http: httpx.AsyncClient) -> None:
    config = (await http.get("/server_info")).json()["vllm_config"]
    assert (config["model_config"]["model"], config["model_config"]["dtype"]) == (BASE.name, None)
    assert config["lora_config"]["max_loras"] == 0
    assert (await http.get("/get_world_size")).json() == {"world_size": 0}


async def test_other_formats_of_server_info_are_refused(http: httpx.AsyncClient) -> None:
    reply = await http.get("/server_info", params={"config_format": "text"})
    assert error_of(reply) == (400, "invalid_value", "config_format")


async def test_server_info_needs_a_base_model(settings: ApiSettings) -> None:
    async with client_of(create_app(settings)) as http:
        assert error_of(await http.get("/server_info"))[:2] == (503, "service_unavailable")


READY = {"status": "ready", "accepts_jobs": True, "is_paused": False}
CHECKS = (("GET", "/ready"), ("GET", "/ready/worker"), ("GET", "/ping"), ("POST", "/ping"))


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
    without_workers = await http.get("/ready")
    assert without_workers.status_code == 200
    assert without_workers.json() == {**READY, "has_worker": False, "num_workers": 0}


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


@with_settings(redis_url="redis://127.0.0.1:1/0")
async def test_without_redis_the_process_is_healthy_but_not_ready(http: httpx.AsyncClient) -> None:
    assert (await http.get("/health")).status_code == 200
    response = await http.get("/ready")
    assert (response.status_code, response.json()["reason"]) == (503, "Redis doesn't answer")
    assert "lorikeet_redis_up 0.0" in (await http.get("/metrics")).text
    assert (await http.get("/openapi.json")).status_code == 200
    response = await http.post(CHAT, json=BODY)
    assert error_of(response)[:2] == (503, "service_unavailable")
    assert response.headers["retry-after"] == "2"


OF_WORKER = (
    ("kv_blocks", 100.0),
    ("kv_blocks_free", 90.0),
    ("tokens_total", 7.0),
    ("preemptions_total", 3.0),
    ("forced_tokens_total", 2.0),
    ("drafted_tokens_total", 6.0),
    ("accepted_tokens_total", 1.0),
    ("adapter_loads_total", 4.0),
    ("adapter_load_seconds_total", 1.5),
    ("adapter_reads_total", 0.0),
    ("adapter_evictions_total", 2.0),
    ("adapter_spreads_total", 5.0),
    ("adapter_shrinks_total", 0.0),
    ("weight_bytes", 270.0),
    ("kv_bytes", 200.0),
    ("adapter_bytes", 30.0),
    ("adapter_bytes_max", 40.0),
    ("host_adapter_bytes", 50.0),
    ("host_adapter_bytes_max", 60.0),
)
"""Metrics of `api_support.worker_info`."""


async def test_metrics_cover_requests_queue_and_workers(
    http: httpx.AsyncClient,
    server: RunningApp,
    worker: ScriptedWorker,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pool_status, "MAX_AGE_S", 0)
    request = asyncio.create_task(http.post(CHAT, json=BODY))
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
        'lorikeet_completion_tokens_total{model="extract"} 2.0',
        'lorikeet_prompt_tokens_total{model="extract"} 3.0',
        "lorikeet_time_to_first_token_seconds_count 1.0",
        "lorikeet_redis_up 1.0",
        "lorikeet_workers_alive 1.0",
        'lorikeet_jobs_ended_total{state="done"} 1.0',
        *(f'lorikeet_worker_{name}{{worker="{worker.id}"}} {value}' for name, value in OF_WORKER),
        'lorikeet_jobs_requeued_total{reason="worker_lost"} 0.0',
        "lorikeet_workers_lost_total 0.0",
    ):
        assert line in metrics
