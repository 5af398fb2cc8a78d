"""Redis is suspended repeatedly for longer than a lease; a job that kills its workers ends."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from functools import partial

import openai
import pytest
from queue_support import eventually
from served_tiny import TinyModels
from servers import Server, lorikeet_up, pid_of
from streams import GreedyStream, check_exact, followed, greedy_streams

from shared.protocol.ids import WorkerId
from shared.protocol.jobs import JobState
from shared.store.redis.connection import Redis, connect
from shared.store.redis.keys import Keys
from shared.store.views.pool_views import PoolViews

STALLS_S = (7, 10, 20)
TIMES = 5
NUM_RUNNING, NUM_WAITING = 12, 40
NUM_WORKERS = 2
PATIENCE_S = 120.0
pytestmark = [pytest.mark.long, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def server(models: TinyModels, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Two workers with the default lease."""
    folder = tmp_path_factory.mktemp("stalls")
    flags = (*models.flags, "--max-num-seqs", str(NUM_RUNNING // NUM_WORKERS), "--drain-s", "1")
    with lorikeet_up(folder, *flags, workers=NUM_WORKERS, redis_folder=folder / "redis") as server:
        yield server


@pytest.fixture
async def redis(server: Server) -> AsyncIterator[Redis]:
    client = connect(server.redis.url)
    yield client
    await client.aclose()


@dataclass
class Poison(GreedyStream):
    """A stream whose job seems to kill its workers; the test kills them."""

    error: str = ""

    async def follow(self, client: openai.AsyncOpenAI) -> None:
        """Follow the stream and keep its error."""
        try:
            await super().follow(client)
        except openai.APIError as error:
            self.error = str(error)


async def num_suspects(redis: Redis) -> int:
    keys = Keys("main")
    jobs = [key async for key in redis.scan_iter(match=f"{keys.prefix}job:*", count=1000)]
    fields = [await redis.hmget(key, ["suspect", "deaths", "fails"]) for key in jobs]
    return sum(any(int(value or 0) for value in each) for each in fields)


@pytest.mark.parametrize("stall_s", STALLS_S)
async def test_a_suspended_redis_makes_no_job_suspect_and_loses_no_worker(
    server: Server, redis: Redis, views: PoolViews, models: TinyModels, stall_s: int
) -> None:
    server.wait_for_workers(NUM_WORKERS)
    for number in range(TIMES):
        streams = greedy_streams(
            NUM_RUNNING + NUM_WAITING, lengths=(300, 400), seed=number + 10, has_chats=True
        )
        num_ended = sum((await views.counts()).totals.values())
        async with followed(server.api_url, streams):
            await eventually(partial(all_are_accepted, views, num_ended), within_s=PATIENCE_S)
            os.kill(server.redis.pid, signal.SIGSTOP)
            await asyncio.sleep(stall_s)
            os.kill(server.redis.pid, signal.SIGCONT)
        await check_exact(streams, views, models)
        counts = await views.counts()
        assert await num_suspects(redis) == 0
        assert counts.totals[JobState.DEAD] == 0
        assert (counts.workers_lost, counts.retried) == (0, 0)
    assert server.metric("lorikeet_resume_diverged_total") == 0


async def all_are_accepted(views: PoolViews, num_ended: int) -> bool:
    """Return whether all streams are accepted, most still wait, and both workers are full."""
    running = sum(worker.running for worker in await views.workers())
    counts = await views.counts()
    num_new = sum(counts.totals.values()) - num_ended
    is_accepted = num_new + running + counts.waiting == NUM_RUNNING + NUM_WAITING
    return is_accepted and running == NUM_RUNNING and counts.waiting >= NUM_WAITING / 2


async def test_only_a_job_that_kills_its_workers_becomes_a_dead_letter(
    server: Server, redis: Redis, views: PoolViews, models: TinyModels
) -> None:
    server.wait_for_workers(NUM_WORKERS)
    streams = greedy_streams(NUM_RUNNING, lengths=(300, 400), seed=77)
    poison, others = Poison(**vars(streams[0])), streams[1:]
    async with followed(server.api_url, [poison, *others]):
        deaths_alone = await kill_workers_of(poison, views, redis)
    assert deaths_alone == 2
    assert "killed its worker 2 times while it ran alone" in poison.error
    await check_exact(others, views, models)


async def kill_workers_of(poison: GreedyStream, views: PoolViews, redis: Redis) -> int:
    """Kill each worker that runs the job until the job is dead.

    Returns the number of workers that were killed while they ran the job alone.
    """
    killed: set[WorkerId] = set()
    deaths_alone = 0

    async def owner() -> WorkerId | str | None:
        view = await views.job(poison.job) if poison.job else None
        if view and view.state is JobState.DEAD:
            return "dead"
        is_new = view and view.state is JobState.RUNNING and view.worker not in killed
        return view.worker if view and is_new else None

    while (found := await eventually(owner, within_s=PATIENCE_S)) != "dead":
        wid = WorkerId(found)
        assert poison.job is not None
        was_suspect = await redis.hget(Keys("main").job(poison.job), "suspect") == b"1"
        killed.add(wid)
        os.kill(pid_of(wid), signal.SIGKILL)
        deaths_alone += was_suspect
    return deaths_alone
