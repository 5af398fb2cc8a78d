"""The OpenAPI document."""

from typing import Any

import httpx
import jsonschema
import pytest
from api_support import (
    ADAPTER,
    BASE,
    ScriptedWorker,
)
from translated_jobs import HI


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


async def test_jobs_and_lists_follow_the_document(
    http: httpx.AsyncClient, worker: ScriptedWorker
) -> None:
    document = (await http.get("/openapi.json")).json()
    ids = []
    for url, fields in (
        ("/v1/chat/completions", {"messages": [HI], "logprobs": True}),
        ("/v1/completions", {"prompt": "hi", "service_tier": "flex"}),
    ):
        ids.append(await started(http, url, fields))
        await worker.answer(await worker.take())
    ids.append(await started(http, "/v1/completions", {"prompt": "hi"}))
    for job_id in ids:
        body = (await http.get(f"/v1/jobs/{job_id}")).json()
        validate(document, "JobBody", body)
    assert body["state"] == "queued"
    listed = (await http.get("/v1/jobs")).json()
    validate(document, "JobList", listed)
    assert [job["state"] for job in listed["data"]] == ["queued", "done", "done"]
    for deleted in (False, True):
        reply = (await http.delete(f"/v1/jobs/{ids[2]}")).json()
        validate(document, "DeletedJob", reply)
        assert reply["deleted"] is deleted


async def started(http: httpx.AsyncClient, url: str, fields: dict[str, Any]) -> str:
    """Start a job in the background and return its id."""
    reply = await http.post(url, json={"model": "extract", "background": True, **fields})
    job_id: str = reply.json()["id"]
    return job_id


def validate(document: Any, schema: str, body: Any) -> None:
    """Check that `body` has every field of the schema in the document, with its type."""
    reference = {"$ref": f"#/components/schemas/{schema}", "components": document["components"]}
    jsonschema.validate(body, reference, jsonschema.Draft202012Validator)
    assert body.keys() <= document["components"]["schemas"][schema]["properties"].keys()


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
async def test_the_headers_and_statuses_of_requests_are_described(
    http: httpx.AsyncClient, path: str
) -> None:
    operation = (await http.get("/openapi.json")).json()["paths"][path]["post"]
    headers = {each["name"] for each in operation["parameters"] if each["in"] == "header"}
    assert headers == {
        *("Idempotency-Key", "X-Lorikeet-On-Disconnect", "X-Lorikeet-Deadline-S", "Prefer")
    }
    responses = operation["responses"]
    assert {"200", "202", "400", "409", "429"} <= responses.keys()
    assert {"Location", "X-Lorikeet-Job", "Idempotent-Replayed"} <= responses["202"][
        "headers"
    ].keys()
    assert "Retry-After" in responses["429"]["headers"]
    assert {"X-Lorikeet-Warning", "Preference-Applied"} <= responses["200"]["headers"].keys()


async def test_the_schemas_of_requests_allow_other_fields(http: httpx.AsyncClient) -> None:
    schemas = (await http.get("/openapi.json")).json()["components"]["schemas"]
    for name in ("ChatCompletionRequest", "CompletionRequest", "UserMessage", "StreamOptions"):
        assert schemas[name]["additionalProperties"] is True
    messages = schemas["ChatCompletionRequest"]["properties"]["messages"]
    assert (messages["type"], messages["minItems"]) == ("array", 1)
    body = {
        "model": "extract",
        "messages": [{"role": role, "content": "x"} for role in ("user", "king")],
    }
    validate({"components": {"schemas": schemas}}, "ChatCompletionRequest", body)


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
