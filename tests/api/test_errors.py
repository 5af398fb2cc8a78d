"""Error responses in OpenAI's format."""

import httpx
import openai
import pytest
from api_support import BASE
from openai.types.chat import ChatCompletionMessageParam

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
