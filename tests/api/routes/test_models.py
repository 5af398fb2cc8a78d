"""Routes by which clients learn about the server and its models."""

import asyncio
from dataclasses import replace
from importlib.metadata import version
from typing import Any

import httpx
from api_support import (
    ADAPTER,
    BASE,
    RunningApp,
    ScriptedWorker,
    client_of,
    error_of,
    waiting_job,
)

from api.app import create_app
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


BODY = {"model": "extract", "messages": [{"role": "user", "content": "hi"}]}


async def test_the_version_is_the_package_version(http: httpx.AsyncClient) -> None:
    assert (await http.get("/version")).json() == {"version": version("lorikeet-serve")}


async def test_the_load_counts_the_jobs_that_clients_wait_for(
    http: httpx.AsyncClient, server: RunningApp, worker: ScriptedWorker
) -> None:
    request = asyncio.create_task(http.post("/v1/chat/completions", json=BODY))
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
