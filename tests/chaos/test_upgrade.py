"""Processes of an earlier commit and of this one serve one pool together.

The environment variable PREVIOUS overrides the earlier commit.
"""

import asyncio
import io
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import openai
import pytest
from api_processes import is_ready
from served_tiny import NAMES, TinyModels
from servers import wait_for

from ops.local.embedded_redis import EmbeddedRedis
from shared.protocol.ids import JobId
from shared.protocol.jobs import JobState
from shared.store.redis.connection import connect
from shared.store.redis.keys import Keys
from shared.store.views.pool_views import PoolViews

NEW = Path(__file__).parents[2]
EARLIER = "af02225e"
"""The last release. Before the first tag, a commit with the present form of what is in Redis."""
NUM_JOBS = 200
PORT = 23421
URL = f"http://127.0.0.1:{PORT}"
pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with the source of the earlier commit."""
    folder = tmp_path_factory.mktemp("old")
    commit = os.environ.get("PREVIOUS", EARLIER)
    command = ["git", "-C", str(NEW), "archive", commit]
    packed = subprocess.run(command, capture_output=True, check=True).stdout
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        archive.extractall(folder, filter="data")
    return folder


@contextmanager
def process(source: Path, log: Path, *words: str) -> Iterator["subprocess.Popen[bytes]"]:
    """Run the command line of the source tree `source`, with its output in `log`."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("LORIKEET_")}
    env |= {"PYTHONPATH": str(source), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-P", "-m", "ops.cli", *words]
    with log.open("wb") as file:
        running = subprocess.Popen(
            command, env=env, cwd=source, stdout=file, stderr=subprocess.STDOUT
        )
    try:
        yield running
    finally:
        running.kill()
        running.wait()


@pytest.mark.parametrize(("api", "worker"), [("new", "old"), ("old", "new")])
async def test_all_jobs_complete_whichever_process_is_upgraded_first(
    old: Path, own_server: EmbeddedRedis, models: TinyModels, tmp_path: Path, api: str, worker: str
) -> None:
    sources = {"new": NEW, "old": old}
    redis_url = ("--redis-url", own_server.url)
    logs = {name: tmp_path / f"{name}.log" for name in ("api", "worker", "control")}
    with (
        process(sources[api], logs["api"], "api", "--port", str(PORT), *redis_url) as front_end,
        process(sources[worker], logs["worker"], "worker", *redis_url, *models.flags),
        process(NEW, logs["control"], "control", *redis_url),
    ):
        await asyncio.to_thread(
            wait_for, lambda: is_ready(URL), logs["worker"].read_text, front_end
        )
        base_url = f"{URL}/v1"
        async with openai.AsyncOpenAI(base_url=base_url, api_key="none", max_retries=0) as client:
            answers = await asyncio.gather(*(ask(client, i) for i in range(NUM_JOBS)))
        redis = connect(own_server.url)
        views = PoolViews(redis, Keys("main"))
        jobs = [await views.job(JobId(name.removeprefix("cmpl-"))) for name in answers]
        counts = await views.counts()
        await redis.aclose()
    assert [job.state for job in jobs if job] == [JobState.DONE] * NUM_JOBS
    assert counts.totals[JobState.DONE] == NUM_JOBS
    assert (counts.waiting, counts.retried, counts.workers_lost) == (0, 0, 0)


async def ask(client: openai.AsyncOpenAI, number: int) -> str:
    """Request an answer, streamed if `number` is odd, and return its id."""
    options = {"model": NAMES[number % len(NAMES)], "prompt": f"hello {number}", "max_tokens": 20}
    if number % 2:
        return (await client.completions.create(**options)).id
    name, finish = "", None
    async for chunk in await client.completions.create(**options, stream=True):
        name, finish = chunk.id, chunk.choices[0].finish_reason
    assert finish
    return name
