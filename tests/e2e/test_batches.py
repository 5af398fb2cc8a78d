"""Batches in pools of processes: front end, workers and control processes, which are killed.

tests/ops/control/batches has each reason for which a request or a whole batch fails.
"""

import asyncio
import subprocess
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import orjson
import pytest
from batch_pool import PATH, BatchPool, batch_pool, check_answers, requests
from key_support import new_key
from queue_support import eventually
from servers import run_lorikeet
from simulated_workers import NAME

from shared.store.access.key_store import KeyStore
from shared.store.redis.connection import Redis, connect
from shared.store.redis.keys import Keys

ADAPTERS = ("a", "b")
MODELS = (NAME, *ADAPTERS)


@pytest.fixture(scope="module")
def shared(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[BatchPool]:
    """A pool with a worker that has all models and room for four sequences."""
    name = f"test-{uuid.uuid4().hex[:12]}"
    with batch_pool(redis_url, name, tmp_path_factory.mktemp("batches")) as pool:
        asyncio.run(start(pool))
        yield pool


@pytest.fixture
def running(redis_url: str, pool: str, tmp_path: Path) -> Iterator[BatchPool]:
    """A pool of the test, without processes."""
    with batch_pool(redis_url, pool, tmp_path) as running:
        yield running


@pytest.fixture
async def client(shared: BatchPool) -> AsyncIterator[openai.AsyncOpenAI]:
    async with client_of(shared) as client:
        yield client


def client_of(pool: BatchPool, api_key: str = "none") -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(api_key=api_key, base_url=f"{pool.url}/v1", max_retries=8)


async def start(pool: BatchPool) -> None:
    adapters = [f"{name}={name}" for name in ADAPTERS]
    pool.worker(adapters=adapters, simulated_step_ms=2, max_num_seqs=4)
    pool.control()
    await pool.api()


async def created(client: openai.AsyncOpenAI, content: bytes) -> str:
    file = await client.files.create(file=("in.jsonl", content), purpose="batch")
    batch = await client.batches.create(
        input_file_id=file.id, endpoint=PATH, completion_window="24h"
    )
    return batch.id


async def ended(client: openai.AsyncOpenAI, batch_id: str, within_s: float = 60) -> Any:
    async def find() -> Any:
        batch = await client.batches.retrieve(batch_id)
        return batch if batch.status in ("completed", "failed", "expired", "cancelled") else None

    return await eventually(find, within_s=within_s)


async def content(client: openai.AsyncOpenAI, file_id: str | None) -> bytes:
    assert file_id
    return (await client.files.content(file_id)).content


async def num_done(client: openai.AsyncOpenAI, batch_id: str) -> int:
    counts = (await client.batches.retrieve(batch_id)).request_counts
    assert counts
    return counts.completed


@pytest.mark.slow
async def test_a_batch_of_several_models_is_answered(
    shared: BatchPool, client: openai.AsyncOpenAI
) -> None:
    batch_id = await created(client, requests(MODELS, 60, max_tokens=8))
    batch = await ended(client, batch_id)
    assert (batch.status, batch.error_file_id) == ("completed", None)
    counts = batch.request_counts
    assert (counts.total, counts.completed, counts.failed) == (60, 60, 0)
    check_answers(await content(client, batch.output_file_id), MODELS, 60, max_tokens=8)
    assert batch.usage.output_tokens == 60 * 8
    assert batch.usage.input_tokens > 0
    assert list((shared.store / "work").glob("*")) == []
    listed = [file.filename async for file in client.files.list()]
    assert listed[:2] == [f"{batch_id}_answers.jsonl", "in.jsonl"]
    redis = connect(shared.redis_url)
    assert await redis.zcard(Keys(shared.pool).jobs("default")) == 0, "answers aren't kept twice"
    await redis.aclose()


@pytest.mark.slow
async def test_a_batch_has_the_rights_of_its_key_and_its_tokens_are_counted(
    running: BatchPool, redis: Redis, keys: Keys
) -> None:
    own, wider, other = [
        (await new_key(KeyStore(redis, keys), models=models, requests_per_day=1000))[0]
        for models in ((NAME, "a"), ("*",), ("b",))
    ]
    await start(running)
    async with client_of(running, own) as client:
        batch = await ended(client, await created(client, requests(MODELS, 30, max_tokens=4)))
        counts = batch.request_counts
        assert (batch.status, counts.completed, counts.failed) == ("completed", 20, 10)
        failures = (await content(client, batch.error_file_id)).decode()
        assert failures.count('"status_code":404') == 10, "the key may not use the adapter b"
        assert "model_not_found" in failures
        answers = await content(client, batch.output_file_id)
        assert await content(client.with_options(api_key=wider), batch.output_file_id) == answers
        with pytest.raises(openai.NotFoundError):
            await content(client.with_options(api_key=other), batch.output_file_id)
    async with httpx.AsyncClient(headers={"Authorization": f"Bearer {own}"}) as http:
        (row,) = (await http.get(f"{running.url}/v1/usage?group_by=tenant")).json()["data"]
    assert (row["tenant"], row["requests"]) == ("red", 20)
    assert row["completion_tokens"] == batch.usage.output_tokens == 80
    assert row["prompt_tokens"] == batch.usage.input_tokens


@pytest.mark.long
@pytest.mark.timeout(300)
async def test_a_batch_survives_the_death_of_every_process(running: BatchPool) -> None:
    number, max_tokens, models = 5000, 16, [f"adapter-{i}" for i in range(5)]
    adapters = [f"{name}={name}" for name in models]
    settings = {"adapters": adapters, "simulated_step_ms": 2, "lease_ms": 2000}
    workers = [running.worker(**settings, max_num_seqs=16) for _ in range(2)]
    api, controls = await running.api(), [running.control()]
    async with client_of(running) as client:
        batch_id = await created(client, requests(models, number, max_tokens=max_tokens))

        async def reaches(count: int) -> None:
            async def has_reached() -> bool:
                return await num_done(client, batch_id) >= count

            await eventually(has_reached, within_s=120)

        await reaches(100)
        controls[0].kill()
        controls.append(running.control())
        await reaches(400)
        workers[0].kill()
        workers.append(running.worker(**settings, max_num_seqs=16))
        await reaches(800)
        api.kill()
        api.wait()
        await running.api()
        await reaches(1200)
        controls[1].kill()
        running.control()
        running.control()  # two at once: only one of them runs the batch
        batch = await ended(client, batch_id, within_s=150)
        assert batch.status == "completed"
        answers = await content(client, batch.output_file_id)
    num_resumed = check_answers(answers, models, number, max_tokens=max_tokens)
    assert num_resumed > 0, "no answer was continued by another worker"
    counts = batch.request_counts
    assert (counts.completed, counts.failed) == (number, 0)


def lorikeet_batch(
    url: str, file: Path, content: bytes | None, *flags: str
) -> "subprocess.CompletedProcess[str]":
    """Run `lorikeet batch` for a file with this content."""
    if content is not None:
        file.write_bytes(content)
    return run_lorikeet("batch", str(file), "--url", url, *flags)


@pytest.mark.slow
def test_the_command_answers_a_file_and_follows_its_batch_later(
    shared: BatchPool, tmp_path: Path
) -> None:
    file, rows = tmp_path / "in.jsonl", requests([NAME], 30, max_tokens=4)
    first = lorikeet_batch(shared.url, file, rows)
    assert first.returncode == 0, first.stderr
    answers = tmp_path / "in.jsonl.answers.jsonl"
    check_answers(answers.read_bytes(), [NAME], 30, max_tokens=4)
    answers.unlink()
    again = lorikeet_batch(shared.url, file, None, "--output", str(tmp_path / "out"))
    assert again.returncode == 0, again.stderr
    check_answers((tmp_path / "out").read_bytes(), [NAME], 30, max_tokens=4)
    started, followed = first.stdout.split()[:2], again.stdout.split()[:2]
    assert (started[0], followed[0]) == ("started", "follows")
    assert started[1] == followed[1], "the same batch"


@pytest.mark.slow
def test_failed_requests_change_the_exit_status_of_the_command(
    shared: BatchPool, tmp_path: Path
) -> None:
    file = tmp_path / "in.jsonl"
    result = lorikeet_batch(shared.url, file, requests([NAME, "unknown"], 4, max_tokens=4))
    assert result.returncode == 1
    assert "completed: 2 of 4 answered" in result.stdout
    lines = (tmp_path / "in.jsonl.failures.jsonl").read_bytes().splitlines()
    assert [orjson.loads(line)["response"]["status_code"] for line in lines] == [404, 404]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("is_served", "content", "message"),
    [
        (True, b"nonsense", "isn't a request"),
        (True, b'{"url": "/v1/images"}', "endpoint"),
        (True, requests([NAME], 1, max_tokens=1) + b"\n{", "line 2"),
        (False, None, "No such file"),
        (False, requests([NAME], 1, max_tokens=1), "no answer from"),
    ],
)
def test_a_bad_or_missing_file_and_a_missing_server_are_said_plainly(
    shared: BatchPool, tmp_path: Path, is_served: bool, content: bytes | None, message: str
) -> None:
    url = shared.url if is_served else "http://127.0.0.1:1"
    result = lorikeet_batch(url, tmp_path / "in.jsonl", content)
    assert result.returncode in (1, 2)
    assert message in result.stderr
    assert "Traceback" not in result.stderr
