"""GET /v1/models and one model."""

from dataclasses import replace
from typing import Any

import httpx
import openai
import pytest
from api_support import (
    ADAPTER,
    BASE,
)

from shared.protocol.ids import AdapterVersion
from shared.store.adapters.registry import Registry

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
    "id": "extract",
    "object": "model",
    "created": 2,
    "owned_by": "lorikeet",
    "root": "extract-v1",
    "parent": "tiny/base",
    "max_model_len": 1000,
    "permission": [],
}


async def test_models_are_the_base_and_every_adapter(http: httpx.AsyncClient) -> None:
    response = await http.get("/v1/models")
    assert response.json() == {"object": "list", "data": [BASE_CARD, ADAPTER_CARD]}


async def test_openais_client_lists_models(client: openai.AsyncOpenAI) -> None:
    assert [model.id async for model in client.models.list()] == [BASE.name, ADAPTER.name]
    assert (await client.models.retrieve(ADAPTER.name)).owned_by == "lorikeet"


@pytest.mark.parametrize("card", [BASE_CARD, ADAPTER_CARD])
async def test_one_model_can_be_read_even_with_a_slash_in_its_name(
    http: httpx.AsyncClient, card: dict[str, Any]
) -> None:
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


async def test_models_and_metrics_accept_head_requests(http: httpx.AsyncClient) -> None:
    for path in ("/v1/models", "/metrics"):
        response = await http.head(path)
        assert (response.status_code, response.content) == (200, b"")


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
