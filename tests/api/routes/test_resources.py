"""Models, jobs, health, metrics and the documentation."""

import asyncio
from typing import Any

import httpx
import openai
import pytest
from api_support import (
    ADAPTER,
    BASE,
    USAGE_BODY,
    RunningApp,
    ScriptedWorker,
    client_of,
    running_app,
)

from api import cached_read
from api.app import create_app
from shared.errors import ErrorCode, JobError
from shared.settings import ApiSettings
from shared.store.pool_views import WorkerView
from shared.store.queue import Queue
from shared.store.registry import Registry

BODY = {"model": "extract", "messages": [{"role": "user", "content": "hi"}]}
URL = "/v1/chat/completions"
BASE_CARD = {
    "id": "tiny/base",
    "object": "model",
    "created": 1,
    "owned_by": "lorikeet",
    "root": "tiny/base",
    "parent": None,
}
ADAPTER_CARD = {
    "id": "extract",
    "object": "model",
    "created": 2,
    "owned_by": "lorikeet",
    "root": "extract-v1",
    "parent": "tiny/base",
}


async def test_models_are_the_base_and_every_adapter(http: httpx.AsyncClient) -> None:
    response = await http.get("/v1/models")
    assert response.json() == {"object": "list", "data": [BASE_CARD, ADAPTER_CARD]}


async def test_openais_client_lists_models(client: openai.AsyncOpenAI) -> None:
    assert [model.id async for model in client.models.list()] == [BASE.name, ADAPTER.name]
    assert (await client.models.retrieve(ADAPTER.name)).owned_by == "lorikeet"


@pytest.mark.parametrize("card", [BASE_CARD, ADAPTER_CARD])
async def test_one_model_can_be_asked_for_also_with_a_slash_in_its_name(
    http: httpx.AsyncClient, card: dict[str, Any]
) -> None:
    assert (await http.get(f"/v1/models/{card['id']}")).json() == card


async def test_a_model_that_does_not_exist_is_a_404(http: httpx.AsyncClient) -> None:
    response = await http.get("/v1/models/no/such")
    assert response.status_code == 404
    assert response.json()["error"]["code"] == "model_not_found"


async def test_the_root_of_an_adapter_is_its_hub_id_or_the_name_of_its_folder(
    registry: Registry, http: httpx.AsyncClient
) -> None:
    fields = {name: getattr(ADAPTER, name) for name in ADAPTER.__slots__}
    for name, source in [("a", "org/repo"), ("b", "./local"), ("c", "/")]:
        changes = {"name": name, "version": f"{name}@1", "source": source}
        await registry.add_adapter(type(ADAPTER)(**{**fields, **changes}))
    cards = (await http.get("/v1/models")).json()["data"]
    roots = {card["id"]: card["root"] for card in cards}
    assert (roots["a"], roots["b"], roots["c"]) == ("org/repo", "local", "c@1")


async def test_a_job_can_be_looked_up_while_it_waits_runs_and_is_done(
    http: httpx.AsyncClient, server: RunningApp, worker: ScriptedWorker
) -> None:
    first = asyncio.create_task(http.post(URL, json=BODY))
    job = await worker.take()
    body = (await http.get(f"/v1/jobs/{job.job.id}")).json()
    assert (body["state"], body["tries"], body["worker"]) == ("running", 1, worker.id)
    assert (body["model"], body["version"]) == ("extract", ADAPTER.version)
    assert body["choices"] is None
    await worker.answer(job, "hello")
    response = await first
    body = (await http.get(f"/v1/jobs/{response.headers['x-lorikeet-job']}")).json()
    assert body["state"] == "done"
    assert body["choices"] == [{"index": 0, "text": "hello", "finish_reason": "stop"}]
    assert body["usage"] == USAGE_BODY
    assert (await http.get(f"/v1/jobs/{response.json()['id']}")).json() == body


async def test_a_failed_job_tells_why(http: httpx.AsyncClient, worker: ScriptedWorker) -> None:
    request = asyncio.create_task(http.post(URL, json=BODY))
    job = await worker.take()
    await worker.fail(job, JobError(code=ErrorCode.INTERNAL, message="broken"))
    await request
    body = (await http.get(f"/v1/jobs/{job.job.id}")).json()
    assert (body["state"], body["error"]["message"]) == ("failed", "broken")


@pytest.mark.parametrize(("method", "path"), [("POST", "/cancel"), ("DELETE", "")])
async def test_cancelling_a_waiting_job_ends_its_request(
    http: httpx.AsyncClient, server: RunningApp, method: str, path: str
) -> None:
    request = asyncio.create_task(http.post(URL, json=BODY))
    job_id = await waiting_job(server)
    response = await http.request(method, f"/v1/jobs/{job_id}{path}")
    assert response.json() == {"id": job_id, "object": "job", "state": "cancelled"}
    refused = await request
    assert refused.status_code == 409
    assert refused.json()["error"]["code"] == "cancelled"
    assert refused.headers["x-should-retry"] == "false"


async def waiting_job(server: RunningApp) -> str:
    """The id of the one job that waits."""
    queue = server.context.queue
    async with asyncio.timeout(10):
        while not (await queue.counts()).waiting:
            pass
    (job_id,) = server.context.replies._inboxes
    return job_id


async def test_cancelling_a_running_job_tells_its_worker(
    http: httpx.AsyncClient, worker: ScriptedWorker
) -> None:
    request = asyncio.create_task(http.post(URL, json=BODY))
    job = await worker.take()
    response = await http.post(f"/v1/jobs/{job.job.id}/cancel")
    assert response.json()["state"] == "running"
    assert (await worker.mail()).job == job.job.id
    await worker.answer(job)
    await request


@pytest.mark.parametrize(("method", "path"), [("GET", ""), ("POST", "/cancel"), ("DELETE", "")])
async def test_an_unknown_job_is_a_404(http: httpx.AsyncClient, method: str, path: str) -> None:
    response = await http.request(method, f"/v1/jobs/0123{path}")
    assert response.status_code == 404
    assert response.json()["error"]["code"] == "job_not_found"


async def test_ready_says_what_is_missing(
    settings: ApiSettings, registry: Registry, http: httpx.AsyncClient
) -> None:
    elsewhere = settings.model_copy(update={"pool": f"{settings.pool}-empty"})
    async with client_of(create_app(elsewhere)) as client:
        response = await client.get("/ready")
        assert response.status_code == 503
        assert response.json()["reason"] == "no base model is registered"
    response = await http.get("/ready")
    assert (response.status_code, response.json()["reason"]) == (503, "no worker is alive")


async def test_ready_with_a_live_worker(http: httpx.AsyncClient, worker: ScriptedWorker) -> None:
    response = await http.get("/ready")
    assert (response.status_code, response.json()) == (200, {"status": "ready"})


async def test_who_asks_often_costs_one_read_a_second(
    http: httpx.AsyncClient, server: RunningApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cached_read, "MAX_AGE_S", 60)
    num_reads = 0
    read = Queue.workers

    async def counting_read(queue: Queue) -> list[WorkerView]:
        nonlocal num_reads
        num_reads += 1
        return await read(queue)

    monkeypatch.setattr(Queue, "workers", counting_read)
    for path in ("/ready", "/metrics"):
        num_reads = 0
        replies = await asyncio.gather(*(http.get(path) for _ in range(20)))
        assert len({reply.status_code for reply in replies}) == 1
        assert num_reads == 1
    assert 'endpoint="/metrics"' in (await http.get("/metrics")).text  # its own counts are fresh


async def test_load_balancers_may_ask_with_head(
    http: httpx.AsyncClient, worker: ScriptedWorker
) -> None:
    for path in ("/health", "/ready"):
        response = await http.head(path)
        assert (response.status_code, response.content) == (200, b"")


async def test_without_redis_the_process_is_healthy_but_not_ready(
    settings: ApiSettings,
) -> None:
    away = settings.model_copy(update={"redis_url": "redis://127.0.0.1:1/0"})
    async with running_app(away) as running, httpx.AsyncClient(base_url=running.url) as client:
        assert (await client.get("/health")).status_code == 200
        response = await client.get("/ready")
        assert (response.status_code, response.json()["reason"]) == (503, "Redis doesn't answer")
        assert "lorikeet_redis_up 0.0" in (await client.get("/metrics")).text
        assert (await client.get("/openapi.json")).status_code == 200
        response = await client.post(URL, json=BODY)
        assert response.status_code == 503
        assert response.json()["error"]["code"] == "service_unavailable"
        assert response.headers["retry-after"] == "2"


async def test_metrics_tell_requests_queue_and_workers(
    http: httpx.AsyncClient,
    server: RunningApp,
    worker: ScriptedWorker,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cached_read, "MAX_AGE_S", 0)
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


async def test_two_apps_in_one_process_count_apart(settings: ApiSettings) -> None:
    async with client_of(create_app(settings)) as one, client_of(create_app(settings)) as two:
        await one.get("/health")
        assert 'endpoint="/health"' in (await one.get("/metrics")).text
        assert 'endpoint="/health"' not in (await two.get("/metrics")).text


async def test_swagger_offers_every_served_name_and_an_example_for_each(
    http: httpx.AsyncClient, worker: ScriptedWorker
) -> None:
    assert "/openapi.json" in (await http.get("/docs")).text
    document = (await http.get("/openapi.json")).json()
    for name in ("ChatCompletionRequest", "CompletionRequest"):
        properties = document["components"]["schemas"][name]["properties"]
        assert properties["model"]["enum"] == [BASE.name, ADAPTER.name]
    for path in (URL, "/v1/completions"):
        content = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]
        assert list(content["examples"]) == [BASE.name, ADAPTER.name]
        request = asyncio.create_task(http.post(path, json=content["examples"]["extract"]["value"]))
        await worker.answer(await worker.take())
        assert (await request).status_code == 200


async def test_every_reference_of_the_openapi_document_resolves(http: httpx.AsyncClient) -> None:
    document = (await http.get("/openapi.json")).json()
    schemas = set(document["components"]["schemas"])
    assert {ref.rpartition("/")[2] for ref in references(document)} == schemas


def references(node: Any) -> set[str]:
    if isinstance(node, dict):
        own = {node["$ref"]} if isinstance(node.get("$ref"), str) else set()
        return own.union(*(references(value) for value in node.values()))
    if isinstance(node, list):
        return set().union(*(references(value) for value in node))
    return set()
