"""Published tokens reach the front ends that follow their job, and survive their worker."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from queue_support import API, LIMITS, Actor, make_job, tokens

from shared.errors import RedisUnavailable
from shared.protocol.events import Admitted, Event, Tokens
from shared.protocol.ids import ApiId
from shared.protocol.jobs import Job, JobState
from shared.protocol.logprobs import PositionLogprobs, TokenLogprob
from shared.protocol.results import FinishReason
from shared.store.jobs import token_streams
from shared.store.jobs.queue import Queue
from shared.store.jobs.sweep import RETURN_MS
from shared.store.jobs.token_streams import ReplyReader, merge, read_checkpoints, recover
from shared.store.redis.connection import Redis
from shared.store.redis.durability import Replication
from shared.store.redis.keys import Keys


async def publish(worker: Actor, *batch: Tokens, checkpoints: tuple[Tokens, ...] = ()) -> None:
    await worker.queue.publish(worker.id, {API: batch}, checkpoints)


async def test_the_reader_gets_all_events_in_order_and_once(
    actor, enqueue, queue: Queue, redis: Redis, keys: Keys
) -> None:
    worker, job = await actor(), await enqueue()
    await worker.claim()
    reader = ReplyReader(redis, keys, API)
    admitted = Admitted(job=job.id, try_=1, prompt_tokens=3)
    pieces = [tokens(job, i, [i], f"ä{i} ") for i in range(3)]
    await queue.publish(worker.id, {API: [admitted, pieces[0]]})
    await publish(worker, pieces[1])
    assert await reader.read() == [admitted, *pieces[:2]]
    await publish(worker, pieces[2])
    assert await reader.read() == [pieces[2]]


async def test_the_reader_waits_for_events(actor, enqueue, redis: Redis, keys: Keys) -> None:
    worker, job = await actor(), await enqueue()
    await worker.claim()
    reading = asyncio.create_task(ReplyReader(redis, keys, API).read())
    piece = tokens(job, 0, [1])
    await publish(worker, piece)
    assert await asyncio.wait_for(reading, 60) == [piece]


async def test_the_reader_returns_when_there_are_no_events(redis: Redis, keys: Keys) -> None:
    assert await asyncio.wait_for(ReplyReader(redis, keys, API).read(), 60) == []


async def test_each_api_process_gets_its_own_events(actor, enqueue, queue: Queue, events) -> None:
    worker = await actor()
    one, two = await enqueue(), await enqueue(reply_to=ApiId("api-2"))
    await worker.claim()
    batches = {API: [tokens(one, 0, [1])], ApiId("api-2"): [tokens(two, 0, [2])]}
    await queue.publish(worker.id, batches)
    for api, batch in batches.items():
        assert await events(api=api) == batch


async def test_reply_streams_are_trimmed_and_expire_unless_they_are_read(
    actor, enqueue, redis: Redis, keys: Keys
) -> None:
    worker, job = await actor(), await enqueue()
    await worker.claim()
    stream = keys.replies(API)
    for i in range(300):
        await redis.xadd(stream, {"e": "old"}, id=f"{1000 + i}-0")
    await publish(worker, tokens(job, 0, [1]))
    assert await redis.xlen(stream) < 100
    assert 110_000 < await redis.pttl(stream) <= 120_000
    await redis.delete(stream)
    await publish(worker, tokens(job, 1, [2]))
    await redis.pexpire(stream, 5000)
    await ReplyReader(redis, keys, API).read()
    assert await redis.pttl(stream) > 50_000


async def test_pieces_merge_to_one_per_choice() -> None:
    job = make_job(n=2)
    stop = FinishReason.STOP
    pieces = [
        tokens(job, 0, [1, 2], "ab"),
        tokens(job, 0, [7], "x", choice=1),
        tokens(job, 1, [2], "b"),
        tokens(job, 2, [3], "c"),
        tokens(job, 5, [9], "far"),
        tokens(job, 3, [], "d", finish=stop),
        tokens(job, 3, [], "d", finish=stop),
        tokens(job, 1, [8], "y", choice=1, try_=2),
    ]
    assert merge(pieces) == (
        tokens(job, 0, [1, 2, 3], "abcd", finish=stop),
        tokens(job, 0, [7, 8], "xy", choice=1, try_=2),
    )
    assert merge(pieces[4:5]) == (), "its start is missing"


@pytest.mark.parametrize("num_checkpointed", [0, 1, 3, 5])
async def test_the_next_owner_recovers_exactly_the_published_tokens(
    actor, enqueue, redis: Redis, keys: Keys, num_checkpointed: int
) -> None:
    worker, job, mate = await actor("w1"), await enqueue(n=2), await enqueue()
    await worker.claim()
    pieces = [
        tokens(job, 0, [10, 11], 'a"\\/\n'),
        tokens(job, 0, [20], "", choice=1),
        tokens(job, 2, [12], "é猫"),
        tokens(job, 1, [21], "x", choice=1),
        tokens(job, 2, [], "yz", choice=1, finish=FinishReason.LENGTH),
        tokens(job, 3, [13], ""),
    ]
    for i, piece in enumerate(pieces):
        kept = merge(pieces[: i + 1]) if i + 1 == num_checkpointed else ()
        await publish(worker, piece, tokens(mate, i, [99], "mate"), checkpoints=kept)
    await worker.die()
    # Recovery doesn't need the reply stream, which is trimmed.
    await redis.delete(keys.replies(API))
    (claimed,) = await (await actor("w2")).claim(sequences=2)
    assert claimed.job.id == job.id
    assert await recover(redis, keys, claimed) == (
        tokens(job, 0, [10, 11, 12, 13], 'a"\\/\né猫'),
        tokens(job, 0, [20, 21], "xyz", choice=1, finish=FinishReason.LENGTH),
    )


def position(token: str, logprob: float | None, *top: tuple[str, float]) -> PositionLogprobs:
    """Return logprobs of a position. The likeliest tokens are special ones, without bytes."""
    return PositionLogprobs(
        chosen=TokenLogprob(token=token, logprob=logprob, bytes=tuple(token.encode())),
        top=tuple(TokenLogprob(token=t, logprob=p, bytes=None) for t, p in top),
        offset=len(token),
    )


@pytest.mark.parametrize("is_checkpointed", [False, True])
async def test_logprobs_survive_the_worker_that_published_them(
    actor, enqueue, events, redis: Redis, keys: Keys, is_checkpointed: bool
) -> None:
    worker, job = await actor("w1"), await enqueue()
    await worker.claim()
    prompt = (position("<s>", None), position("h/\u00e9", -0.1))
    parts = (
        position("", -1e-7, ("<|end|>", -9999.0)),
        position("\ufffd", -12.345678901234, ('"', -0.5)),
    )
    scores = '[null,{"5":{"logprob":-1e-07,"rank":1,"decoded_token":"h/\u00e9\\""}}]'
    of_prompt: dict[str, Any] = {"prompt_logprobs": prompt, "prompt_scores": scores}
    pieces = [
        tokens(job, 0, [1], "a", logprobs=parts[:1], **of_prompt),
        tokens(job, 1, [2], "b", logprobs=parts[1:]),
    ]
    await publish(worker, *pieces, checkpoints=(pieces[0],) if is_checkpointed else ())
    assert await events(job) == pieces
    await worker.die()
    (claimed,) = await (await actor("w2")).claim()
    assert await recover(redis, keys, claimed) == (
        tokens(job, 0, [1, 2], "ab", logprobs=parts, **of_prompt),
    )


async def test_each_choice_is_recovered_from_its_own_last_checkpoint(
    actor, enqueue, redis: Redis, keys: Keys
) -> None:
    worker, job = await actor("w1"), await enqueue(n=3)
    await worker.claim()
    early, late = tokens(job, 0, [10], "a"), tokens(job, 0, [20], "x", choice=1)
    await publish(worker, early, checkpoints=(early,))
    await asyncio.sleep(0.002)  # gives the checkpoints other ids
    await publish(worker, tokens(job, 1, [11], "b"), tokens(job, 0, [30], "q", choice=2))
    await asyncio.sleep(0.002)
    await publish(worker, late, checkpoints=(late,))
    await worker.die()
    (claimed,) = await (await actor("w2")).claim()
    assert [piece.text for piece in await recover(redis, keys, claimed)] == ["ab", "x", "q"]


async def test_the_checkpoints_of_a_job_that_failed_can_be_read(
    actor, enqueue, redis: Redis, keys: Keys
) -> None:
    worker, job = await actor(), await enqueue()
    (claimed,) = await worker.claim()
    pieces = tokens(job, 0, [1], "a"), tokens(job, 1, [2], "b", finish=FinishReason.STOP)
    for piece in pieces:
        await publish(worker, piece, checkpoints=(piece,))
    await worker.finish(claimed, JobState.FAILED)
    assert await read_checkpoints(redis, keys, job.id) == merge(pieces)


async def test_entries_that_were_read_are_deleted(
    actor, enqueue, redis: Redis, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(token_streams, "MAINTAIN_EVERY_S", 0)
    worker, job = await actor(), await enqueue()
    await worker.claim()
    reader = ReplyReader(redis, keys, API)
    for index in range(5):
        await publish(worker, tokens(job, index, [index]))
    assert len(await reader.read()) == 5
    await publish(worker, tokens(job, 5, [5]))
    assert len(await reader.read()) == 1
    assert (
        await redis.xlen(keys.replies(API)) == 2
    )  # the last entry that was read, and its successor


async def test_a_reader_continues_at_its_position_after_an_outage(
    own_server, open_client, keys: Keys
) -> None:
    redis = open_client(own_server.url)
    queue = Queue(redis, keys)
    worker = await Actor(queue, redis, keys, "w1", ["a@1"]).register()
    reader = ReplyReader(redis, keys, API)
    job = make_job()
    await queue.enqueue(job, LIMITS)
    await worker.claim()
    pieces = [tokens(job, i, [i]) for i in range(2)]
    await publish(worker, pieces[0])
    assert await reader.read() == [pieces[0]]
    reading = asyncio.create_task(reader.read())
    await asyncio.sleep(0)
    await redis.client_kill_filter(_type="normal", skipme=True)
    with pytest.raises(RedisUnavailable):
        await reading
    await publish(worker, pieces[1])
    assert await reader.read() == [pieces[1]]


OTHER = ApiId("api-2")
THIRD = ApiId("api-3")
Events = Callable[..., Awaitable[list[Event]]]


async def test_each_event_is_forwarded_once_however_many_jobs_are_followed(
    queue: Queue, actor: Any, enqueue: Any, events: Events
) -> None:
    worker, jobs = await actor(), [await enqueue() for _ in range(3)]
    for job in jobs:
        await queue.attach(job.id, OTHER)
        await queue.attach(job.id, OTHER)
    await worker.claim()
    await queue.publish(worker.id, {API: [tokens(job, 0, [1]) for job in jobs]})
    assert [event.job for event in await events(None, OTHER)] == [job.id for job in jobs]


async def test_only_the_latest_eight_front_ends_are_kept(
    queue: Queue, enqueue: Any, redis: Redis, keys: Keys
) -> None:
    job = await enqueue()
    for number in range(12):
        await queue.attach(job.id, ApiId(f"other-{number}"))
    kept = (await redis.hget(keys.followers, job.id)).decode().split()
    assert kept == [f"other-{number}" for number in range(4, 12)]


async def test_with_strict_durability_an_attachment_waits_for_its_copies(
    enqueue: Any, redis: Redis, keys: Keys
) -> None:
    class NoCopies:
        async def confirm(self, connection: Redis, replication: Replication) -> None:
            raise RedisUnavailable("scripted")

    job = await enqueue()
    strict = Queue(redis, keys, durability=NoCopies())  # type: ignore[arg-type]
    with pytest.raises(RedisUnavailable):
        await strict.attach(job.id, OTHER)
    await strict.attach(make_job().id, OTHER)  # nothing was written


API_DEAD_MS = 60_000
DAY_MS = 86_400_000


class FrontEnds:
    """The front ends of a pool, which report that they live or fall silent."""

    def __init__(self, queue: Queue, redis: Redis, keys: Keys) -> None:
        self.queue, self.redis, self.keys = queue, redis, keys

    async def beat(self, *apis: ApiId) -> list[bool]:
        return [await self.queue.beat_api(api) for api in apis]

    async def let_pass(self, api: ApiId, ms: int = API_DEAD_MS) -> None:
        await self.redis.zincrby(self.keys.apis, -ms, api)

    async def left_ms(self, job: Job) -> float | None:
        """Return the time until the job is cancelled, or None if it isn't abandoned."""
        at = await self.redis.zscore(self.keys.abandoned, job.id)
        seconds, _ = await self.redis.time()
        return None if at is None else at - seconds * 1000


@pytest.fixture
async def front_ends(queue: Queue, redis: Redis, keys: Keys) -> FrontEnds:
    front_ends = FrontEnds(queue, redis, keys)
    await front_ends.beat(API, OTHER, THIRD)
    return front_ends


async def run(queue: Queue, worker: Actor, job: Job) -> None:
    await worker.claim()
    await queue.publish(worker.id, {job.reply_to: [tokens(job, 0, [1])]})


@pytest.mark.parametrize("silent_ms", [0, API_DEAD_MS // 2])
async def test_a_front_end_that_is_silent_for_seconds_is_still_connected(
    queue: Queue, actor: Any, enqueue: Any, front_ends: FrontEnds, silent_ms: int
) -> None:
    worker, job = await actor(), await enqueue()
    await run(queue, worker, job)
    await front_ends.let_pass(API, silent_ms)
    await queue.attach(job.id, OTHER)
    await queue.abandon(job.id, OTHER, grace_ms=0)
    await queue.reap()
    assert await front_ends.left_ms(job) is None
    assert not (await queue.publish(worker.id, {})).cancelled


async def test_a_running_job_of_a_dead_front_end_is_abandoned_with_time_to_come_back(
    queue: Queue, actor: Any, enqueue: Any, redis: Redis, keys: Keys, front_ends: FrontEnds
) -> None:
    worker, job = await actor(), await enqueue()
    await run(queue, worker, job)
    await front_ends.let_pass(API)
    await queue.reap()
    left_ms = await front_ends.left_ms(job)
    assert left_ms is not None
    assert left_ms > RETURN_MS - 5000
    await redis.zincrby(keys.abandoned, -RETURN_MS / 2, job.id)
    await queue.reap()  # a later sweep doesn't prolong the time
    assert (await front_ends.left_ms(job) or RETURN_MS) < 0.6 * RETURN_MS
    await redis.zincrby(keys.abandoned, -RETURN_MS, job.id)
    await queue.reap()
    assert (await queue.publish(worker.id, {})).cancelled == {job.id}
    await queue.reap()
    assert await front_ends.left_ms(job) is None


async def test_a_dead_front_end_is_forgotten_after_a_day(
    redis: Redis, keys: Keys, front_ends: FrontEnds
) -> None:
    await front_ends.let_pass(THIRD, DAY_MS - API_DEAD_MS)
    await front_ends.let_pass(OTHER, DAY_MS)
    await front_ends.beat(API)
    assert await redis.zrange(keys.apis, 0, -1) == [THIRD.encode(), API.encode()]
