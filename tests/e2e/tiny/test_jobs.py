"""Requests as jobs: they are looked up, and run in the background."""

from typing import Any

import httpx
import pytest
from queue_support import eventually
from served_tiny import BASE

BODIES: dict[str, dict[str, Any]] = {
    "completions": {"prompt": "x", "max_tokens": 8, "temperature": 0, "logprobs": 1},
    "chat/completions": {
        "messages": [{"role": "user", "content": "hi"}],
        "max_tokens": 8,
        "temperature": 0,
        "logprobs": True,
    },
    "embeddings": {"input": ["one", "a second, longer one"], "encoding_format": "base64"},
}


async def test_a_finished_job_is_looked_up_by_its_header_or_by_the_answers_id(
    http: httpx.AsyncClient,
) -> None:
    reply = await http.post("/v1/completions", json={"model": BASE, **BODIES["completions"]})
    answer = reply.json()
    by_header = (await http.get(f"/v1/jobs/{reply.headers['X-Lorikeet-Job']}")).json()
    by_id = (await http.get(f"/v1/jobs/{answer['id']}")).json()
    assert by_header == by_id
    assert by_id["state"] == "done"
    assert by_id["model"] == BASE
    assert by_id["tries"] == 1
    assert by_id["usage"] == answer["usage"]
    assert by_id["choices"][0]["text"] == answer["choices"][0]["text"]


@pytest.mark.parametrize("endpoint", BODIES)
async def test_a_request_in_the_background_has_the_answer_of_one_in_the_foreground(
    http: httpx.AsyncClient, endpoint: str
) -> None:
    body = {"model": BASE, **BODIES[endpoint]}
    expected = (await http.post(f"/v1/{endpoint}", json=body)).json()
    reply = await http.post(f"/v1/{endpoint}", json={**body, "background": True})
    assert reply.status_code == 202
    answer = await eventually(lambda: finished(http, reply.headers["location"]))
    for name in {"choices", "data", "model", "system_fingerprint"} & expected.keys():
        assert answer[name] == expected[name]
    assert answer["usage"]["total_tokens"] == expected["usage"]["total_tokens"]
    stream = await http.get(f"{reply.headers['location']}/stream")
    assert stream.status_code == (400 if endpoint == "embeddings" else 200)
    assert ("aren't streamed" in stream.text) == (endpoint == "embeddings")


async def finished(http: httpx.AsyncClient, path: str) -> Any:
    body = (await http.get(path)).json()
    return body if body["state"] == "done" else None
