"""Ollama's client for Python, while a test plays the worker: waiting, tools, images and errors."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import ollama
import pytest
from api_support import BASE, RunningApp, ScriptedWorker
from image_files import image_file
from key_support import new_key
from raw_client import with_settings
from weather_tool import ANSWER

from api.answers import delivery
from shared.errors import ErrorCode, JobError
from shared.store.access.key_store import KeyStore
from shared.store.adapters.registry import Registry

HI = [{"role": "user", "content": "hi"}]


@pytest.fixture
async def programme(server: RunningApp) -> AsyncIterator[ollama.AsyncClient]:
    async with ollama.AsyncClient(host=server.url, timeout=60) as client:
        yield client


async def read(client: ollama.AsyncClient, **request: Any) -> list[ollama.ChatResponse]:
    stream = await client.chat("extract", HI, stream=True, **request)
    return [part async for part in stream]


async def test_a_stream_that_waits_longer_than_the_client_is_not_broken(
    server: RunningApp, worker: ScriptedWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "KEEP_ALIVE_S", 0.1)
    async with ollama.AsyncClient(host=server.url, timeout=2) as impatient:
        reading = asyncio.create_task(read(impatient))
        job = await worker.take()
        await asyncio.sleep(4)  # twice the client's limit for silence
        await worker.tokens(job, 0, (1,), "he")
        await asyncio.sleep(0.3)
        await worker.answer(job)
        parts = await reading
    assert "".join(part.message.content or "" for part in parts) == "hello"
    assert parts[-1].done


def weather(city: str) -> str:
    """Return the weather.

    Args:
        city: a city
    """
    return city


@pytest.mark.parametrize("stream", [True, False])
async def test_tools_are_python_functions(
    programme: ollama.AsyncClient, worker: ScriptedWorker, stream: bool
) -> None:
    async def ask() -> list[ollama.ChatResponse]:
        if stream:
            return await read(programme, tools=[weather])
        return [await programme.chat("extract", HI, tools=[weather])]

    parts, job = await worker.serve(ask(), ANSWER)
    assert job.job.tools is not None
    (tool,) = job.job.tools.tools
    assert tool["function"]["parameters"]["properties"]["city"]["type"] == "string"
    calls = [call for part in parts for call in part.message.tool_calls or ()]
    assert [call.function.arguments for call in calls] == [{"city": "Osaka"}, {"city": "Oslo"}]
    results = [{"role": "tool", "content": "sunny", "tool_name": c.function.name} for c in calls]
    answer = next(part.message for part in parts if part.message.tool_calls)
    history = [*HI, answer, *results]
    _, job = await worker.serve(programme.chat("extract", history, tools=[weather]))
    _, called, *answered = job.job.messages or ()
    assert called["tool_calls"][0]["function"]["arguments"] == {"city": "Osaka"}
    assert [message["name"] for message in answered] == ["weather"] * len(results)


async def test_images_are_bytes(
    programme: ollama.AsyncClient, worker: ScriptedWorker, registry: Registry
) -> None:
    await registry.set_base(replace(BASE, takes_images=True))
    shown = [{"role": "user", "content": "What?", "images": [image_file()]}]
    _, job = await worker.serve(programme.chat("extract", shown))
    assert len(job.job.images) == 1
    _, job = await worker.serve(programme.generate("extract", "What?", images=[image_file()]))
    assert len(job.job.images) == 1


async def test_an_error_in_a_stream_is_raised(
    programme: ollama.AsyncClient, worker: ScriptedWorker
) -> None:
    reading = asyncio.create_task(read(programme))
    job = await worker.begin("one")
    await worker.fail(job, JobError(code=ErrorCode.INTERNAL, message="broken"))
    with pytest.raises(ollama.ResponseError, match="broken"):
        await reading


@with_settings(require_keys=True)
async def test_a_key_is_a_bearer_token(
    server: RunningApp, worker: ScriptedWorker, store: KeyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret, _ = await new_key(store)
    monkeypatch.setenv("OLLAMA_API_KEY", secret)
    async with ollama.AsyncClient(host=server.url) as client:
        assert len((await client.list()).models) == 2
        reply, _ = await worker.serve(client.chat("extract", HI))
    assert reply.message.content == "hello"
