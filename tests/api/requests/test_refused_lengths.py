"""Prompts that can't fit into the context are refused before a worker tokenizes them."""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import httpx
import pytest
from api_support import BASE, ScriptedWorker, client_of

from api.app import create_app
from shared.protocol.results import Choice, FinishReason
from shared.settings import ApiSettings
from shared.store.queue import Queue
from shared.store.registry import Registry

CHAT = "/v1/chat/completions"
TEXT = "/v1/completions"
LARGE = "lorem ipsum " * 325_000
"""3.9 MB."""
FITTING = "lorem ipsum " * 6_000
"""72 kB, of the 80 kB that the context's tokens can stand for."""


@pytest.fixture
async def direct(settings: ApiSettings, registry: Registry) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a pool whose tokens stand for up to 80 bytes."""
    await registry.set_base(replace(BASE, max_token_bytes=80))
    async with client_of(create_app(settings.model_copy(update={"max_body_bytes": 2**22}))) as http:
        yield http


def user(content: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": content}]}


@pytest.mark.parametrize(
    ("url", "fields", "param"),
    [
        (CHAT, user(LARGE), "messages"),
        (CHAT, user("naïve " + LARGE), "messages"),
        (CHAT, {**user(LARGE), "stream": True}, "messages"),
        (TEXT, {"prompt": LARGE}, "prompt"),
        (TEXT, {"prompt": ["short", LARGE]}, "prompt"),
        (TEXT, {"prompt": [1] * 1000}, "prompt"),
    ],
)
async def test_a_prompt_that_cannot_fit_is_refused_at_once_and_never_queued(
    direct: httpx.AsyncClient, queue: Queue, url: str, fields: dict[str, Any], param: str
) -> None:
    begun = time.monotonic()
    response = await direct.post(url, json={"model": BASE.name, **fields})
    assert time.monotonic() - begun < 5
    error = response.json()["error"]
    assert (response.status_code, error["code"]) == (400, "context_length_exceeded")
    assert error["param"] == param
    assert error["message"].startswith("This model's maximum context length is 1000 tokens.")
    assert (await queue.counts()).waiting == 0


@pytest.mark.parametrize(
    ("url", "fields"), [(CHAT, user(FITTING)), (TEXT, {"prompt": [FITTING, FITTING]})]
)
async def test_a_prompt_that_may_fit_is_left_to_the_worker(
    direct: httpx.AsyncClient, worker: ScriptedWorker, url: str, fields: dict[str, Any]
) -> None:
    request = asyncio.create_task(
        direct.post(url, json={"model": BASE.name, "max_tokens": 2, **fields})
    )
    job = await worker.take()
    for choice in range(job.job.num_choices):
        await worker.tokens(job, 0, (1,), "hello", FinishReason.STOP, choice=choice)
    await worker.finish(
        job, *[Choice(text="hello", finish=FinishReason.STOP, ids=(1,))] * job.job.num_choices
    )
    assert (await request).status_code == 200
