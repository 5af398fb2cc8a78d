"""A chat stream that OpenAI's client reads while a test plays the worker."""

import asyncio

import openai
from api_support import ScriptedWorker
from openai.types.chat import ChatCompletionChunk, ChatCompletionMessageParam

from shared.protocol.jobs import ClaimedJob

MESSAGES: list[ChatCompletionMessageParam] = [{"role": "user", "content": "hi"}]


async def admitted_stream(
    client: openai.AsyncOpenAI, worker: ScriptedWorker, *, n: int = 1
) -> tuple[openai.AsyncStream[ChatCompletionChunk], ClaimedJob]:
    """Request a stream of `n` choices and admit its job; return both."""
    request = asyncio.create_task(
        client.chat.completions.create(model="extract", messages=MESSAGES, stream=True, n=n)
    )
    job = await admitted(worker)
    return await request, job


async def admitted(worker: ScriptedWorker) -> ClaimedJob:
    job = await worker.take()
    await worker.admit(job)
    return job
