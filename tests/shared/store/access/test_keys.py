"""Stored API keys: their rights, their limits by window, and the ledger of what they use."""

import re
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from key_support import new_key
from queue_support import LIMITS, make_job

from shared.errors import ErrorCode, JobFailed, RateLimited
from shared.protocol.access.rates import Rate, Unit, Window
from shared.protocol.access.rights import Access, KeyLimits, Scope
from shared.protocol.enqueue import Enqueued, EnqueueOptions, IdempotencyKey
from shared.protocol.jobs import Job
from shared.store.access.key_store import KeyStore
from shared.store.access.ledger import Ledger
from shared.store.access.secret import digest_of, id_of
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


@pytest.fixture
def ledger(redis: Redis, keys: Keys) -> Ledger:
    return Ledger(redis, keys)


async def test_entries_expire_after_the_days_of_the_setting(
    actor: Any, enqueue: Any, ledger: Ledger, redis: Redis, keys: Keys
) -> None:
    worker = await actor()
    await enqueue(tenant="red")
    (claimed,) = await worker.claim()
    await worker.finish(claimed)
    today = (await redis.time())[0] * 1000 // DAY_MS
    for key in (keys.ledger(today, "red"), keys.ledger_tenants(today)):
        assert await redis.pexpiretime(key) == (today + 1 + LIMITS.usage_days) * DAY_MS


async def test_thousands_of_models_are_read_completely(
    redis: Redis, keys: Keys, ledger: Ledger
) -> None:
    today = await ledger.today()
    number = (await redis.time())[0] * 1000 // DAY_MS
    for tenant in ("red", "blue"):
        rows = {f"m{model:04}": f"{model} 1 2 3" for model in range(3000)}
        await redis.hset(keys.ledger(number, tenant), mapping=rows)  # type: ignore[misc]
    entries = await ledger.entries(today, ["red", "blue", "nobody"])
    assert [(entry.tenant, entry.used.requests) for entry in entries] == [
        (tenant, model) for tenant in ("blue", "red") for model in range(3000)
    ]


RIGHTS = Access(
    tenant="red", scopes=frozenset({Scope.INFERENCE, Scope.ADAPTERS}), models=("sql-*", "base")
)


async def test_a_new_key_is_found_by_its_secret_with_all_its_rights(store: KeyStore) -> None:
    key, secret = await store.create(RIGHTS, KeyLimits(tokens_per_day=7))
    assert re.fullmatch(r"lk-[0-9a-f]{12}-[A-Za-z0-9_-]{43}", secret)
    found = await store.find(secret)
    assert found == Access(tenant="red", scopes=RIGHTS.scopes, models=RIGHTS.models, key_id=key.id)
    assert key.limits == KeyLimits(tokens_per_day=7)
    assert await store.read(key.id) == key
    assert await store.all() == [key]


async def test_redis_has_the_digest_and_not_the_secret(
    store: KeyStore, redis: Redis, keys: Keys
) -> None:
    secret, key_id = await new_key(store)
    record = await redis.hgetall(keys.access_key(key_id))  # type: ignore[misc]
    assert record[b"digest"].decode() == digest_of(secret)
    assert secret.rpartition("-")[2] not in str(record)


async def test_only_the_exact_secret_is_accepted(store: KeyStore) -> None:
    secret, _ = await new_key(store)
    same_id = secret[:-43] + "x" * 43
    for wrong in (same_id, secret[:-1], secret + "x", secret.upper(), "", "lk-"):
        assert await store.find(wrong) is None
    assert id_of(same_id) == id_of(secret)


async def test_a_revoked_key_is_refused_and_stays_listed(store: KeyStore) -> None:
    secret, key_id = await new_key(store)
    kept, kept_id = await new_key(store)
    assert await store.revoke(key_id)
    listed = {key.id: key for key in await store.all()}
    assert await store.find(secret) is None
    assert listed[key_id].revoked_ms is not None
    assert listed[kept_id].revoked_ms is None
    assert await store.find(kept)
    assert await store.revoke(key_id)
    assert await store.read(key_id) == listed[key_id]  # the first time counts
    assert not await store.revoke("0" * 12)


async def test_an_expired_key_is_refused(store: KeyStore, redis: Redis, keys: Keys) -> None:
    key, secret = await store.create(RIGHTS, KeyLimits(), lifetime_ms=60_000)
    assert key.expires_ms == key.created_ms + 60_000
    assert await store.find(secret)
    await redis.hset(keys.access_key(key.id), "expires_ms", key.created_ms)  # type: ignore[misc]
    assert await store.find(secret) is None


async def test_a_scope_of_a_later_release_is_ignored(
    store: KeyStore, redis: Redis, keys: Keys
) -> None:
    secret, key_id = await new_key(store)
    await redis.hset(keys.access_key(key_id), "scopes", "inference telepathy")  # type: ignore[misc]
    found = await store.find(secret)
    assert found is not None
    assert found.scopes == {Scope.INFERENCE}


async def test_keys_are_demanded_from_the_first_one_on_until_the_pool_is_opened(
    store: KeyStore,
) -> None:
    assert await store.demanded() is None
    secret, key_id = await new_key(store)
    await store.revoke(key_id)
    assert await store.demanded() is True
    secret, _ = await new_key(store)
    await store.open()
    assert await store.demanded() is False
    assert await store.find(secret) is None
    await new_key(store)
    assert await store.demanded() is True


def test_patterns_match_whole_names() -> None:
    assert RIGHTS.allows("base")
    assert RIGHTS.allows("sql-2")
    assert not RIGHTS.allows("a-sql-2")
    assert not RIGHTS.allows("BASE")
