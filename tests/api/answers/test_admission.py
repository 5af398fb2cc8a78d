"""Resolution of the model that a request names."""

import asyncio
import json
from typing import Any

import httpx
import pytest
from api_support import ADAPTER, ScriptedWorker, client_of, error_of
from openai.types.chat import ChatCompletionMessageParam

from api.app import create_app
from shared.settings import ApiSettings
from shared.store.adapters.registry import Registry
from shared.store.views.pool_views import PoolViews

CHAT = "/v1/chat/completions"
HI: ChatCompletionMessageParam = {"role": "user", "content": "hi"}


def body_of(endpoint: str, fields: dict[str, Any]) -> bytes:
    given = {"messages": [HI]} if endpoint == CHAT else {"prompt": "hi"}
    return json.dumps({"model": "extract", **given, **fields}).encode()


@pytest.mark.parametrize("model", ["nothing", "base", "extract@222222222222", "../etc", "x" * 3000])
@pytest.mark.parametrize("stream", [False, True])
async def test_an_unknown_model_is_a_404_before_anything_is_queued(
    direct: httpx.AsyncClient, views: PoolViews, model: str, stream: bool
) -> None:
    body = {"model": model, "messages": [HI], "stream": stream}
    response = await direct.post(CHAT, json=body)
    error = response.json()["error"]
    assert (response.status_code, error["code"], error["param"]) == (
        *(404, "model_not_found"),
        "model",
    )
    assert (await views.counts()).waiting == 0


async def test_before_a_model_is_registered_the_answer_is_a_503(settings: ApiSettings) -> None:
    async with client_of(create_app(settings)) as client:
        response = await client.post(CHAT, content=body_of(CHAT, {}))
    assert response.status_code == 503
    assert response.json()["error"]["code"] == "service_unavailable"
    assert response.headers["retry-after"] == "2"


@pytest.mark.parametrize("model", ["extract", "tiny/base:extract", ADAPTER.version])
async def test_a_request_can_name_an_adapter_in_three_ways(
    http: httpx.AsyncClient, worker: ScriptedWorker, model: str
) -> None:
    request = asyncio.create_task(
        http.post("/v1/completions", json={"model": model, "prompt": "a"})
    )
    job = await worker.take()
    assert (job.job.version, job.job.model) == (ADAPTER.version, model)
    await worker.answer(job)
    body = (await request).json()
    assert body["model"] == model
    assert body["system_fingerprint"] == "fp_000000000000_111111111111"


@pytest.mark.parametrize(
    "model", ["other:extract", "extract@222222222222", "extract@", ":extract", "tiny/base:", "@"]
)
async def test_other_spellings_of_an_adapter_are_unknown(
    http: httpx.AsyncClient, registry: Registry, model: str
) -> None:
    reply = await http.post("/v1/completions", json={"model": model, "prompt": "a"})
    assert error_of(reply) == (404, "model_not_found", "model")
