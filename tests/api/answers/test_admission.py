"""Resolution of the model that a request names."""

import httpx
import pytest
from api_support import ADAPTER, ScriptedWorker, client_of, error_of
from openai.types.chat import ChatCompletionMessageParam

from api.app import create_app
from shared.settings import ApiSettings
from shared.store.views.pool_views import PoolViews

CHAT = "/v1/chat/completions"
HI: ChatCompletionMessageParam = {"role": "user", "content": "hi"}


UNKNOWN = (
    *("nothing", "base", "extract@222222222222", "../etc", "x" * 3000, "other:extract"),
    *("extract@", ":extract", "tiny/base:", "@"),
)


@pytest.mark.parametrize("stream", [False, True])
async def test_an_unknown_model_is_a_404_before_anything_is_queued(
    direct: httpx.AsyncClient, views: PoolViews, stream: bool
) -> None:
    for model in UNKNOWN:
        body = {"model": model, "messages": [HI], "stream": stream}
        reply = await direct.post(CHAT, json=body)
        assert error_of(reply) == (404, "model_not_found", "model"), model
    assert (await views.counts()).waiting == 0


async def test_before_a_model_is_registered_the_answer_is_a_503(settings: ApiSettings) -> None:
    async with client_of(create_app(settings)) as client:
        response = await client.post(CHAT, json={"model": "extract", "messages": [HI]})
    assert response.status_code == 503
    assert response.json()["error"]["code"] == "service_unavailable"
    assert response.headers["retry-after"] == "2"


@pytest.mark.parametrize("model", ["extract", "tiny/base:extract", ADAPTER.version])
async def test_a_request_can_name_an_adapter_in_three_ways(
    http: httpx.AsyncClient, worker: ScriptedWorker, model: str
) -> None:
    body = {"model": model, "prompt": "a"}
    reply, job = await worker.serve(http.post("/v1/completions", json=body))
    assert (job.job.version, job.job.model) == (ADAPTER.version, model)
    body = reply.json()
    assert body["model"] == model
    assert body["system_fingerprint"] == "fp_000000000000_111111111111"
