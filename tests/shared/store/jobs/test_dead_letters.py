"""Dead letters, jobs that are enqueued again, and the `redis-cli` commands of ops/docs/queue.md."""

import re
import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from adapter_versions import BASE
from key_support import new_key
from queue_support import API, LIMITS, Actor, make_adapter, make_job, tokens

from shared.errors import ErrorCode
from shared.protocol.adapters import Adapter
from shared.protocol.codec import encode_job
from shared.protocol.ids import AdapterVersion
from shared.protocol.jobs import Endpoint, View
from shared.reasoning_form import ReasoningForm
from shared.store.access.key_store import KeyStore
from shared.store.adapters.registry import Found, Registry
from shared.store.jobs.dead_letters import DeadLetters
from shared.store.jobs.queue import Queue
from shared.store.jobs.retried_jobs import enqueue_again
from shared.store.redis.connection import Redis
from shared.store.redis.keys import Keys
from shared.store.views.pool_views import PoolViews


@pytest.fixture
def letters(redis: Redis, keys: Keys) -> DeadLetters:
    return DeadLetters(redis, keys)


async def test_a_dead_letter_names_its_worker_and_the_reason(actor, enqueue, letters) -> None:
    worker, job = await actor("w1"), await enqueue(tenant="red")
    await worker.die_of(job)
    (letter,) = await letters.dead(10)
    assert (letter.id, letter.version, letter.tenant) == (job.id, "a@1", "red")
    assert (letter.tries, letter.worker) == (3, "w1")
    assert letter.reason.startswith("the job killed its worker 2 times while it ran alone")
    assert letter.code == "poison_job"
    assert letter.died_ms > 0


async def test_an_old_dead_letter_is_found(
    actor, enqueue, letters, redis: Redis, keys: Keys
) -> None:
    worker, job = await actor(), await enqueue()
    await worker.die_of(job)
    ((_, fields),) = await redis.xrange(keys.dead)
    for i in range(250):
        await redis.xadd(keys.dead, {**fields, b"id": f"{i}"})
    found = await letters.find(job.id)
    assert found is not None
    assert (found.job, found.is_dead) == (job, True)
    await redis.delete(keys.job(job.id))
    assert await letters.find(job.id) == found, "its record has the id of its letter"
    await redis.delete(keys.record(job.id))
    assert await letters.find(job.id) == found, "a letter outlives its record"


async def test_the_letters_are_searched_for_dead_and_expired_jobs_only(
    actor, enqueue, letters, redis: Redis, keys: Keys
) -> None:
    worker, done, failed = await actor(), await enqueue(), await enqueue()
    claimed = {each.job.id: each for each in await worker.claim()}
    await worker.finish(claimed[done.id])
    await worker.fail(claimed[failed.id], ErrorCode.INVALID_VALUE)
    waiting, expired = await enqueue(), make_job()
    for job in (done, failed, waiting, expired):
        await add_letters(redis, keys, [1], id=job.id, body=encode_job(job))
    for job in (done, failed, waiting):
        assert await letters.find(job.id) is None
    found = await letters.find(expired.id)
    assert found is not None
    assert (found.job, found.is_dead) == (expired, True)


class MovingRegistry(Registry):
    """Registry in which another version is loaded right after the first look-up."""

    next_version: Adapter | None = None

    async def find(self, model: str) -> Found:
        found, version = await super().find(model), self.next_version
        if version is not None:
            self.next_version = None
            await self.load_adapter(version, replace=True)
        return found


async def test_a_retried_job_is_one_of_its_model_as_it_is_now(
    actor, enqueue, letters, queue: Queue, redis: Redis, keys: Keys
) -> None:
    registry = MovingRegistry(redis, keys)
    await registry.set_base(BASE)
    await registry.load_adapter(make_adapter("a@1"), replace=False)
    chat: Any = {"endpoint": Endpoint.CHAT, "prompts": (), "messages": ()}
    view: Any = {"view": View.RESPONSES, "request": {"store": True}, "hides_reasoning": True}
    job = await enqueue(fingerprint="fp_1_1", **chat, **view)
    await (await actor()).die_of(job)
    thinking = make_adapter("a@3", reasoning=ReasoningForm.THINK)
    await registry.load_adapter(make_adapter("a@2"), replace=True)
    registry.next_version = thinking

    old = await letters.find(job.id)
    assert old is not None
    assert (old.job, old.is_dead) == (job, True)
    enqueued = await enqueue_again(old, queue, registry, LIMITS)
    (claimed,) = await (await actor("w2", holds=["a@3"])).claim()
    assert (claimed.job.id, claimed.job.version) == (enqueued.id, "a@3")
    shown = await PoolViews(redis, keys).job(enqueued.id)
    assert shown is not None
    assert (shown.spec.fingerprint, shown.spec.reasoning) == ("fp_1_3", ReasoningForm.THINK)
    assert (shown.spec.view, shown.spec.request) == (View.RESPONSES, {"store": True})
    assert shown.spec.hides_reasoning
    assert await letters.find(job.id) is None
    assert await letters.dead(10) == []
    again = await enqueue_again(old, queue, registry, LIMITS)
    assert (again.id, again.is_new) == (enqueued.id, False)
    await redis.delete(keys.job(enqueued.id))
    again = await enqueue_again(old, queue, registry, LIMITS)
    assert not again.is_new, "a late repetition doesn't run the job twice"
    assert not await redis.exists(keys.job(enqueued.id))
    old_view = await PoolViews(redis, keys).job_or_record(job.id)
    assert old_view is not None
    assert old_view.retried_as == enqueued.id


async def add_letters(redis: Redis, keys: Keys, times_ms: Sequence[int], **changes: str) -> None:
    fields = {"id": "0" * 32, "version": "a@1", "tenant": "red", "try": 3, "worker": "w1"}
    error = '{"code":"poison_job","message":"it kills"}'
    for time_ms in times_ms:
        letter: Any = {**fields, "error": error, "body": "", **changes}
        await redis.xadd(keys.dead, letter, id=f"{time_ms}-*")


async def test_new_letters_are_summarized_once(letters, redis: Redis, keys: Keys) -> None:
    assert await letters.take_unreported() is None
    await add_letters(redis, keys, [1000, 2000], worker="w2")
    await add_letters(redis, keys, [3000], version="b@1", worker="w2")
    await add_letters(redis, keys, [4000])
    summary = await letters.take_unreported()
    assert (summary.num_letters, summary.oldest_ms, summary.newest_ms) == (4, 1000, 4000)
    assert summary.by_version == {"a@1": 3, "b@1": 1}
    assert summary.by_worker == {"w2": 3, "w1": 1}
    assert summary.by_code == {"poison_job": 4}
    assert await letters.take_unreported() is None
    await add_letters(redis, keys, [4000])
    summary = await letters.take_unreported()
    assert (summary.num_letters, summary.by_version) == (1, {"a@1": 1})


async def test_a_summary_covers_many_letters(letters, redis: Redis, keys: Keys) -> None:
    await add_letters(redis, keys, range(1, 251))
    summary = await letters.take_unreported()
    assert (summary.num_letters, summary.oldest_ms, summary.newest_ms) == (250, 1, 250)


async def test_letters_are_deleted_by_age(letters, redis: Redis, keys: Keys) -> None:
    seconds, _ = await redis.time()
    now_ms = seconds * 1000
    await add_letters(redis, keys, [now_ms - 5000, now_ms - 4000, now_ms - 1000])
    assert await letters.trim(max_age_ms=2500, max_bytes=10**9) == 2
    (left,) = await letters.dead(10)
    assert left.died_ms == now_ms - 1000
    assert await letters.trim(max_age_ms=60_000, max_bytes=10**9) == 0


async def test_the_oldest_letters_are_deleted_when_all_have_too_many_bytes(
    letters, redis: Redis, keys: Keys
) -> None:
    seconds, _ = await redis.time()
    times_ms = range(seconds * 1000, seconds * 1000 + 100)
    await add_letters(redis, keys, times_ms, body="x" * 10_000)
    deleted = await letters.trim(max_age_ms=60_000, max_bytes=300_000)
    kept = [letter.died_ms for letter in await letters.dead(100)]
    assert await redis.memory_usage(keys.dead, samples=0) <= 300_000
    assert 100 - deleted == len(kept) >= 20
    assert kept == list(reversed(times_ms))[: len(kept)]


async def test_letters_are_kept_where_redis_reports_no_bytes(
    letters, own_server, open_client, keys: Keys
) -> None:
    redis = open_client(own_server.url)
    await add_letters(redis, keys, [1000])
    await redis.execute_command("ACL", "SETUSER", "default", "-memory")
    assert await DeadLetters(redis, keys).trim(max_age_ms=10**15, max_bytes=1) == 0


PAGE = Path(__file__).parents[4] / "ops" / "docs" / "queue.md"
COMMANDS = re.findall(r"^\$ redis-cli (.*)\n(.*)$", PAGE.read_text(), re.MULTILINE)
"""Documented commands with the first lines of their output."""
PAGE_BASE = AdapterVersion("base@0123456789ab")
PIRATE = AdapterVersion("pirate@b13716a93689")


@pytest.fixture
async def names(queue: Queue, redis: Redis, keys: Keys) -> dict[str, str]:
    """Return the values of the placeholders on the page."""
    await Registry(redis, keys).set_base(replace(BASE, version=PAGE_BASE))
    adapter = make_adapter("extract@ba01d64d1243", source="org/extract")
    await Registry(redis, keys).add_adapter(adapter)
    worker = await Actor(queue, redis, keys, "vm:1:a", [PAGE_BASE, PIRATE]).register()
    running, ended, waiting = (make_job(PIRATE) for _ in range(3))
    for job in (running, ended):
        await queue.enqueue(job, LIMITS)
    claimed = {one.job.id: one for one in await worker.claim()}
    shown = tokens(running, 0, [5], "x")
    await queue.publish(worker.id, {API: [shown]}, [shown])
    await worker.finish(claimed[ended.id])
    await queue.enqueue(waiting, LIMITS)
    _, key_id = await new_key(KeyStore(redis, keys))
    day = (await redis.time())[0] // 86_400
    values = {"WORKER": worker.id, "JOB": running.id, "ENDED": ended.id}
    return {"{lk:main}:": keys.prefix, **values, "key:ID": f"key:{key_id}", "DAY": str(day)}


def test_the_page_has_commands() -> None:
    assert len(COMMANDS) > 10


@pytest.mark.parametrize(("command", "printed"), COMMANDS)
async def test_a_documented_command_shows_what_the_page_says(
    redis: Redis, names: dict[str, str], command: str, printed: str
) -> None:
    id_of = names["ENDED"] if ":res:" in command else names["JOB"]
    line = re.sub(r"\b[0-9a-f]{32}\b", id_of, command)
    for name, value in names.items():
        line = line.replace(name, value)
    reply = await redis.execute_command(*shlex.split(line))
    values = reply if isinstance(reply, list) else [reply]
    assert bool(values) is bool(printed)
    assert None not in values
