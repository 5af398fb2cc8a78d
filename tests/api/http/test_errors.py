"""Error responses in OpenAI's format."""

import httpx
import openai
import pytest
from api_support import BASE, ScriptedWorker, error_of
from openai.types.chat import ChatCompletionMessageParam
from raw_client import with_settings

CHAT = "/v1/chat/completions"
HI: ChatCompletionMessageParam = {"role": "user", "content": "hi"}


async def test_unknown_urls_and_methods_are_errors_in_openais_format(
    direct: httpx.AsyncClient,
) -> None:
    response = await direct.get("/v1/nothing")
    assert response.status_code == 404
    error = response.json()["error"]
    assert error["message"].startswith("no such URL: GET /v1/nothing; ")
    assert (error["code"], error["type"]) == ("unknown_url", "invalid_request_error")
    response = await direct.get(CHAT)
    assert response.status_code == 405
    assert response.headers["allow"] == "POST"
    response = await direct.put("/v1/jobs/x")
    assert response.headers["allow"] == "GET, DELETE"
    assert "accepts GET, DELETE" in response.json()["error"]["message"]
    assert response.json()["error"]["type"] == "invalid_request_error"


async def test_openais_client_raises_its_own_errors(client: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        await client.chat.completions.create(model="no", messages=[HI])
    assert missing.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as bad:
        await client.chat.completions.create(
            model=BASE.name,
            messages=[HI],
            temperature=5,
        )
    assert bad.value.param == "temperature"


@with_settings(max_waiting=4)
async def test_retry_after_is_the_time_in_which_a_tenth_of_the_waiting_jobs_is_served(
    http: httpx.AsyncClient, worker: ScriptedWorker
) -> None:
    body = {"model": BASE.name, "messages": [HI], "background": True}
    for _ in range(3):  # a rate of 0.1 per second over the last 30 s
        await worker.serve(http.post(CHAT, json=body))
    for _ in range(4):
        assert (await http.post(CHAT, json=body)).status_code == 202
    refused = await http.post(CHAT, json=body)
    assert error_of(refused) == (429, "queue_full", None)
    assert refused.json()["error"]["type"] == "rate_limit_error"
    retry_after_s = int(refused.headers["retry-after"])
    assert 4 <= retry_after_s <= 6
    assert refused.json()["error"]["message"].endswith(f"; try again in {retry_after_s} s")
