"""A pool of processes with a file store: front ends, workers with the simulated engine, control."""

import os
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
from api_processes import is_healthy
from child_processes import child_processes
from queue_support import eventually
from servers import LORIKEET
from simulated_workers import worker_command

from ops.local.ports import free_port
from worker.engine_simulated.adapters import source_digest, version_of
from worker.engine_simulated.checker import check
from worker.engine_simulated.tokens import prompt_ids

PATH = "/v1/completions"


@dataclass(kw_only=True)
class BatchPool:
    """Commands of the pool's processes, and those that run."""

    redis_url: str
    pool: str
    store: Path
    start: "Callable[..., subprocess.Popen[str]]"
    env: dict[str, str]
    port: int = field(default_factory=free_port)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def control(self, *flags: str) -> "subprocess.Popen[str]":
        return self._process("control", *flags)

    async def api(self) -> "subprocess.Popen[str]":
        process = self._process("api", "--port", str(self.port))

        async def answers() -> bool:
            assert process.poll() is None
            return is_healthy(self.port)

        await eventually(answers, within_s=60)
        return process

    def worker(self, **settings: Any) -> "subprocess.Popen[str]":
        return self.start(worker_command(self.redis_url, self.pool, **settings), env=self.env)

    def _process(self, command: str, *flags: str) -> "subprocess.Popen[str]":
        words = [str(LORIKEET), command, "--redis-url", self.redis_url, "--pool", self.pool]
        return self.start([*words, "--file-store", str(self.store), *flags], env=self.env)


@contextmanager
def batch_pool(redis_url: str, pool: str, folder: Path) -> Iterator[BatchPool]:
    """Yield a pool without processes. Those that the test starts are killed at the end."""
    with child_processes() as start:
        yield BatchPool(
            redis_url=redis_url,
            pool=pool,
            store=folder / "store",
            start=start,
            env={**os.environ, "LORIKEET_LOG_LEVEL": "warning"},
        )


def requests(models: Sequence[str], number: int, *, max_tokens: int) -> bytes:
    """Return a batch's input, with the models in turn."""
    return b"\n".join(
        orjson.dumps(
            {
                "custom_id": f"request {i}",
                "method": "POST",
                "url": PATH,
                "body": {
                    "model": models[i % len(models)],
                    "prompt": f"prompt {i}",
                    "seed": i,
                    "max_tokens": max_tokens,
                    "ignore_eos": True,
                },
            }
        )
        for i in range(number)
    )


def check_answers(content: bytes, models: Sequence[str], number: int, *, max_tokens: int) -> int:
    """Fail unless each request has exactly one complete answer of its own model.

    Returns:
        The number of answers that more than one claim has computed.
    """
    rows = [orjson.loads(line) for line in content.splitlines()]
    ids = [row["custom_id"] for row in rows]
    assert sorted(ids) == sorted(f"request {i}" for i in range(number))
    num_resumed = 0
    for row in rows:
        i = int(row["custom_id"].removeprefix("request "))
        response, model = row["response"], models[i % len(models)]
        assert (response["status_code"], row["error"]) == (200, None)
        assert response["body"]["model"] == model
        verdict = check(
            response["body"]["choices"][0]["text"],
            version=version_of(model, source_digest(model)),
            prompt=prompt_ids(f"prompt {i}"),
            seed=i,
            num_tokens=max_tokens,
        )
        assert verdict.violation is None, f"{row['custom_id']}: {verdict.violation}"
        num_resumed += len(verdict.epochs) > 1
    return num_resumed
