"""POST /tokenize, POST /detokenize and GET /tokenizer_info."""

import asyncio
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from api_support import ADAPTER, error_of

from api.answers import tokenization
from shared.errors import ErrorCode, JobError
from shared.protocol.ids import CallId
from shared.protocol.tokenization import (
    Call,
    Decode,
    Describe,
    EncodeChat,
    EncodeText,
    Reply,
    decode_call,
)
from shared.store.jobs.tokenizations import Tokenizations
from shared.store.redis.connection import Redis
from shared.store.redis.keys import Keys

MESSAGES = [{"role": "user", "content": "hi"}]


@dataclass
class Tokenizer:
    """A client, and a worker that answers its calls."""

    http: httpx.AsyncClient
    calls: Tokenizations

    async def take(self) -> tuple[CallId, Call]:
        """Wait for the next call and take it."""
        async with asyncio.timeout(10):
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


async def test_tokens_become_text(tokenizer: Tokenizer) -> None:
    body = {"model": "extract", "tokens": [5, 6]}
    call, answer = await tokenizer.exchange(Reply(text="hello"), "/detokenize", **body)
    assert call == Decode(ids=(5, 6))
    assert answer.json() == {"prompt": "hello", "content": "hello"}


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
