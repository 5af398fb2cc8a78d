"""POST /v1/chat/completions, /v1/completions and /v1/embeddings."""

import base64
from array import array
from typing import Any

import httpx
import openai
import pytest
from api_support import USAGE_BODY, ScriptedWorker, error_of
from chat_stream import MESSAGES, admitted_stream
from raw_client import BODY, CHAT, STREAM
from sse_events import sse_events

from api.requests.embeddings import RESERVED_TOKENS
from shared.protocol.embeddings import EmbeddingParams, Pooling
from shared.protocol.jobs import MAX_EMBEDDED, ClaimedJob, Endpoint
from shared.protocol.results import Choice, FinishReason


async def test_an_answer_has_the_fields_that_clients_of_lmdeploy_expect(
    http: httpx.AsyncClient, worker: ScriptedWorker
) -> None:
    response, job = await worker.serve(http.post(CHAT, json=BODY))
    assert response.status_code == 200
    assert response.headers["x-lorikeet-job"] == job.job.id
    assert response.json() == {
        "id": f"chatcmpl-{job.job.id}",
        "object": "chat.completion",
        "created": job.job.created_s,
        "model": "extract",
        "system_fingerprint": "fp_000000000000_111111111111",
        "weight_version": job.job.version,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "hello", "tool_calls": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": USAGE_BODY,
    }


async def test_a_stream_starts_with_the_role_and_ends_with_the_finish_reason(
    http: httpx.AsyncClient, worker: ScriptedWorker
) -> None:
    response, _ = await worker.serve(http.post(CHAT, json=STREAM))
    *events, done = sse_events(response.text)
    assert done.data == "[DONE]"
    assert [event.json["choices"][0]["delta"] for event in events] == [
        {"role": "assistant", "content": ""},
        {"content": "he"},
        {"content": "llo"},
        {},
    ]
    assert events[-1].json["choices"][0]["finish_reason"] == "stop"
    assert all("usage" not in event.json for event in events)
    assert response.headers["content-type"].startswith("text/event-stream")


async def test_a_token_reaches_the_client_when_it_is_published(
    client: openai.AsyncOpenAI, worker: ScriptedWorker
) -> None:
    stream, job = await admitted_stream(client, worker)
    assert (await anext(stream)).choices[0].delta.role == "assistant"
    await worker.tokens(job, 0, (1,), "one")
    assert (await anext(stream)).choices[0].delta.content == "one"
    await worker.tokens(job, 1, (2,), " two")
    assert (await anext(stream)).choices[0].delta.content == " two"
    await worker.tokens(job, 2, (3,), "", FinishReason.LENGTH)
    await worker.finish(job)
    assert [chunk.choices[0].finish_reason async for chunk in stream] == ["length"]


async def test_choices_are_in_order_in_a_complete_answer(
    client: openai.AsyncOpenAI, worker: ScriptedWorker
) -> None:
    request, job = await worker.sent(
        client.chat.completions.create(model="extract", messages=MESSAGES, n=2)
    )
    await worker.tokens(job, 0, (1,), "a", FinishReason.STOP, choice=1)
    await worker.tokens(job, 0, (2,), "b", FinishReason.LENGTH, choice=0)
    await worker.finish(job)
    choices = (await request).choices
    assert [(c.index, c.message.content, c.finish_reason) for c in choices] == [
        (0, "b", "length"),
        (1, "a", "stop"),
    ]


async def test_a_completion_has_openais_fields(
    http: httpx.AsyncClient, worker: ScriptedWorker
) -> None:
    sent = http.post("/v1/completions", json={"model": "extract", "prompt": "once"})
    reply, job = await worker.serve(sent, " upon")
    assert (job.job.prompts, job.job.messages) == (("once",), None)
    assert reply.json() == {
        "id": f"cmpl-{job.job.id}",
        "object": "text_completion",
        "created": job.job.created_s,
        "model": "extract",
        "system_fingerprint": "fp_000000000000_111111111111",
        "weight_version": job.job.version,
        "choices": [{"index": 0, "text": " upon", "logprobs": None, "finish_reason": "stop"}],
        "usage": USAGE_BODY,
    }


async def test_openais_client_streams_a_completion(
    client: openai.AsyncOpenAI, worker: ScriptedWorker
) -> None:
    sent = client.completions.create(
        model="extract", prompt="once", stream=True, stream_options={"include_usage": True}
    )
    stream, _ = await worker.serve(sent)
    *chunks, last = [chunk async for chunk in stream]
    assert [chunk.choices[0].text for chunk in chunks] == ["he", "llo"]
    assert [chunk.choices[0].finish_reason for chunk in chunks] == [None, "stop"]
    assert last.usage is not None
    assert last.usage.total_tokens == 5


EMBEDDINGS = "/v1/embeddings"
VECTORS = [[0.5, -2.0], [1.5, 0.25]]


def encoded(vector: list[float]) -> str:
    return base64.b64encode(array("f", vector).tobytes()).decode()


def choices(vectors: list[list[float]]) -> list[Choice]:
    return [Choice(text=encoded(v), finish=FinishReason.STOP, ids=()) for v in vectors]


async def embedded(
    http: httpx.AsyncClient, worker: ScriptedWorker, vectors: list[list[float]], **fields: Any
) -> tuple[Any, ClaimedJob]:
    """Send a request, answer its job with `vectors`, and return the answer and the job."""
    request, job = await worker.sent(http.post(EMBEDDINGS, json={"model": "extract", **fields}))
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
        answer = await http.post(EMBEDDINGS, json={"model": "extract", "input": "x", **fields})
        assert error_of(answer) == (400, code, param), fields
