"""GET /health and /ready."""

import httpx
from api_support import (
    ScriptedWorker,
    client_of,
    running_app,
)
from key_support import bearer
from pydantic import SecretStr
from raw_client import with_settings

from api.app import create_app
from shared.settings import ApiSettings
from shared.store.adapters.registry import Registry

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


async def test_a_pool_without_workers_is_ready_for_jobs(
    registry: Registry, http: httpx.AsyncClient
) -> None:
    response = await http.get("/ready")
    assert (response.status_code, response.json()) == (
        200,
        {"status": "ready", "accepts_jobs": True, "has_worker": False, "num_workers": 0},
    )


async def test_ready_with_a_live_worker(http: httpx.AsyncClient, worker: ScriptedWorker) -> None:
    checks = (("GET", "/ready"), ("GET", "/ready/worker"), ("GET", "/ping"), ("POST", "/ping"))
    for method, path in checks:
        response = await http.request(method, path)
        assert (response.status_code, response.json()) == (
            200,
            {"status": "ready", "accepts_jobs": True, "has_worker": True, "num_workers": 1},
        )


@with_settings(api_keys=(SecretStr("red:" + "r" * 20),))
async def test_with_keys_only_clients_with_a_key_learn_the_number_of_workers(
    direct: httpx.AsyncClient, worker: ScriptedWorker
) -> None:
    for path in ("/ready", "/ready/worker", "/ping"):
        anonymous = (await direct.get(path)).json()
        assert anonymous == {"status": "ready", "accepts_jobs": True, "has_worker": True}
        red = await direct.get(path, headers=bearer("r" * 20))
        assert red.json() == {**anonymous, "num_workers": 1}


async def test_health_checks_accept_head_requests(
    http: httpx.AsyncClient, worker: ScriptedWorker
) -> None:
    for path in ("/health", "/ready", "/ready/worker", "/ping"):
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
