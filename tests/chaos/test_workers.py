"""Workers and Redis are killed, suspended or drained during streams; no answer changes."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager

import openai
import pytest
from openai.types import Completion
from queue_support import eventually
from served_tiny import BASE, NAMES, TinyModels
from servers import Server, lorikeet_up, pid_of
from streams import GreedyStream, check_exact, followed, greedy_streams

from shared.protocol.ids import JobId, WorkerId
from shared.store.views.pool_views import PoolViews, WorkerView

NUM_WORKERS = 2
FLAGS = ("--lease-ms", "1500", "--drain-s", "0.3", "--max-num-seqs", "32")
"""With --max-num-seqs 32 one worker can't run all streams of a test."""
NUM_STREAMS = 50
NUM_SAMPLED = 16
LENGTHS = (200, 400)
NUM_WITHOUT_REDIS = 12
DOWN_S = 5.0
PATIENCE_S = 60.0
EXITED_CLEANLY = "ended (exit code 0)"


@pytest.fixture(scope="module")
def running_server(
    models: TinyModels, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """A server with two workers and a short lease. The tests share it."""
    folder = tmp_path_factory.mktemp("server")
    flags = (*models.flags, *FLAGS)
    with lorikeet_up(folder, *flags, workers=NUM_WORKERS, redis_folder=folder / "redis") as server:
        yield server
        assert "Traceback" not in server.log_text()


@pytest.fixture
def server(running_server: Server) -> Server:
    """The shared server, once all its workers are registered."""
    running_server.wait_for_workers(NUM_WORKERS)
    return running_server


@pytest.mark.slow
async def test_the_streams_of_a_killed_worker_continue_without_a_gap(
    server: Server, views: PoolViews, models: TinyModels
) -> None:
    async with streams_in_progress(server, views, seed=1) as (streams, victim):
        os.kill(pid_of(victim), signal.SIGKILL)
    await check_exact(streams, views, models)
    assert await num_moved(streams, views) > 0
    assert server.metric("lorikeet_resume_diverged_total") == 0


@pytest.mark.slow
async def test_sampled_answers_are_the_same_with_and_without_a_kill(
    server: Server, client: openai.AsyncOpenAI, views: PoolViews
) -> None:
    async with asyncio.TaskGroup() as group:
        with_kill = [group.create_task(sample(client, seed)) for seed in range(NUM_SAMPLED)]
        busy = await eventually(lambda: two_busy_workers(views), within_s=PATIENCE_S)
        os.kill(pid_of(busy[0]), signal.SIGKILL)
    moved = [await views.job(job_of(task.result())) for task in with_kill]
    assert any(view.try_ > 1 for view in moved if view)
    without = await asyncio.gather(*(sample(client, seed) for seed in range(NUM_SAMPLED)))
    assert [task.result().choices for task in with_kill] == [answer.choices for answer in without]


@pytest.mark.long
async def test_the_streams_of_a_suspended_worker_continue_and_it_adds_nothing_later(
    server: Server, views: PoolViews, models: TinyModels
) -> None:
    async with streams_in_progress(server, views, seed=2) as (streams, victim):
        os.kill(pid_of(victim), signal.SIGSTOP)
        try:
            await eventually(lambda: is_reaped(victim, views), within_s=PATIENCE_S)
        finally:
            os.kill(pid_of(victim), signal.SIGCONT)
    await check_exact(streams, views, models)
    assert await num_moved(streams, views) > 0
    assert server.metric("lorikeet_resume_diverged_total") == 0
    again = await eventually(lambda: registered_again(victim, views), within_s=PATIENCE_S)
    assert again.info.counters["lease_losses"] > 0


@pytest.mark.long
async def test_a_drained_worker_releases_its_streams_and_exits_cleanly(
    server: Server, views: PoolViews, models: TinyModels
) -> None:
    num_ends = server.log_text().count(EXITED_CLEANLY)
    async with streams_in_progress(server, views, seed=3) as (streams, victim):
        os.kill(pid_of(victim), signal.SIGTERM)
    await check_exact(streams, views, models)
    assert await num_moved(streams, views) > 0
    assert server.metric("lorikeet_resume_diverged_total") == 0
    await eventually(lambda: server.log_text().count(EXITED_CLEANLY) == num_ends + 1)


@pytest.mark.slow
async def test_running_streams_survive_a_restart_of_redis_and_new_requests_get_a_503(
    server: Server, client: openai.AsyncOpenAI, views: PoolViews, models: TinyModels
) -> None:
    streams = greedy_streams(NUM_WITHOUT_REDIS, lengths=LENGTHS, seed=4, has_chats=True)

    async def all_are_running() -> bool:
        return all(stream.is_in_progress for stream in streams)

    async with followed(server.api_url, streams):
        await eventually(all_are_running)
        server.kill_redis()
        end = time.monotonic() + DOWN_S
        while time.monotonic() < end:
            await expect_unavailable(client)
        assert not any(stream.finish for stream in streams)
        server.start_redis_again()
    await check_exact(streams, views, models)
    assert server.metric("lorikeet_resume_diverged_total") == 0
    answer = await client.completions.create(model=BASE, prompt="hello", max_tokens=3)
    assert answer.choices[0].finish_reason


async def expect_unavailable(client: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.InternalServerError) as caught:
        await client.completions.create(model=BASE, prompt="hello", timeout=30)
    assert caught.value.status_code == 503
    assert caught.value.code == "service_unavailable"
    assert caught.value.type == "server_error"
    assert int(caught.value.response.headers["Retry-After"]) > 0


@asynccontextmanager
async def streams_in_progress(
    server: Server, views: PoolViews, *, seed: int
) -> AsyncIterator[tuple[list[GreedyStream], WorkerId]]:
    """Start streams on two workers, and wait at exit until all have ended.

    Yields the streams and one of the workers, once half of the streams have received text.
    """
    streams = greedy_streams(NUM_STREAMS, lengths=LENGTHS, seed=seed, has_chats=True)

    async def busy_worker() -> WorkerId | None:
        if sum(stream.is_in_progress for stream in streams) < NUM_STREAMS / 2:
            return None
        busy = await two_busy_workers(views)
        assert busy
        return busy[0]

    async with followed(server.api_url, streams):
        yield streams, await eventually(busy_worker, within_s=PATIENCE_S)


async def sample(client: openai.AsyncOpenAI, seed: int) -> Completion:
    """Request three long answers without streaming."""
    return await client.completions.create(
        model=NAMES[seed % len(NAMES)],
        prompt="Once upon a time",
        seed=seed,
        n=3,
        max_tokens=200,
        frequency_penalty=seed % 3 * 0.3,
        extra_body={"ignore_eos": True},
    )


def job_of(answer: Completion) -> JobId:
    return JobId(answer.id.removeprefix("cmpl-"))


async def two_busy_workers(views: PoolViews) -> list[WorkerId] | None:
    """Return both workers if both run jobs, else None."""
    busy = [worker.id for worker in await views.workers() if worker.running]
    return busy if len(busy) == 2 else None


async def num_moved(streams: Sequence[GreedyStream], views: PoolViews) -> int:
    jobs = [await views.job(stream.job) for stream in streams if stream.job]
    return sum(job.try_ > 1 for job in jobs if job)


async def is_reaped(worker: WorkerId, views: PoolViews) -> bool:
    return worker not in {other.id for other in await views.workers()}


async def registered_again(worker: WorkerId, views: PoolViews) -> WorkerView | None:
    """Return the view of the worker's process under another id, if it has registered again."""
    workers = await views.workers()
    same = [v for v in workers if pid_of(v.id) == pid_of(worker) and v.id != worker]
    return same[0] if same else None
