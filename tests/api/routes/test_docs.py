"""GET /docs and /openapi.json."""

import httpx
from api_support import (
    ADAPTER,
    BASE,
    ScriptedWorker,
)

URL = "/v1/chat/completions"


async def test_the_document_has_every_model_name_and_an_example_for_each(
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
        example = content["examples"]["extract"]["value"]
        reply, _ = await worker.serve(http.post(path, json=example))
        assert reply.status_code == 200
