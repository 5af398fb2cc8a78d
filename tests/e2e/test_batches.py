"""Batches in a pool of processes: front end, workers and control processes, which are killed."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from batch_pool import PATH, BatchPool, batch_pool, check_answers, requests
from key_support import new_key
from queue_support import eventually
from simulated_workers import NAME

from ops.lab.hostile.source import flaky_source
from shared.protocol.access.rights import Access, KeyLimits, Scope
from shared.store.access.key_store import KeyStore
from shared.store.batches.records import BatchId
from shared.store.connection import Redis
from shared.store.keys import Keys

pytestmark = pytest.mark.slow

ADAPTERS = ("a", "b")
MODELS = (NAME, *ADAPTERS)


@pytest.fixture
def running(redis_url: str, pool: str, tmp_path: Path) -> Iterator[BatchPool]:
    with batch_pool(redis_url, pool, tmp_path) as running:
        yield running


@pytest.fixture
async def client(running: BatchPool) -> AsyncIterator[openai.AsyncOpenAI]:
    url = f"{running.url}/v1"
    async with openai.AsyncOpenAI(api_key="none", base_url=url, max_retries=8) as client:
        yield client


async def start(running: BatchPool, **settings: Any) -> None:
    """Start a front end and a worker with all models."""
    adapters = " ".join(f"{name}={name}" for name in ADAPTERS)
    running.worker(adapters=adapters.split(), simulated_step_ms=2, **settings)
    await running.api()


async def created(client: openai.AsyncOpenAI, content: bytes, **changes: Any) -> str:
    file = await client.files.create(file=("in.jsonl", content), purpose="batch")
    fields: dict[str, Any] = {"endpoint": PATH, "completion_window": "24h", **changes}
    return (await client.batches.create(input_file_id=file.id, **fields)).id


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


async def test_a_batch_of_several_models_is_answered(
    running: BatchPool, client: openai.AsyncOpenAI, redis: Redis, keys: Keys
) -> None:
    await start(running)
    running.control()
    batch_id = await created(client, requests(MODELS, 60, max_tokens=8))
    batch = await ended(client, batch_id)
    assert (batch.status, batch.error_file_id) == ("completed", None)
    counts = batch.request_counts
    assert (counts.total, counts.completed, counts.failed) == (60, 60, 0)
    check_answers(await content(client, batch.output_file_id), MODELS, 60, max_tokens=8)
    assert batch.usage.output_tokens == 60 * 8
    assert batch.usage.input_tokens > 0
    assert list((running.store / "work").glob("*")) == []
    listed = [file.filename async for file in client.files.list()]
    assert listed == [f"{batch_id}_answers.jsonl", "in.jsonl"]
    assert await redis.zcard(keys.jobs("default")) == 0, "answers aren't kept twice"


async def test_answers_belong_to_the_rights_of_the_key_that_created_the_batch(
    running: BatchPool, client: openai.AsyncOpenAI, redis: Redis, keys: Keys
) -> None:
    await start(running)
    running.control()
    secrets = [
        (await new_key(KeyStore(redis, keys), models=models))[0]
        for models in (("a",), ("a", "b"), ("b",))
    ]
    own, wider, other = (client.with_options(api_key=secret) for secret in secrets)
    batch = await ended(own, await created(own, requests(("a",), 3, max_tokens=2)))
    for each in (own, wider):
        check_answers(await content(each, batch.output_file_id), ("a",), 3, max_tokens=2)
    with pytest.raises(openai.NotFoundError):
        await content(other, batch.output_file_id)


async def test_failed_requests_have_a_file_of_their_own(
    running: BatchPool, client: openai.AsyncOpenAI
) -> None:
    await start(running)
    running.control()
    rows = requests((NAME, "unknown"), 6, max_tokens=2)
    batch = await ended(client, await created(client, rows))
    counts = batch.request_counts
    assert (batch.status, counts.completed, counts.failed) == ("completed", 3, 3)
    failures = (await content(client, batch.error_file_id)).decode()
    assert failures.count('"status_code":404') == 3
    assert "model_not_found" in failures


async def test_a_batch_has_the_rights_of_its_key_and_its_tokens_are_counted(
    running: BatchPool, redis: Redis, keys: Keys
) -> None:
    access = Access(tenant="red", scopes=frozenset({Scope.INFERENCE}), models=(NAME, "a"))
    limits = KeyLimits(requests_per_day=1000)
    _, secret = await KeyStore(redis, keys).create(access, limits)
    await start(running)
    running.control()
    async with openai.AsyncOpenAI(api_key=secret, base_url=f"{running.url}/v1") as client:
        batch = await ended(client, await created(client, requests(MODELS, 30, max_tokens=4)))
        counts = batch.request_counts
        assert (counts.completed, counts.failed) == (20, 10), "the key may not use the adapter b"
        async with httpx.AsyncClient(headers={"Authorization": f"Bearer {secret}"}) as http:
            usage = (await http.get(f"{running.url}/v1/usage?group_by=tenant")).json()["data"]
    (row,) = usage
    assert (row["tenant"], row["requests"]) == ("red", 20)
    assert row["completion_tokens"] == batch.usage.output_tokens == 80
    assert row["prompt_tokens"] == batch.usage.input_tokens


async def test_an_invalid_file_names_its_faults(
    running: BatchPool, client: openai.AsyncOpenAI
) -> None:
    await start(running)
    running.control()
    rows = requests((NAME,), 3, max_tokens=2).replace(b"request 1", b"request 0")
    batch = await ended(client, await created(client, rows))
    assert (batch.status, batch.output_file_id) == ("failed", None)
    (fault,) = batch.errors.data
    assert (fault.code, fault.line) == ("duplicate_custom_id", 2)


async def test_a_deleted_input_fails_the_batch(
    running: BatchPool, client: openai.AsyncOpenAI
) -> None:
    await start(running)
    batch_id = await created(client, requests((NAME,), 3, max_tokens=2))
    await client.files.delete((await client.batches.retrieve(batch_id)).input_file_id)
    running.control()
    batch = await ended(client, batch_id)
    # The content may be read before it is deleted.
    assert batch.status == "completed" or batch.errors.data[0].code == "file_not_found"
    await eventually(lambda: has_no_input(running.store / "files"), within_s=30)


async def has_no_input(folder: Path) -> bool:
    return all(name.endswith("answers") for name in os.listdir(folder))


async def test_a_cancelled_batch_keeps_the_answers_so_far(
    running: BatchPool, client: openai.AsyncOpenAI
) -> None:
    await start(running, max_num_seqs=4)
    running.control()
    batch_id = await created(client, requests(MODELS, 5000, max_tokens=20))

    async def has_answers() -> bool:
        return await num_done(client, batch_id) > 0

    await eventually(has_answers, within_s=60)
    assert (await client.batches.cancel(batch_id)).status == "cancelling"
    batch = await ended(client, batch_id)
    assert batch.status == "cancelled"
    rows = (await content(client, batch.output_file_id)).splitlines()
    assert 0 < len(rows) == batch.request_counts.completed < 5000


async def test_a_batch_that_runs_out_of_time_keeps_the_answers_so_far(
    running: BatchPool, client: openai.AsyncOpenAI, redis: Redis, keys: Keys
) -> None:
    await start(running, max_num_seqs=4)
    batch_id = await created(client, requests((NAME,), 2000, max_tokens=40), completion_window="1h")
    running.control()
    await eventually(lambda: num_done(client, batch_id), within_s=60)
    key = keys.batch(BatchId(batch_id))
    await redis.hset(key, "expires_s", int(time.time()) + 2)  # type: ignore[misc]
    batch = await ended(client, batch_id)
    counts = batch.request_counts
    assert (batch.status, counts.completed + counts.failed) == ("expired", 2000)
    assert counts.completed > 0
    assert b"batch_expired" in await content(client, batch.error_file_id)


@pytest.mark.timeout(300)
async def test_a_batch_survives_the_death_of_every_process(
    running: BatchPool, client: openai.AsyncOpenAI
) -> None:
    number, max_tokens, models = 5000, 16, [f"adapter-{i}" for i in range(5)]
    adapters = [f"{name}={name}" for name in models]
    settings = {"adapters": adapters, "simulated_step_ms": 2, "lease_ms": 2000}
    workers = [running.worker(**settings, max_num_seqs=16) for _ in range(2)]
    api, controls = await running.api(), [running.control()]
    batch_id = await created(client, requests(models, number, max_tokens=max_tokens))

    async def reaches(count: int) -> None:
        async def has_reached() -> bool:
            return await num_done(client, batch_id) >= count

        await eventually(has_reached, within_s=120)

    await reaches(100)
    controls[0].kill()
    controls.append(running.control())
    await reaches(1000)
    workers[0].kill()
    workers.append(running.worker(**settings, max_num_seqs=16))
    await reaches(2000)
    api.kill()
    api.wait()
    await running.api()
    await reaches(3000)
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


async def test_other_requests_do_not_wait_for_a_batch(
    running: BatchPool, client: openai.AsyncOpenAI
) -> None:
    await start(running, max_num_seqs=4)
    running.control()
    batch_id = await created(client, requests(MODELS, 300, max_tokens=2000))

    async def is_running() -> bool:
        return (await client.batches.retrieve(batch_id)).status == "in_progress"

    await eventually(is_running, within_s=60)
    await asyncio.sleep(2)  # answers of the batch take 4 s and use all sequences now
    started = time.monotonic()
    answers = await asyncio.gather(
        *(client.completions.create(model=NAME, prompt="hi", max_tokens=4) for _ in range(4))
    )
    assert time.monotonic() - started < 2
    assert all(answer.choices[0].text for answer in answers)
    await client.batches.cancel(batch_id)


async def test_batches_with_a_slow_key_hold_no_places(
    running: BatchPool, redis: Redis, keys: Keys
) -> None:
    slow_secret = await secret_of(KeyStore(redis, keys), "slow", KeyLimits(requests_per_minute=1))
    fast_secret = await secret_of(KeyStore(redis, keys), "fast", KeyLimits())
    await start(running)
    running.control()
    async with (
        openai.AsyncOpenAI(api_key=slow_secret, base_url=f"{running.url}/v1") as slow,
        openai.AsyncOpenAI(api_key=fast_secret, base_url=f"{running.url}/v1") as fast,
    ):
        slow_ids = [await created(slow, requests((NAME,), 500, max_tokens=1)) for _ in range(8)]
        await eventually(lambda: has_begun(slow, slow_ids), within_s=60)
        batch = await ended(fast, await created(fast, requests((NAME,), 3, max_tokens=1)))
    assert batch.status == "completed"


async def secret_of(store: KeyStore, tenant: str, limits: KeyLimits) -> str:
    """Create a key for requests of a tenant, and return it."""
    access = Access(tenant=tenant, scopes=frozenset({Scope.INFERENCE}))
    _, secret = await store.create(access, limits)
    return secret


async def has_begun(client: openai.AsyncOpenAI, ids: list[str]) -> bool:
    found = [await client.batches.retrieve(batch_id) for batch_id in ids]
    return all(batch.status == "in_progress" for batch in found)


@pytest.mark.parametrize("size", [1, 300], ids=["alone", "in a large file"])
async def test_a_deep_line_ends_its_batch_and_no_other(
    running: BatchPool, client: openai.AsyncOpenAI, size: int
) -> None:
    await start(running)
    running.control()
    rows = requests((NAME,), size, max_tokens=1)
    deep = rows.replace(b'"seed":0', b'"x":' + b"[" * 300 + b"]" * 300)
    bad_ids = [await created(client, deep) for _ in range(8)]
    good = await ended(client, await created(client, requests((NAME,), 3, max_tokens=1)))
    assert good.status == "completed"
    for bad_id in bad_ids:
        bad = await ended(client, bad_id)
        assert (bad.status, bad.errors.data[0].line) == ("failed", 1)
        assert "nested" in bad.errors.data[0].message


async def test_a_batch_goes_on_when_a_source_comes_back(
    running: BatchPool, client: openai.AsyncOpenAI
) -> None:
    others = [f"other-{number}" for number in range(10)]
    with flaky_source() as source:
        source.is_held_away = False
        running.worker(
            adapters=[f"{name}={name}" for name in others],
            adapter_memory_mb=8,
            adapter_host_mb=0,
            adapter_roots=(source.url.rpartition("/")[0],),
            adapter_private_hosts=("127.0.0.1",),
        )
        await running.api()
        running.control()
        body = {"lora_name": "flaky", "lora_path": source.url}
        await client.post("/load_lora_adapter", body=body, cast_to=str)
        await ended(client, await created(client, requests(others, 30, max_tokens=2)))
        source.is_held_away = True
        batch_id = await created(client, requests(("flaky", others[0]), 16, max_tokens=2))

        async def has_the_rest() -> bool:
            return source.num_refusals > 0 and await num_done(client, batch_id) == 8

        await eventually(has_the_rest, within_s=60)
        source.is_held_away = False
        batch = await ended(client, batch_id)
    counts = batch.request_counts
    assert (batch.status, counts.completed, counts.failed) == ("completed", 16, 0)
