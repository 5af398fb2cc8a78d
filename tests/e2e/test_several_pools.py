"""Two pools of processes behind one `lorikeet api`, which restarts while both stream."""

import asyncio
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator

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


@pytest.fixture
def port() -> int:
    return free_port()


async def start_api(start: Start, redis_url: str, pool: str, port: int) -> "subprocess.Popen[str]":
    words = ["--pool", f"{pool}-first", "--further-pools", f"{pool}-second", "--port", str(port)]
    process = start([str(LORIKEET), "api", "--redis-url", redis_url, *words], env=dict(os.environ))

    async def answers() -> bool:
        assert process.poll() is None
        return is_healthy(port)

    await eventually(answers, within_s=60)
    return process


@pytest.fixture
async def client(
    start: Start, redis_url: str, pool: str, port: int
) -> AsyncIterator[openai.AsyncOpenAI]:
    for base in BASES:
        words = ["worker", base, "--engine", "simulated", "--simulated-step-ms", "10"]
        words += ["--pool", f"{pool}-{base}", "--redis-url", redis_url]
        start([str(LORIKEET), *words, "--adapters", f"{ADAPTER}={ADAPTER}"], env=dict(os.environ))
    await start_api(start, redis_url, pool, port)
    async with openai.AsyncOpenAI(
        api_key="none", base_url=f"http://127.0.0.1:{port}/v1", max_retries=5
    ) as client:

        async def both_serve() -> bool:
            return len((await client.models.list()).data) == 4

        await eventually(both_serve, within_s=60)
        yield client


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


async def test_models_of_both_pools_answer_behind_one_url(client: openai.AsyncOpenAI) -> None:
    listed = [model.id for model in (await client.models.list()).data]
    assert listed == ["first", ADAPTER, "second", f"second:{ADAPTER}"]
    await asyncio.gather(*(answer(client, model, seed) for model in listed for seed in range(8)))


async def test_streams_of_both_pools_end_when_the_front_end_stops(
    client: openai.AsyncOpenAI, start: Start, redis_url: str, pool: str
) -> None:
    port = free_port()
    process = await start_api(start, redis_url, pool, port)
    async with openai.AsyncOpenAI(api_key="none", base_url=f"http://127.0.0.1:{port}/v1") as other:

        async def stream(model: str) -> str:
            chunks = await other.completions.create(
                model=model,
                prompt="x",
                max_tokens=NUM_TOKENS,
                stream=True,
                extra_body={"ignore_eos": True},
            )
            texts = []
            async for chunk in chunks:
                texts.append(chunk.choices[0].text)
                if len(texts) == 2 and model == BASES[0]:
                    process.send_signal(signal.SIGTERM)
            return "".join(texts)

        first, second = await asyncio.gather(stream("first"), stream("second"))
    assert len(first) == len(second) > 0
    assert await asyncio.to_thread(process.wait, 20) == 0
