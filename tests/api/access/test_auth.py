"""API keys: which requests are allowed, the isolation of tenants, and the secrecy of keys."""

import asyncio
import itertools
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from api_processes import ROOT, api_process, is_healthy
from api_support import RunningApp, ScriptedWorker, error_of, free_port, until, waiting_job
from key_support import bearer
from pool_contents import pool_contents
from prometheus_client.parser import text_string_to_metric_families
from pydantic import SecretStr
from raw_client import BODY, CHAT, with_settings

from shared.store.redis.connection import Redis
from shared.store.redis.keys import Keys

RED, BLUE, UNNAMED = "red-" + "r" * 20, "blue-" + "b" * 20, "nameless-" + "n" * 20
ADMIN, METRICS = "admin-" + "a" * 20, "metrics-" + "m" * 20
METRICS_PATHS = ("/metrics", "/metrics/", "/load")
ROUTES = [
    *(("POST", CHAT), ("GET", "/v1/models"), ("DELETE", "/v1/jobs/x"), ("GET", "/v1/pool/events")),
    *(("GET", path) for path in (*METRICS_PATHS, "/static", "/no/such/route")),
    *(("GET", "/docs/oauth2-redirect"), ("GET", "/%2Fhealth")),
]
"""Some routes, and paths without one. test_bounds.py walks all routes."""
WRONG = [
    *("Bearer", "Bearer wrong", f"Bearer {RED}x", f"Bearer {RED[:-1]}", f"Basic {RED}"),
    *(RED, f"Bearer {RED} {BLUE}", f"Bearer {RED.upper()}", "Bearer \xe9"),
]


KEYED = {
    "api_keys": tuple(map(SecretStr, (f"red:{RED}", f"blue:{BLUE}", UNNAMED, f"admin:{ADMIN}"))),
    "metrics_key": SecretStr(METRICS),
    "max_waiting_tenant": 1,
}


@pytest.fixture
def changes() -> dict[str, Any]:
    return KEYED


async def test_without_a_key_every_route_is_refused_in_openais_shape(
    http: httpx.AsyncClient,
) -> None:
    for method, path in ROUTES:
        reply = await http.request(method, path)
        assert (path, reply.status_code) == (path, 401)
        assert reply.headers["www-authenticate"] == "Bearer"
        assert reply.json() == {
            "error": {
                "message": "an API key is needed; send it in the header "
                "`Authorization: Bearer KEY`",
                "type": "invalid_request_error",
                "param": None,
                "code": "invalid_api_key",
            }
        }
    metrics = (await http.get("/metrics", headers=bearer(METRICS))).text
    assert 'lorikeet_requests_total{endpoint="other",status="401"}' in metrics


async def test_a_wrong_key_is_refused_and_not_repeated(http: httpx.AsyncClient) -> None:
    for sent in WRONG:
        reply = await http.get("/v1/models", headers=[(b"authorization", sent.encode("latin-1"))])
        assert (sent, reply.status_code) == (sent, 401)
        assert reply.json()["error"]["message"].startswith("unknown API key; ")
        assert not [word for word in sent.split()[1:] if word in reply.text]


async def test_every_key_is_accepted(http: httpx.AsyncClient) -> None:
    for scheme, key in (("Bearer", RED), ("bearer", BLUE), ("BEARER", UNNAMED)):
        headers = {"Authorization": f"{scheme} {key}"}
        assert (await http.get("/v1/models", headers=headers)).status_code == 200


@pytest.mark.parametrize("changes", [KEYED, {**KEYED, "metrics_key": None}])
async def test_only_the_metrics_key_and_administrators_can_read_metrics(
    direct: httpx.AsyncClient, changes: dict[str, Any]
) -> None:
    expected = {RED: 403, UNNAMED: 403, "x" * 20: 401, ADMIN: 200}
    expected[METRICS] = 200 if changes["metrics_key"] else 401
    for (key, status), path in itertools.product(expected.items(), METRICS_PATHS):
        reply = await direct.get(path, headers=bearer(key))
        assert reply.status_code == status, (key, path)
        shows = status == 200 and path != "/load"
        assert ("lorikeet_redis_up" in reply.text) is shows
        if status == 403:
            assert error_of(reply)[1] == "permission_denied"


async def test_the_metrics_key_gives_no_other_access(http: httpx.AsyncClient) -> None:
    for method, path in ROUTES:
        if path not in (*METRICS_PATHS, "/v1/pool/events"):
            reply = await http.request(method, path, headers=bearer(METRICS))
            assert (path, reply.status_code) == (path, 401)
    anonymous = await http.get("/openapi.json", headers=bearer(METRICS))
    assert "extract" not in str(anonymous.json()["components"]["schemas"]["ChatCompletionRequest"])


@with_settings(metrics_key=SecretStr(METRICS))
async def test_metrics_can_need_a_key_on_a_server_without_api_keys(
    direct: httpx.AsyncClient,
) -> None:
    assert (await direct.get("/v1/models")).status_code == 200
    for path in ("/metrics", "/v1/pool", "/v1/pool/", "/v1/pool/events"):
        assert (await direct.get(path)).status_code == 401
        assert (await direct.get(path, headers=bearer(RED))).status_code == 401
    for path in ("/metrics", "/v1/pool"):
        assert (await direct.get(path, headers=bearer(METRICS))).status_code == 200


async def test_the_openapi_document_has_model_names_only_with_a_key(
    http: httpx.AsyncClient,
) -> None:
    assert (await http.get("/docs")).status_code == 200
    anonymous = (await http.get("/openapi.json")).json()
    assert "extract" not in str(anonymous["components"]["schemas"]["ChatCompletionRequest"])
    assert "examples" not in str(anonymous["paths"][CHAT]["post"]["requestBody"])
    authenticated = (await http.get("/openapi.json", headers=bearer(RED))).json()
    assert "extract" in str(authenticated["components"]["schemas"]["ChatCompletionRequest"])
    assert anonymous["components"]["securitySchemes"] == {
        "key": {"type": "http", "scheme": "bearer"}
    }
    assert anonymous["paths"][CHAT]["post"]["security"] == [{"key": []}]
    assert "security" not in anonymous["paths"]["/health"]["get"]


async def test_only_the_tenant_of_a_job_can_list_read_and_cancel_it(
    http: httpx.AsyncClient, worker: ScriptedWorker
) -> None:
    request, job = await worker.sent(http.post(CHAT, json=BODY, headers=bearer(RED)))
    assert job.job.tenant == "red"
    path = f"/v1/jobs/{job.job.id}"
    for key, found in ((RED, [job.job.id]), (BLUE, [])):
        listed = (await http.get("/v1/jobs", headers=bearer(key))).json()["data"]
        assert [each["id"] for each in listed] == found
    after = await http.get(f"/v1/jobs?after={job.job.id}", headers=bearer(BLUE))
    assert error_of(after) == (404, "job_not_found", "after")
    never = (await http.get("/v1/jobs/never", headers=bearer(BLUE))).json()["error"]["message"]
    for method, url in (
        *(("GET", path), ("POST", f"{path}/cancel"), ("DELETE", path)),
        *(("POST", f"{path}/retry"), ("GET", f"{path}/stream")),
    ):
        reply = await http.request(method, url, headers=bearer(BLUE))
        assert reply.status_code == 404
        assert reply.json()["error"]["code"] == "job_not_found"
        assert reply.json()["error"]["message"] == never.replace("never", job.job.id)
    assert (await http.get(path, headers=bearer(RED))).json()["state"] == "running"
    await worker.answer(job)
    assert (await request).status_code == 200
    assert (await http.get(path, headers=bearer(BLUE))).status_code == 404
    found = (await http.get(path, headers=bearer(RED))).json()
    assert found["choices"][0]["message"]["content"] == "hello"
    reply = await http.post(f"{path}/cancel", headers=bearer(RED))
    assert reply.json()["state"] == "done"


async def test_the_limit_of_one_tenant_does_not_affect_others(
    http: httpx.AsyncClient, server: RunningApp, worker: ScriptedWorker
) -> None:
    first = asyncio.create_task(http.post(CHAT, json=BODY, headers=bearer(RED)))
    await waiting_job(server)
    refused = await http.post(CHAT, json=BODY, headers=bearer(RED))
    assert refused.status_code == 429
    assert "tenant" in refused.json()["error"]["message"]
    other = asyncio.create_task(http.post(CHAT, json=BODY, headers=bearer(BLUE)))
    for _ in range(2):
        await worker.answer(await worker.take())
    assert (await first).status_code == (await other).status_code == 200


async def test_keys_are_neither_in_redis_nor_in_metrics(
    http: httpx.AsyncClient, worker: ScriptedWorker, redis: Redis, keys: Keys
) -> None:
    for key in (RED, UNNAMED):
        await worker.serve(http.post(CHAT, json=BODY, headers=bearer(key)))
    kept = await pool_contents(redis, keys)
    metrics = (await http.get("/metrics", headers=bearer(METRICS))).text
    assert list(text_string_to_metric_families(metrics))
    assert len(kept) > 5
    for secret in (RED, UNNAMED, METRICS):
        assert secret not in metrics
        assert secret not in str(kept)


def lorikeet(redis_url: str, pool: str, *words: str) -> str:
    flags = ["--redis-url", redis_url, "--pool", pool]
    command = [sys.executable, "-m", "ops.cli", *words, *flags]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="reads arguments of processes in /proc")
async def test_only_the_output_of_its_creation_has_the_secret(
    redis_url: str, pool: str, worker: ScriptedWorker, redis: Redis, keys: Keys
) -> None:
    words = ("keys", "create", "--tenant", "r", "--scopes", "inference", "--allow-lockout", "--yes")
    created = await asyncio.to_thread(lorikeet, redis_url, pool, *words)
    secret = created.strip()
    part = secret.split("-", 2)[2]
    assert len(part) == 43
    await redis.config_set("slowlog-log-slower-than", 0)
    port = free_port()
    try:
        with api_process(redis_url, pool, port) as process:
            await until(lambda: is_healthy(port), 60)
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
                await use_key(http, worker, secret)
            start = start_of(process.pid)
            process.terminate()
            log, _ = await asyncio.to_thread(process.communicate)
    finally:
        await redis.config_set("slowlog-log-slower-than", 10_000)
    listed = await asyncio.to_thread(lorikeet, redis_url, pool, "keys", "list")
    assert "job_accepted" in log
    everything = f"{await pool_contents(redis, keys)} {await redis.slowlog_get(1000)}"
    assert "digest" in everything
    for text in (log, start, everything, listed):
        assert part not in text


def start_of(process_id: int) -> str:
    """Return the arguments and the environment of a process."""
    folder = Path("/proc") / str(process_id)
    return (folder / "cmdline").read_text() + (folder / "environ").read_text()


async def use_key(http: httpx.AsyncClient, worker: ScriptedWorker, secret: str) -> None:
    """Get an answer, and be refused in several ways."""
    reply, _ = await worker.serve(http.post(CHAT, json=BODY, headers=bearer(secret), timeout=60))
    assert reply.status_code == 200
    statuses = []
    for path, headers in (
        ("/v1/pool", bearer(secret)),
        ("/v1/models", {"X-Api-Key": secret}),
        ("/v1/models", bearer(secret + "x")),
        ("/nowhere", bearer(secret)),
    ):
        statuses.append((await http.get(path, headers=headers)).status_code)
    assert statuses == [403, 200, 401, 404]
