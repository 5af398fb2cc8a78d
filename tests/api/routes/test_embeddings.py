"""POST /v1/embeddings."""

import base64
from array import array
from typing import Any

import httpx
import openai
import pytest
from api_support import ScriptedWorker, error_of

from api.requests.embeddings import RESERVED_TOKENS
from shared.protocol.embeddings import EmbeddingParams, Pooling
from shared.protocol.jobs import MAX_EMBEDDED, ClaimedJob, Endpoint
from shared.protocol.results import Choice, FinishReason

URL = "/v1/embeddings"
VECTORS = [[0.5, -2.0], [1.5, 0.25]]


def encoded(vector: list[float]) -> str:
    return base64.b64encode(array("f", vector).tobytes()).decode()


def choices(vectors: list[list[float]]) -> list[Choice]:
    return [Choice(text=encoded(v), finish=FinishReason.STOP, ids=()) for v in vectors]


async def embedded(
    http: httpx.AsyncClient, worker: ScriptedWorker, vectors: list[list[float]], **fields: Any
) -> tuple[Any, ClaimedJob]:
    """Send a request, answer its job with `vectors`, and return the answer and the job."""
    request, job = await worker.sent(http.post(URL, json={"model": "extract", **fields}))
    await worker.admit(job)
    await worker.finish(job, *choices(vectors))
    return (await request).json(), job


async def test_embeddings_have_openais_fields(
    http: httpx.AsyncClient, worker: ScriptedWorker
) -> None:
    fields: dict[str, Any] = {"input": ["a", "b"], "pooling": "mean", "normalize": False}
    answer, job = await embedded(http, worker, VECTORS, **fields)
    assert (job.job.endpoint, job.job.prompts) == (Endpoint.EMBEDDINGS, ("a", "b"))
    assert job.job.embedding == EmbeddingParams(pooling=Pooling.MEAN, normalize=False)
    assert answer["id"] == f"embd-{job.job.id}"
    assert (answer["object"], answer["model"]) == ("list", "extract")
    assert answer["data"] == [
        {"object": "embedding", "index": index, "embedding": vector}
        for index, vector in enumerate(VECTORS)
    ]
    assert answer["usage"]["prompt_tokens"] == 3
    found = (await http.get(f"/v1/jobs/{answer['id']}")).json()
    assert (found["data"], found["choices"]) == (answer["data"], None)


@pytest.mark.parametrize("encoding", ["float", "base64"])
async def test_openais_client_reads_both_encodings(
    client: openai.AsyncOpenAI, worker: ScriptedWorker, encoding: Any
) -> None:
    request, job = await worker.sent(
        client.embeddings.create(model="extract", input=[5, 6], encoding_format=encoding)
    )
    assert (job.job.prompts, job.job.embedding) == (((5, 6),), EmbeddingParams())
    await worker.finish(job, *choices(VECTORS[:1]))
    expected: Any = VECTORS[0] if encoding == "float" else encoded(VECTORS[0])
    assert (await request).data[0].embedding == expected


async def test_a_job_with_many_inputs_reserves_room_for_a_few(
    http: httpx.AsyncClient, worker: ScriptedWorker
) -> None:
    answer, job = await embedded(http, worker, VECTORS[:1] * 45, input=[[5] * 100] * 45)
    assert (job.job.num_choices, job.job.num_sequences) == (45, MAX_EMBEDDED)
    assert job.job.cost == RESERVED_TOKENS
    assert len(answer["data"]) == 45


async def test_invalid_fields_are_refused_by_name(http: httpx.AsyncClient) -> None:
    cases: list[tuple[dict[str, Any], str, str]] = [
        ({"input": ""}, "invalid_value", "input"),
        ({"input": []}, "invalid_value", "input"),
        ({"input": [[]]}, "invalid_value", "input"),
        ({"input": ["x"] * 2049}, "invalid_value", "input"),
        ({"input": [5] * 1001}, "context_length_exceeded", "input"),
        ({"dimensions": 1}, "invalid_value", "dimensions"),
        ({"truncate_prompt_tokens": 0}, "invalid_value", "truncate_prompt_tokens"),
        ({"truncation_side": "right"}, "unsupported_parameter", "truncation_side"),
        ({"encoding_format": "hex"}, "invalid_value", "encoding_format"),
        ({"pooling": "max"}, "invalid_value", "pooling"),
        ({"stream": True}, "invalid_value", "stream"),
        ({"messages": [{"role": "user", "content": "hi"}]}, "unsupported_parameter", "messages"),
    ]
    for fields, code, param in cases:
        answer = await http.post(URL, json={"model": "extract", "input": "x", **fields})
        assert error_of(answer) == (400, code, param), fields
