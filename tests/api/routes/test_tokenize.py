"""POST /tokenize, POST /detokenize and GET /tokenizer_info."""

import asyncio
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


@pytest.fixture
def calls(redis: Redis, keys: Keys) -> Tokenizations:
    return Tokenizations(redis, keys)


async def taken(calls: Tokenizations) -> tuple[CallId, Call]:
    """Wait for the next call and take it, as a worker does."""
    async with asyncio.timeout(10):
        while (raw := await calls.take(timeout_s=1)) is None:
            pass
    return decode_call(raw)


async def exchange(
    http: httpx.AsyncClient, calls: Tokenizations, path: str, body: dict[str, Any], reply: Reply
) -> tuple[Call, httpx.Response]:
    """Send a request, answer its call with `reply`, and return the call and the response."""
    request = asyncio.create_task(http.post(path, json=body))
    call_id, call = await taken(calls)
    await calls.answer(call_id, reply)
    return call, await request


async def test_a_text_is_tokenized_by_a_worker(
    http: httpx.AsyncClient, calls: Tokenizations
) -> None:
    body = {"model": "extract", "prompt": "hello", "return_token_strs": True}
    reply = Reply(ids=(5, 6), names=("he", "llo"))
    call, answer = await exchange(http, calls, "/tokenize", body, reply)
    assert call == EncodeText(text="hello", with_names=True)
    assert answer.json() == {
        "count": 2,
        "max_model_len": 1000,
        "tokens": [5, 6],
        "token_strs": ["he", "llo"],
    }


async def test_special_tokens_are_added_as_in_vllm_and_llama_cpp(
    http: httpx.AsyncClient, calls: Tokenizations
) -> None:
    cases: list[tuple[dict[str, Any], bool]] = [
        ({"prompt": "x"}, True),
        ({"prompt": "x", "add_special_tokens": False}, False),
        ({"content": "x"}, False),
        ({"content": "x", "add_special": True}, True),
    ]
    for fields, adds_special in cases:
        call, _ = await exchange(http, calls, "/tokenize", fields, Reply())
        assert call == EncodeText(text="x", add_special_tokens=adds_special)


async def test_a_chat_reaches_the_worker_as_a_job_of_the_adapter(
    http: httpx.AsyncClient, calls: Tokenizations
) -> None:
    body = {"model": "extract", "messages": MESSAGES, "chat_template_kwargs": {"a": 1}}
    call, answer = await exchange(http, calls, "/tokenize", body, Reply(ids=(1,)))
    assert isinstance(call, EncodeChat)
    assert call.job.version == ADAPTER.version
    assert call.job.messages == tuple(MESSAGES)
    assert call.job.template_kwargs == {"a": 1}
    assert answer.json()["count"] == 1


async def test_tokens_become_text(http: httpx.AsyncClient, calls: Tokenizations) -> None:
    call, answer = await exchange(
        http, calls, "/detokenize", {"model": "extract", "tokens": [5, 6]}, Reply(text="hello")
    )
    assert call == Decode(ids=(5, 6))
    assert answer.json() == {"prompt": "hello", "content": "hello"}


async def test_the_tokenizer_is_described(http: httpx.AsyncClient, calls: Tokenizations) -> None:
    request = asyncio.create_task(http.get("/tokenizer_info"))
    call_id, call = await taken(calls)
    assert call == Describe()
    await calls.answer(call_id, Reply(description={"eos_token": "</s>"}))
    assert (await request).json() == {"eos_token": "</s>"}


async def test_a_call_is_sent_again_if_its_worker_dies(
    http: httpx.AsyncClient, calls: Tokenizations, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokenization, "ATTEMPT_S", 0.3)
    request = asyncio.create_task(http.post("/tokenize", json={"prompt": "x"}))
    first, _ = await taken(calls)
    again, _ = await taken(calls)
    await calls.answer(again, Reply(ids=(7,)))
    assert (await request).json()["tokens"] == [7]
    assert first == again


async def test_without_a_live_worker_the_answer_is_503_and_nothing_is_left(
    http: httpx.AsyncClient, redis: Redis, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokenization, "ATTEMPT_S", 0.1)
    answer = await http.post("/tokenize", json={"prompt": "x"})
    assert error_of(answer) == (503, "service_unavailable", None)
    assert await redis.exists(keys.calls) == 0


async def test_an_error_of_the_worker_is_the_clients(
    http: httpx.AsyncClient, calls: Tokenizations
) -> None:
    error = JobError(code=ErrorCode.INVALID_VALUE, message="no", param="tokens[0]")
    _, answer = await exchange(http, calls, "/detokenize", {"tokens": [9]}, Reply(error=error))
    assert error_of(answer) == (400, "invalid_value", "tokens[0]")


async def test_unknown_fields_are_listed_or_refused(
    http: httpx.AsyncClient, calls: Tokenizations
) -> None:
    body = {"prompt": "x", "colour": "red"}
    _, answer = await exchange(http, calls, "/tokenize", body, Reply())
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
