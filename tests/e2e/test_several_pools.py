"""Two pools of processes behind one `lorikeet api`, which stops while both stream."""

import asyncio
import os
import signal

import openai
import pytest
from api_processes import is_healthy
from child_processes import child_processes
from queue_support import eventually
from servers import LORIKEET

from ops.local.ports import free_port
from worker.engine_simulated.adapters import source_digest, version_of
from worker.engine_simulated.checker import check
from worker.engine_simulated.tokens import prompt_ids

BASES = ("first", "second")
ADAPTER = "sql"
NUM_TOKENS = 40


@pytest.mark.slow
async def test_models_of_both_pools_answer_behind_one_url_and_streams_end_when_it_stops(
    redis_url: str, pool: str
) -> None:
    port, redis = free_port(), ("--redis-url", redis_url)
    pools = ("--pool", f"{pool}-first", "--further-pools", f"{pool}-second")
    base_url = f"http://127.0.0.1:{port}/v1"
    with child_processes() as start:
        for base in BASES:
            words = ["worker", base, "--engine", "simulated", "--simulated-step-ms", "10"]
            words += ["--pool", f"{pool}-{base}", "--adapters", f"{ADAPTER}={ADAPTER}"]
            start([str(LORIKEET), *words, *redis], env=dict(os.environ))
        words = ["api", *pools, "--port", str(port)]
        process = start([str(LORIKEET), *words, *redis], env=dict(os.environ))

        async def answers() -> bool:
            assert process.poll() is None
            return is_healthy(port)

        await eventually(answers, within_s=60)
        async with openai.AsyncOpenAI(api_key="none", base_url=base_url, max_retries=5) as client:

            async def listed() -> list[str] | None:
                found = [model.id for model in (await client.models.list()).data]
                return found if len(found) == 4 else None

            models = await eventually(listed, within_s=60)
            assert models == ["first", ADAPTER, "second", f"second:{ADAPTER}"]
            seeded = [(model, seed) for model in models for seed in range(8)]
            await asyncio.gather(*(check_answer(client, *each) for each in seeded))
            is_read = asyncio.Event()
            streams = [asyncio.create_task(num_chars(client, base, is_read)) for base in BASES]
            await is_read.wait()
            process.send_signal(signal.SIGTERM)
            first, second = await asyncio.gather(*streams)
        assert first == second > 0
        assert await asyncio.to_thread(process.wait, 20) == 0


async def check_answer(client: openai.AsyncOpenAI, model: str, seed: int) -> None:
    """Check that the model writes a whole answer of its own."""
    prompt, name = f"{model} {seed}", model.rpartition(":")[2]
    sampled = {"prompt": prompt, "seed": seed, "max_tokens": NUM_TOKENS}
    ignoring = {"ignore_eos": True}
    reply = await client.completions.create(model=model, **sampled, extra_body=ignoring)
    verdict = check(
        reply.choices[0].text,
        version=version_of(name, source_digest(name)),
        prompt=prompt_ids(prompt),
        seed=seed,
        num_tokens=NUM_TOKENS,
    )
    assert verdict.violation is None
    assert reply.model == model


async def num_chars(client: openai.AsyncOpenAI, model: str, is_read: asyncio.Event) -> int:
    """Return the length of a stream's text. `is_read` is set after its second chunk."""
    sampled = {"prompt": "x", "max_tokens": NUM_TOKENS, "extra_body": {"ignore_eos": True}}
    chunks = await client.completions.create(model=model, **sampled, stream=True)
    texts = []
    async for chunk in chunks:
        texts.append(chunk.choices[0].text)
        if len(texts) == 2:
            is_read.set()
    return len("".join(texts))
