"""Limits of API keys: tokens are reserved, then charged to the window in which they are used."""

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st
from key_support import new_key
from queue_support import LIMITS, Actor, make_job, tokens

from shared.errors import ErrorCode, JobFailed, QueueFull, RateLimited
from shared.protocol.access.rates import Rate, Unit, Window
from shared.protocol.enqueue import Enqueued, EnqueueOptions, IdempotencyKey, QueueLimits
from shared.protocol.jobs import ClaimedJob, Job, JobState
from shared.protocol.queue_replies import Standing
from shared.store.access.key_store import KeyStore
from shared.store.jobs.queue import Queue
from shared.store.redis.connection import Redis, connect
from shared.store.redis.keys import Keys
from shared.store.views.pool_views import PoolViews

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


async def publish(actor: Actor, claimed: ClaimedJob, used: int) -> Standing:
    """Publish a token of a job that has used this many tokens so far."""
    token, epochs = tokens(claimed.job, used, [1]), {claimed.job.id: claimed.claim_epoch}
    return await actor.queue.publish(
        actor.id, {}, [token], claim_epochs=epochs, used={claimed.job.id: used}
    )


async def test_tokens_count_in_the_window_in_which_they_were_published(
    client: Any, actor: Any, redis: Redis, keys: Keys
) -> None:
    one, worker = await client(tokens_per_day=100, requests_per_day=10), await actor()
    await one.send(cost=60)
    (claimed,) = await worker.claim()
    assert claimed.token_limit == 100
    await publish(worker, claimed, 20)
    await publish(worker, claimed, 20)  # repeated, since the reply was lost
    await turn(one, redis, keys)
    await publish(worker, claimed, 50)
    with pytest.raises(RateLimited):
        await one.send(cost=61)  # 30 of this window, and 10 that are still reserved
    await worker.finish(claimed, used=55)
    assert await one.used() == (0, 35)


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


async def test_an_answer_beyond_its_reservation_ends_once_the_key_is_far_over_its_limit(
    client: Any, actor: Any, views: PoolViews
) -> None:
    one, worker = await client(tokens_per_day=100), await actor()
    for _ in range(2):
        await one.send(cost=40)
    greedy, modest = await worker.claim()
    assert not (await publish(worker, greedy, 110)).cancelled  # and 40 reserved: at the bound
    assert not (await publish(worker, greedy, 111)).cancelled
    standing = await publish(worker, modest, 40)  # has no more than it reserved
    assert standing.cancelled == {greedy.job.id}
    await worker.finish(greedy, JobState.CANCELLED, used=120)
    view = await views.job(greedy.job.id)
    assert view is not None
    assert view.error is not None
    assert (view.state, view.error.code) == (JobState.CANCELLED, ErrorCode.RATE_LIMIT_EXCEEDED)


async def test_published_tokens_of_a_job_that_is_lost_stay_charged(client: Any, actor: Any) -> None:
    one, worker = await client(tokens_per_day=100, requests_per_day=10), await actor()
    await one.send(cost=50)
    (claimed,) = await worker.claim()
    await publish(worker, claimed, 30)
    await worker.fail(claimed, ErrorCode.INTERNAL)  # without a usage
    assert await one.used() == (1, 30)


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


ACTIONS = "send", "publish", "done", "cancel", "die", "turn"
actions = st.lists(st.tuples(st.sampled_from(ACTIONS), st.integers(1, 120)), max_size=30)


@settings(
    max_examples=50,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
    phases=(Phase.explicit, Phase.generate, Phase.shrink),
)
@example(actions=[("send", 60), ("publish", 120), ("turn", 1), ("publish", 1), ("done", 1)])
@given(actions=actions)
def test_what_windows_were_charged_is_what_jobs_have_used(
    redis_url: str, actions: list[tuple[str, int]]
) -> None:
    asyncio.run(compare_with_model(redis_url, actions))


class Account:
    """Model of a key with a limit of 100 tokens a day."""

    def __init__(self) -> None:
        self.num_paid = 0
        self.used: dict[str, int] = {}
        """Tokens that each job has used, ended ones included."""
        self.reserved: dict[str, int] = {}
        """Tokens that each unfinished job may still use without exceeding its cost."""

    @property
    def tokens(self) -> int:
        """Tokens of the present window, with the debt of earlier ones."""
        return sum(self.used.values()) - self.num_paid

    def turn(self) -> None:
        self.num_paid += min(self.tokens, LIMIT)

    def allows(self, cost: int) -> bool:
        return self.tokens + sum(self.reserved.values()) + cost <= LIMIT

    def use(self, job: str, more: int) -> None:
        self.used[job] = self.used.get(job, 0) + more
        self.reserved[job] = max(0, self.reserved[job] - more)


LIMIT = 100


class Play:
    """A key, a worker and the model of the key's account, on which the same actions act."""

    def __init__(self, redis: Redis, keys: Keys, client: Client, worker: Actor) -> None:
        self.redis, self.keys, self.client, self.worker = redis, keys, client, worker
        self.account, self.num_workers = Account(), 1
        self.claimed: dict[str, ClaimedJob] = {}

    async def act(self, action: str, value: int) -> None:
        self.claimed |= {one.job.id: one for one in await self.worker.claim()}
        if action in ("send", "die", "turn") or self.claimed:
            await getattr(self, action)(value)

    async def send(self, cost: int) -> None:
        fits = self.account.allows(cost)
        try:
            self.account.reserved[(await self.client.send(cost=cost)).id] = cost
            assert fits
        except RateLimited:
            assert not fits

    async def turn(self, _: int) -> None:
        if self.account.used:
            await turn(self.client, self.redis, self.keys)
            self.account.turn()

    async def publish(self, more: int) -> None:
        job_id, claimed = next(iter(self.claimed.items()))
        self.account.use(job_id, more)
        await publish(self.worker, claimed, self.account.used[job_id])

    async def done(self, more: int, state: JobState = JobState.DONE) -> None:
        job_id, claimed = self.claimed.popitem()
        if state is JobState.CANCELLED:
            await self.client.queue.cancel(claimed.job.id)
        self.account.use(job_id, more)
        await self.worker.finish(claimed, state, used=self.account.used[job_id])
        del self.account.reserved[job_id]

    async def cancel(self, more: int) -> None:
        await self.done(more, JobState.CANCELLED)

    async def die(self, _: int) -> None:
        queue, name = self.client.queue, f"w{self.num_workers}"
        self.num_workers, self.claimed = self.num_workers + 1, {}
        await queue.leave(self.worker.id)
        self.worker = await Actor(queue, self.redis, self.keys, name, ["a@1"]).register()

    async def counted(self) -> tuple[int, int]:
        """Return the tokens that Redis counts as used and as reserved in the present window."""
        fields = ["day", "day_tokens", "reserved"]
        raw = await self.redis.hmget(self.keys.rate(self.client.key_id), fields)  # type: ignore[misc]
        day, used, reserved = (int(each or 0) for each in raw)
        today = (await self.redis.time())[0] * 1000 // DAY_MS
        return max(0, used - LIMIT * (today - (day or today))), reserved


async def compare_with_model(redis_url: str, actions: list[tuple[str, int]]) -> None:
    redis, keys = connect(redis_url), Keys(f"test-{uuid.uuid4().hex[:12]}")
    queue = Queue(redis, keys)
    _, key_id = await new_key(KeyStore(redis, keys), tokens_per_day=LIMIT)
    worker = await Actor(queue, redis, keys, "w0", ["a@1"]).register()
    play = Play(redis, keys, Client(queue, key_id), worker)
    try:
        for action, value in actions:
            await play.act(action, value)
            account = play.account
            assert await play.counted() == (account.tokens, sum(account.reserved.values()))
    finally:
        async for key in redis.scan_iter(match=f"{keys.prefix}*"):
            await redis.delete(key)
        await redis.aclose()
