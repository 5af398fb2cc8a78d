"""POST /v1/chat/completions, /v1/completions, /v1/embeddings and the routes of the tokenizer."""

import asyncio
import base64
from array import array
from dataclasses import dataclass
from typing import Any

import httpx
import openai
import pytest
from api_support import ADAPTER, USAGE_BODY, ScriptedWorker, error_of
from chat_stream import MESSAGES, admitted_stream
from raw_client import BODY, CHAT, STREAM, with_settings
from sse_events import sse_events

from api.answers import tokenization
from api.requests.embeddings import RESERVED_TOKENS
from shared.errors import ErrorCode, JobError
from shared.protocol.embeddings import EmbeddingParams, Pooling
from shared.protocol.ids import CallId
from shared.protocol.jobs import MAX_EMBEDDED, ClaimedJob, Endpoint
from shared.protocol.results import Choice, FinishReason
from shared.protocol.tokenization import (
    Call,
    Decode,
    Describe,
    EncodeChat,
    EncodeText,
    Reply,
    decode_call,
)
from shared.store.jobs.queue import Queue
from shared.store.jobs.tokenizations import Tokenizations
from shared.store.redis.connection import Redis
from shared.store.redis.keys import Keys


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
                "stop_reason": None,
                "matched_stop": None,
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
        "choices": [
            {
                "index": 0,
                "text": " upon",
                "logprobs": None,
                "finish_reason": "stop",
                "stop_reason": None,
                "matched_stop": None,
            }
        ],
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


@dataclass
class Tokenizer:
    """A client, and a worker that answers its calls."""

    http: httpx.AsyncClient
    calls: Tokenizations

    async def take(self) -> tuple[CallId, Call]:
        """Wait for the next call and take it."""
        async with asyncio.timeout(60):
            while (raw := await self.calls.take(timeout_s=1)) is None:
                pass
        return decode_call(raw)

    async def exchange(
        self, reply: Reply, path: str, method: str = "POST", **body: Any
    ) -> tuple[Call, httpx.Response]:
        """Send a request, answer its call with `reply`, and return the call and the response."""
        request = asyncio.create_task(self.http.request(method, path, json=body or None))
        call_id, call = await self.take()
        await self.calls.answer(call_id, reply)
        return call, await request


@pytest.fixture
def tokenizer(http: httpx.AsyncClient, redis: Redis, keys: Keys) -> Tokenizer:
    return Tokenizer(http, Tokenizations(redis, keys))


async def test_a_text_is_tokenized_by_a_worker(tokenizer: Tokenizer) -> None:
    reply = Reply(ids=(5, 6), names=("he", "llo"))
    body = {"model": "extract", "prompt": "hello", "return_token_strs": True}
    call, answer = await tokenizer.exchange(reply, "/tokenize", **body)
    assert call == EncodeText(text="hello", with_names=True)
    assert answer.json() == {
        "count": 2,
        "max_model_len": 1000,
        "tokens": [5, 6],
        "token_strs": ["he", "llo"],
    }


async def test_special_tokens_are_added_as_in_vllm_and_llama_cpp(tokenizer: Tokenizer) -> None:
    cases: list[tuple[dict[str, Any], bool]] = [
        ({"prompt": "x"}, True),
        ({"prompt": "x", "add_special_tokens": False}, False),
        ({"content": "x"}, False),
        ({"content": "x", "add_special": True}, True),
    ]
    for fields, adds_special in cases:
        call, _ = await tokenizer.exchange(Reply(), "/tokenize", **fields)
        assert call == EncodeText(text="x", add_special_tokens=adds_special)


async def test_a_chat_reaches_the_worker_as_a_job_of_the_adapter(tokenizer: Tokenizer) -> None:
    body = {"model": "extract", "messages": MESSAGES, "chat_template_kwargs": {"a": 1}}
    call, answer = await tokenizer.exchange(Reply(ids=(1,)), "/tokenize", **body)
    assert isinstance(call, EncodeChat)
    assert call.job.version == ADAPTER.version
    assert call.job.messages == tuple(MESSAGES)
    assert call.job.template_kwargs == {"a": 1}
    assert answer.json()["count"] == 1


@pytest.mark.parametrize("path", ["/detokenize", "/v1/detokenize"])
async def test_tokens_become_text(tokenizer: Tokenizer, path: str) -> None:
    body = {"model": "extract", "tokens": [5, 6]}
    call, answer = await tokenizer.exchange(Reply(text="hello"), path, **body)
    assert call == Decode(ids=(5, 6))
    assert answer.json() == {"prompt": "hello", "content": "hello", "text": "hello"}


async def test_the_tokenizer_is_described(tokenizer: Tokenizer) -> None:
    reply = Reply(description={"eos_token": "</s>"})
    call, answer = await tokenizer.exchange(reply, "/tokenizer_info", "GET")
    assert (call, answer.json()) == (Describe(), {"eos_token": "</s>"})


async def test_a_call_is_sent_again_if_its_worker_dies(
    http: httpx.AsyncClient, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokenization, "ATTEMPT_S", 0.3)
    request = asyncio.create_task(http.post("/tokenize", json={"prompt": "x"}))
    first, _ = await tokenizer.take()
    again, _ = await tokenizer.take()
    await tokenizer.calls.answer(again, Reply(ids=(7,)))
    assert (await request).json()["tokens"] == [7]
    assert first == again


async def test_without_a_live_worker_a_call_waits_until_one_starts(
    http: httpx.AsyncClient,
    redis: Redis,
    keys: Keys,
    queue: Queue,
    tokenizer: Tokenizer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tokenization, "ATTEMPT_S", 0.1)
    request = asyncio.create_task(http.post("/tokenize", json={"prompt": "x"}))
    _, waiting = await asyncio.wait([request], timeout=1)
    assert waiting
    assert await redis.exists(keys.calls) == 0
    monkeypatch.setattr(tokenization, "ATTEMPT_S", 30)
    await ScriptedWorker.start(queue)
    call_id, _ = await tokenizer.take()
    await tokenizer.calls.answer(call_id, Reply(ids=(7,)))
    assert (await request).json()["tokens"] == [7]


async def test_a_call_that_live_workers_do_not_take_is_a_503(
    http: httpx.AsyncClient, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokenization, "ATTEMPT_S", 0.1)
    await ScriptedWorker.start(queue)
    answer = await http.post("/tokenize", json={"prompt": "x"})
    assert error_of(answer) == (503, "service_unavailable", None)


@with_settings(deadline_s=0.5)
async def test_without_a_live_worker_the_answer_is_503_and_nothing_is_left(
    http: httpx.AsyncClient, redis: Redis, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokenization, "ATTEMPT_S", 0.1)
    answer = await http.post("/tokenize", json={"prompt": "x"})
    assert error_of(answer) == (503, "service_unavailable", None)
    assert await redis.exists(keys.calls) == 0


async def test_an_error_of_the_worker_is_the_clients(tokenizer: Tokenizer) -> None:
    error = JobError(code=ErrorCode.INVALID_VALUE, message="no", param="tokens[0]")
    _, answer = await tokenizer.exchange(Reply(error=error), "/detokenize", tokens=[9])
    assert error_of(answer) == (400, "invalid_value", "tokens[0]")


async def test_unknown_fields_are_listed_or_refused(
    http: httpx.AsyncClient, tokenizer: Tokenizer
) -> None:
    body = {"prompt": "x", "colour": "red"}
    _, answer = await tokenizer.exchange(Reply(), "/tokenize", **body)
    assert answer.headers["X-Lorikeet-Warning"] == "not used: colour"
    strict = await http.post("/tokenize", json=body, headers={"Prefer": "handling=strict"})
    assert error_of(strict) == (400, "unknown_parameter", "colour")


async def test_invalid_requests_are_refused_by_name(http: httpx.AsyncClient) -> None:
    chat = {"messages": MESSAGES, "add_special_tokens": True}
    cases: list[tuple[str, dict[str, Any], int, str]] = [
        ("/tokenize", {}, 400, "prompt"),
        ("/tokenize", {"prompt": "x", "content": "x"}, 400, "prompt"),
        ("/tokenize", {"prompt": 3}, 400, "prompt"),
        ("/tokenize", chat, 400, "add_special_tokens"),
        ("/tokenize", {"messages": []}, 400, "messages"),
        ("/tokenize", {"prompt": "x", "with_pieces": True}, 400, "with_pieces"),
        ("/tokenize", {"prompt": "x", "model": "nobody"}, 404, "model"),
        ("/detokenize", {}, 400, "tokens"),
        ("/detokenize", {"tokens": [-1]}, 400, "tokens[0]"),
    ]
    for path, body, status, param in cases:
        answer = await http.post(path, json=body)
        assert (answer.status_code, answer.json()["error"]["param"]) == (status, param), body
