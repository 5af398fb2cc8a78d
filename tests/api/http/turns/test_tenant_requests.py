"""Connections: a tenant with many requests leaves room for the others."""

import asyncio

import httpx
import pytest
from api_support import client_of
from fastapi import FastAPI
from key_support import bearer
from pydantic import SecretStr

from api.app import create_app
from shared.settings import ApiSettings
from shared.store.adapters.registry import Registry

RED, BLUE = "red-" + "r" * 20, "blue-" + "b" * 20
CHAT = "/v1/chat/completions"
BODY = {"model": "extract", "messages": [{"role": "user", "content": "hi"}]}


@pytest.fixture
def app(settings: ApiSettings) -> FastAPI:
    keys = tuple(SecretStr(key) for key in (f"red:{RED}", f"blue:{BLUE}"))
    return create_app(settings.model_copy(update={"api_keys": keys, "max_connections": 6}))


async def test_a_tenant_may_use_half_of_the_connections(app: FastAPI, registry: Registry) -> None:
    async with client_of(app) as http:
        sent = [
            asyncio.create_task(http.post(CHAT, json=BODY, headers=bearer(RED))) for _ in range(4)
        ]
        (first,), waiting = await asyncio.wait(sent, return_when=asyncio.FIRST_COMPLETED)
        refused = first.result()
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
        assert "--max-connections" in refused.json()["error"]["message"]
        assert (await http.get("/v1/models", headers=bearer(RED))).status_code == 429
        assert (await http.get("/v1/models", headers=bearer(BLUE))).status_code == 200
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        assert (await http.get("/v1/models", headers=bearer(RED))).status_code == 200


async def test_requests_without_keys_are_not_limited(
    settings: ApiSettings, registry: Registry
) -> None:
    app = create_app(settings.model_copy(update={"max_connections": 2}))
    async with client_of(app) as http:
        replies: list[httpx.Response] = await asyncio.gather(
            *(http.get("/v1/models") for _ in range(10))
        )
    assert {reply.status_code for reply in replies} == {200}
