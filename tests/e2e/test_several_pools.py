"""Two pools of processes behind one `lorikeet api`, which restarts while both stream."""

import asyncio
import os
import signal
import subprocess
from collections.abc import Callable, Iterator

import openai
import pytest
from api_processes import is_healthy
from child_processes import child_processes
from queue_support import eventually
from servers import LORIKEET

from ops.local.ports import free_port
from shared.protocol.ids import AdapterVersion
from worker.engine_simulated.adapters import source_digest, version_of
from worker.engine_simulated.checker import check
from worker.engine_simulated.tokens import prompt_ids

pytestmark = pytest.mark.slow
BASES = ("first", "second")
ADAPTER = "sql"
NUM_TOKENS = 40
Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start() -> Iterator[Start]:
    with child_processes() as start:
        yield start


async def start_api(start: Start, redis_url: str, pool: str, port: int) -> "subprocess.Popen[str]":
    words = ["--pool", f"{pool}-first", "--further-pools", f"{pool}-second", "--port", str(port)]
    process = start([str(LORIKEET), "api", "--redis-url", redis_url, *words], env=dict(os.environ))

    async def answers() -> bool:
        assert process.poll() is None
        return is_healthy(port)

    await eventually(answers, within_s=60)
    return process


def client_of(port: int) -> openai.AsyncOpenAI:
    url = f"http://127.0.0.1:{port}/v1"
    return openai.AsyncOpenAI(api_key="none", base_url=url, max_retries=5)


def version_for(model: str) -> AdapterVersion:
    name = model.rpartition(":")[2]
    return version_of(name, source_digest(name))


async def answer(client: openai.AsyncOpenAI, model: str, seed: int) -> None:
    """Check that the model writes a whole answer of its own."""
    prompt = f"{model} {seed}"
    reply = await client.completions.create(
        model=model,
        prompt=prompt,
        seed=seed,
        max_tokens=NUM_TOKENS,
        extra_body={"ignore_eos": True},
    )
    verdict = check(
        reply.choices[0].text,
        version=version_for(model),
        prompt=prompt_ids(prompt),
        seed=seed,
        num_tokens=NUM_TOKENS,
    )
    assert verdict.violation is None
    assert reply.model == model


async def text_of_stream(
    client: openai.AsyncOpenAI, model: str, after_two: Callable[[], None]
) -> str:
    """Return the text of a stream. `after_two` is called after its second chunk."""
    chunks = await client.completions.create(
        model=model,
        prompt="x",
        max_tokens=NUM_TOKENS,
        stream=True,
        extra_body={"ignore_eos": True},
    )
    texts = []
    async for chunk in chunks:
        texts.append(chunk.choices[0].text)
        if len(texts) == 2:
            after_two()
    return "".join(texts)


async def test_models_of_both_pools_answer_behind_one_url_and_streams_end_when_it_stops(
    start: Start, redis_url: str, pool: str
) -> None:
    for base in BASES:
        words = ["worker", base, "--engine", "simulated", "--simulated-step-ms", "10"]
        words += ["--pool", f"{pool}-{base}", "--redis-url", redis_url]
        start([str(LORIKEET), *words, "--adapters", f"{ADAPTER}={ADAPTER}"], env=dict(os.environ))
    port = free_port()
    process = await start_api(start, redis_url, pool, port)
    async with client_of(port) as client:

        async def listed() -> list[str] | None:
            found = [model.id for model in (await client.models.list()).data]
            return found if len(found) == 4 else None

        models = await eventually(listed, within_s=60)
        assert models == ["first", ADAPTER, "second", f"second:{ADAPTER}"]
        await asyncio.gather(
            *(answer(client, model, seed) for model in models for seed in range(8))
        )
        first, second = await asyncio.gather(
            text_of_stream(client, "first", lambda: process.send_signal(signal.SIGTERM)),
            text_of_stream(client, "second", lambda: None),
        )
    assert len(first) == len(second) > 0
    assert await asyncio.to_thread(process.wait, 20) == 0
