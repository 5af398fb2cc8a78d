"""Limits of API keys: tokens are reserved, then charged to the window in which they are used."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from key_support import new_key
from queue_support import LIMITS, make_job

from shared.errors import ErrorCode, JobFailed, RateLimited
from shared.protocol.access.rates import Rate, Unit, Window
from shared.protocol.enqueue import Enqueued, EnqueueOptions, IdempotencyKey
from shared.protocol.jobs import Job
from shared.store.access.key_store import KeyStore
from shared.store.jobs.queue import Queue
from shared.store.redis.connection import Redis
from shared.store.redis.keys import Keys

DAY_MS = 86_400_000


@pytest.fixture
def store(redis: Redis, keys: Keys) -> KeyStore:
    return KeyStore(redis, keys)


class Client:
    def __init__(self, queue: Queue, key_id: str) -> None:
        self.queue, self.key_id = queue, key_id
        self.rates: tuple[Rate, ...] = ()

    async def send(self, cost: int = 10, **options: Any) -> Job:
        job = make_job(tenant="red", cost=cost)
        enqueued: Enqueued = await self.queue.enqueue(
            job, LIMITS, options=EnqueueOptions(key_id=self.key_id, **options)
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


async def test_a_replayed_request_is_charged_once(client: Any) -> None:
    one = await client(requests_per_day=10, tokens_per_day=100)
    key = IdempotencyKey(key="k", body_digest="d")
    for _ in range(3):
        await one.send(idempotency=key)
    assert await one.used() == (1, 10)


@pytest.mark.parametrize("window", Window)
async def test_a_new_window_begins_with_nothing_used(
    client: Any, redis: Redis, keys: Keys, window: Window
) -> None:
    one = await client(**{f"requests_per_{window}": 1})
    await one.send()
    # The window that was counted is over: pretend that it was an earlier one.
    await redis.hincrby(keys.rate(one.key_id), window, -1)  # type: ignore[misc]
    await one.send()


async def turn(client: Client, redis: Redis, keys: Keys, window: Window = Window.DAY) -> None:
    """Begin another window: pretend that the window that was counted was an earlier one."""
    await redis.hincrby(keys.rate(client.key_id), window, -1)  # type: ignore[misc]


async def test_later_windows_pay_what_exceeds_the_limit(
    client: Any, actor: Any, redis: Redis, keys: Keys
) -> None:
    one, worker = await client(tokens_per_day=100), await actor()
    await one.send(cost=10)
    (claimed,) = await worker.claim()
    await worker.finish(claimed, used=350)
    for num_turns in range(3):
        with pytest.raises(RateLimited) as refused:
            await one.send(cost=51)
        wait_s = refused.value.retry_after_s
        assert wait_s is not None
        assert 0 <= (3 - num_turns) * DAY_MS / 1000 + 86_400 - wait_s <= 86_400
        await turn(one, redis, keys)
    with pytest.raises(RateLimited):
        await one.send(cost=51)
    await one.send(cost=50)


@given(limit=st.integers(1, 1000), used=st.integers(0, 5000), data=st.data())
def test_after_the_stated_wait_what_was_needed_is_left(limit: int, used: int, data: Any) -> None:
    needed = data.draw(st.integers(1, limit))
    left_ms = data.draw(st.integers(1, 60_000))
    rate = Rate(unit=Unit.TOKENS, window=Window.MINUTE, limit=limit, used=used, left_ms=left_ms)
    turns = -(-(rate.wait_ms(needed) - left_ms) // 60_000) + 1
    assert max(0, used - turns * limit) + needed <= limit
    assert turns == 1 or max(0, used - (turns - 1) * limit) + needed > limit


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
