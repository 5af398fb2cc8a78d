"""Kills a worker process in the middle of answers, and compares them with transformers + PEFT."""

import os
import signal
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from engines import random_prompt
from native_workers import native_worker
from reference import check_greedy_along, logits_along
from worker_support import Client, has_workers, until

from shared.protocol.jobs import JobState, SamplingParams

NUM_TOKENS = 400


async def check_answers_over_a_kill(
    client: Client,
    redis_url: str,
    pool: str,
    *,
    base: Path,
    adapters: Mapping[str, Path],
    model_of: Callable[[str], Any],
) -> None:
    """Check that another worker goes on with the answers of a killed one, exactly.

    `model_of` returns the reference for "base" and for each adapter's name.
    """
    with ExitStack() as workers:
        first = workers.enter_context(native_worker(redis_url, pool, base, adapters))
        await until(lambda: has_workers(client.views, 1), 120)
        registered = await client.registry.base()
        assert registered is not None
        versions = {each.name: each.version for each in await client.registry.adapters()}
        versions["base"] = registered.version
        prompt = tuple(random_prompt(1, 20))
        greedy = SamplingParams(seed=1, max_tokens=NUM_TOKENS, temperature=0.0, ignore_eos=True)
        jobs = {
            name: await client.send(prompt, version=versions[name], sampling=greedy)
            for name in ("base", *adapters)
        }
        for job in jobs.values():
            await client.until_published(job, 10)
        os.kill(first.pid, signal.SIGKILL)
        workers.enter_context(native_worker(redis_url, pool, base, adapters))
        ends = [await client.end_of(job, 120) for job in jobs.values()]
    assert [(end.state, end.try_) for end in ends] == [(JobState.DONE, 2)] * len(ends)
    for name, job in jobs.items():
        ((ids, _),) = client.answers_of(job).values()
        assert len(ids) == NUM_TOKENS
        check_greedy_along(logits_along(model_of(name), prompt, ids), ids)
