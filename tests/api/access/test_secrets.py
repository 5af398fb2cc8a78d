"""The secret of a stored key is with its client only: not in logs, Redis or process arguments."""

import asyncio
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from api_processes import ROOT, api_process, is_healthy
from api_support import ScriptedWorker, free_port, until
from key_support import bearer
from pool_contents import pool_contents

from shared.store.redis.connection import Redis
from shared.store.redis.keys import Keys

BODY = {"model": "extract", "messages": [{"role": "user", "content": "hi"}]}


def lorikeet(redis_url: str, pool: str, *words: str) -> str:
    flags = ["--redis-url", redis_url, "--pool", pool]
    command = [sys.executable, "-m", "ops.cli", *words, *flags]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="reads arguments of processes in /proc")
async def test_only_the_output_of_its_creation_has_the_secret(
    redis_url: str, pool: str, worker: ScriptedWorker, redis: Redis, keys: Keys
) -> None:
    created = await asyncio.to_thread(lorikeet, redis_url, pool, "keys", "create", "--tenant", "r")
    secret = created.strip()
    part = secret.split("-", 2)[2]
    assert len(part) == 43
    await redis.config_set("slowlog-log-slower-than", 0)
    port = free_port()
    try:
        with api_process(redis_url, pool, port) as process:
            await until(lambda: is_healthy(port), 60)
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
                await use_key(http, worker, secret)
            start = start_of(process.pid)
            process.terminate()
            log, _ = await asyncio.to_thread(process.communicate)
    finally:
        await redis.config_set("slowlog-log-slower-than", 10_000)
    listed = await asyncio.to_thread(lorikeet, redis_url, pool, "keys", "list")
    assert "job_accepted" in log
    everything = f"{await pool_contents(redis, keys)} {await redis.slowlog_get(1000)}"
    assert "digest" in everything
    for text in (log, start, everything, listed):
        assert part not in text


def start_of(process_id: int) -> str:
    """Return the arguments and the environment of a process."""
    folder = Path("/proc") / str(process_id)
    return (folder / "cmdline").read_text() + (folder / "environ").read_text()


async def use_key(http: httpx.AsyncClient, worker: ScriptedWorker, secret: str) -> None:
    """Get an answer, and be refused in several ways."""
    url = "/v1/chat/completions"
    reply, _ = await worker.serve(http.post(url, json=BODY, headers=bearer(secret), timeout=20))
    assert reply.status_code == 200
    statuses = []
    for path, headers in (
        ("/v1/pool", bearer(secret)),
        ("/v1/models", {"X-Api-Key": secret}),
        ("/v1/models", bearer(secret + "x")),
        ("/nowhere", bearer(secret)),
    ):
        statuses.append((await http.get(path, headers=headers)).status_code)
    assert statuses == [403, 200, 401, 404]
