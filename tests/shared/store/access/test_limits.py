"""Limits of API keys: checked and charged when a job is enqueued, corrected when it ends."""

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from key_support import new_key
from queue_support import LIMITS, Actor, make_job

from shared.errors import ErrorCode, JobFailed, QueueFull, RateLimited
from shared.protocol.access.rates import Rate, Unit, Window
from shared.protocol.enqueue import Enqueued, EnqueueOptions, IdempotencyKey, QueueLimits
from shared.protocol.jobs import Job, JobState
from shared.store.access.key_store import KeyStore
from shared.store.connection import Redis, connect
from shared.store.keys import Keys
from shared.store.queue import Queue

DAY_MS = 86_400_000
NO_ROOM = QueueLimits(max_waiting=0, max_waiting_adapter=0, max_waiting_tenant=0, retain_ms=60_000)


@pytest.fixture
def store(redis: Redis, keys: Keys) -> KeyStore:
    return KeyStore(redis, keys)


class Client:
    """Client with a key."""

    def __init__(self, queue: Queue, key_id: str) -> None:
        self.queue, self.key_id = queue, key_id
        self.rates: tuple[Rate, ...] = ()

    async def send(self, cost: int = 10, *, limits: QueueLimits = LIMITS, **options: Any) -> Job:
        job = make_job(tenant="red", cost=cost)
        enqueued: Enqueued = await self.queue.enqueue(
            job, limits, options=EnqueueOptions(key_id=self.key_id, **options)
        )
        self.rates = enqueued.rates
        return job

    async def used(self) -> tuple[int, int]:
        """Return the requests and tokens that the day counts, by sending a request of one token."""
        await self.send(cost=1)
        of_day = {rate.unit: rate.used for rate in self.rates if rate.window is Window.DAY}
        return of_day[Unit.REQUESTS] - 1, of_day[Unit.TOKENS] - 1


@pytest.fixture
def client(queue: Queue, store: KeyStore) -> Callable[..., Awaitable[Client]]:
    async def create(**limits: int) -> Client:
        _, key_id = await new_key(store, **limits)
        return Client(queue, key_id)

    return create


async def test_requests_beyond_the_limit_are_refused_with_the_time_to_wait(client: Any) -> None:
    one = await client(requests_per_day=3)
    for _ in range(3):
        await one.send()
    with pytest.raises(RateLimited) as refused:
        await one.send()
    assert "3 requests per day" in str(refused.value)
    wait_s = refused.value.retry_after_s
    assert wait_s is not None
    assert 0 < wait_s <= DAY_MS / 1000


async def test_tokens_are_charged_with_the_estimate_and_corrected_at_the_end(
    client: Any, actor: Any
) -> None:
    one, worker = await client(tokens_per_day=100), await actor()
    await one.send(cost=60)
    with pytest.raises(RateLimited):
        await one.send(cost=60)
    (claimed,) = await worker.claim()
    await worker.finish(claimed, used=25)
    await one.send(cost=60)
    with pytest.raises(RateLimited):
        await one.send(cost=16)
    await one.send(cost=15)


async def test_an_answer_that_used_more_than_estimated_is_charged_in_full(
    client: Any, actor: Any
) -> None:
    one, worker = await client(tokens_per_day=100), await actor()
    await one.send(cost=10)
    (claimed,) = await worker.claim()
    await worker.finish(claimed, used=500)
    with pytest.raises(RateLimited):
        await one.send(cost=1)


async def test_refused_requests_are_not_charged(client: Any) -> None:
    one = await client(requests_per_day=1000, tokens_per_day=100)
    for _ in range(5):
        with pytest.raises(RateLimited):
            await one.send(cost=101)
    for _ in range(5):
        with pytest.raises(QueueFull):
            await one.send(limits=NO_ROOM)
    assert await one.used() == (0, 0)


async def test_a_replayed_request_is_charged_once(client: Any) -> None:
    one = await client(requests_per_day=10, tokens_per_day=100)
    key = IdempotencyKey(key="k", body_digest="d")
    for _ in range(3):
        await one.send(idempotency=key)
    assert await one.used() == (1, 10)


async def test_a_job_that_never_ran_is_refunded_its_tokens(client: Any, queue: Queue) -> None:
    one = await client(tokens_per_day=100, requests_per_day=10)
    job = await one.send(cost=100)
    await queue.cancel(job.id)
    assert await one.used() == (1, 0)


async def test_a_killed_workers_job_is_charged_once(client: Any, actor: Any) -> None:
    one = await client(tokens_per_day=1000, requests_per_day=10)
    await one.send(cost=100)
    first = await actor("w1")
    await first.claim()
    await first.die()
    second = await actor("w2")
    (claimed,) = await second.claim()
    await second.finish(claimed, used=40)
    await second.finish(claimed, used=40)  # the reply to the first call was lost
    assert await one.used() == (1, 40)


@pytest.mark.parametrize("window", Window)
async def test_a_new_window_begins_with_nothing_used(
    client: Any, redis: Redis, keys: Keys, window: Window
) -> None:
    one = await client(**{f"requests_per_{window}": 1})
    await one.send()
    # The window that was counted is over: pretend that it was an earlier one.
    await redis.hincrby(keys.rate(one.key_id), window, -1)  # type: ignore[misc]
    await one.send()


async def test_an_end_in_a_later_window_corrects_nothing(
    client: Any, actor: Any, redis: Redis, keys: Keys
) -> None:
    one = await client(tokens_per_day=1000, requests_per_day=10)
    worker = await actor()
    job = await one.send(cost=100)
    await redis.hincrby(keys.job(job.id), "enq", -DAY_MS)  # type: ignore[misc]
    (claimed,) = await worker.claim()
    await worker.finish(claimed, used=1)
    assert await one.used() == (1, 100)


@pytest.mark.parametrize("limits", [{}, {"requests_per_minute": 5}])
async def test_only_keys_with_limits_are_counted(
    client: Any, redis: Redis, keys: Keys, limits: dict[str, int]
) -> None:
    one = await client(**limits)
    await one.send()
    assert bool(await redis.exists(keys.rate(one.key_id))) is bool(limits)
    assert [rate.unit for rate in one.rates] == [Unit.REQUESTS] * len(limits)


@pytest.mark.parametrize("ending", ["revoke", "expire", "lose"])
async def test_a_key_that_is_not_valid_any_more_enqueues_nothing(
    client: Any, store: KeyStore, redis: Redis, keys: Keys, ending: str
) -> None:
    one = await client()
    if ending == "revoke":
        await store.revoke(one.key_id)
    elif ending == "expire":
        await redis.hset(keys.access_key(one.key_id), "expires_ms", 1)  # type: ignore[misc]
    else:
        await redis.delete(keys.access_key(one.key_id))
    with pytest.raises(JobFailed) as refused:
        await one.send()
    assert refused.value.error.code is ErrorCode.INVALID_API_KEY
    assert not await redis.exists(keys.due)


async def test_concurrent_requests_never_exceed_the_limit(client: Any) -> None:
    one = await client(requests_per_day=7)
    sent = await asyncio.gather(*(one.send() for _ in range(30)), return_exceptions=True)
    assert sum(isinstance(each, Job) for each in sent) == 7


actions = st.lists(
    st.tuples(st.sampled_from(["send", "done", "cancel", "die"]), st.integers(1, 60)), max_size=25
)


@settings(
    max_examples=25,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
    phases=(Phase.explicit, Phase.generate, Phase.shrink),
)
@given(actions=actions)
def test_a_window_counts_what_ended_jobs_used_and_what_others_are_estimated_to(
    redis_url: str, actions: list[tuple[str, int]]
) -> None:
    asyncio.run(compare_with_model(redis_url, actions))


async def compare_with_model(redis_url: str, actions: list[tuple[str, int]]) -> None:
    limit, counted = 100, dict[str, int]()
    redis, keys = connect(redis_url), Keys(f"test-{uuid.uuid4().hex[:12]}")
    queue = Queue(redis, keys)
    _, key_id = await new_key(KeyStore(redis, keys), tokens_per_day=limit)
    client, number, claimed = Client(queue, key_id), 0, dict[str, Any]()
    worker = await Actor(queue, redis, keys, "w0", ["a@1"]).register()
    try:
        for action, value in actions:
            for one in await worker.claim():
                claimed[one.job.id] = one
            if action == "send":
                fits = sum(counted.values()) + value <= limit
                try:
                    counted[(await client.send(cost=value)).id] = value
                    assert fits
                except RateLimited:
                    assert not fits
            elif action == "done" and claimed:
                job_id, one = claimed.popitem()
                await worker.finish(one, used=value)
                counted[job_id] = value
            elif action == "cancel" and claimed:
                job_id, one = claimed.popitem()
                await queue.cancel(one.job.id)
                await worker.finish(one, JobState.CANCELLED, used=value)
                counted[job_id] = value
            elif action == "die":
                number, claimed = number + 1, {}
                await queue.leave(worker.id)
                worker = await Actor(queue, redis, keys, f"w{number}", ["a@1"]).register()
        tokens = await redis.hget(keys.rate(key_id), "day_tokens")  # type: ignore[misc]
        assert int(tokens or 0) == sum(counted.values())
    finally:
        async for key in redis.scan_iter(match=f"{keys.prefix}*"):
            await redis.delete(key)
        await redis.aclose()
