"""Worker processes with the simulated engine, and the check of their answers."""

import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from servers import LORIKEET
from worker_support import Client

from ops.commands.flags import to_argv
from shared.protocol.ids import AdapterVersion
from shared.protocol.jobs import Job
from worker.engine_simulated.adapters import source_digest, version_of
from worker.engine_simulated.checker import check
from worker.engine_simulated.tokens import prompt_ids

NAME = "simulated"
"""Name of the workers' base model."""
BASE: AdapterVersion = version_of(NAME, source_digest(NAME))


def worker_command(redis_url: str, pool: str, **settings: Any) -> list[str]:
    return [str(LORIKEET), *worker_arguments(redis_url, pool, **settings)]


def worker_arguments(redis_url: str, pool: str, **settings: Any) -> list[str]:
    """Return the arguments of `lorikeet` for a worker with the simulated engine."""
    given = {"redis_url": redis_url, "pool": pool, "engine": "simulated", **settings}
    return ["worker", NAME, *to_argv(given, list(given))]


@contextmanager
def worker_process(
    redis_url: str,
    pool: str,
    *,
    program: Sequence[str] = (str(LORIKEET),),
    env: Mapping[str, str] | None = None,
    **settings: Any,
) -> Iterator["subprocess.Popen[bytes]"]:
    """Run a worker in its own process. At exit it is killed if it is still running.

    `env` adds variables to the environment of this process.
    """
    command = [*program, *worker_arguments(redis_url, pool, **settings)]
    process = subprocess.Popen(command, env={**os.environ, **(env or {})})
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


async def send(
    client: Client, *, max_tokens: int, version: AdapterVersion = BASE, **fields: Any
) -> Job:
    """Enqueue a job whose choices have exactly `max_tokens` tokens."""
    return await client.send(version=version, max_tokens=max_tokens, ignore_eos=True, **fields)


def check_texts(client: Client, jobs: Sequence[Job]) -> int:
    """Fail unless the events of each ended job join to whole texts without gap or splice.

    Returns:
        The number of choices that more than one claim has computed.
    """
    num_resumed = 0
    for job in jobs:
        answers = client.answers_of(job)
        assert len(answers) == job.num_choices
        (prompt,) = job.prompts
        assert isinstance(prompt, str)
        for choice, (ids, text) in answers.items():
            verdict = check(
                text,
                version=job.version,
                prompt=prompt_ids(prompt),
                seed=job.sampling.seed,
                choice=choice,
                num_tokens=job.sampling.max_tokens,
            )
            assert verdict.violation is None, f"{job.id}: {verdict.violation}"
            assert len(ids) == verdict.num_tokens
            num_resumed += len(verdict.epochs) > 1
    return num_resumed
