"""Workers that die, freeze or are told to go, in the middle of 50 streams: no client notices."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import openai
from openai.types import Completion
from queue_support import eventually
from served_tiny import NAMES, TinyModels
from servers import Server
from streams import GreedyStream, check_exact, followed, greedy_streams

from shared.protocol.ids import JobId, WorkerId
from shared.store.pool_views import WorkerView
from shared.store.queue import Queue

NUM_STREAMS = 50
NUM_SAMPLED = 16
LENGTHS = (200, 400)
PATIENCE_S = 60.0
ENDED_WELL = "ended (exit code 0)"


async def test_a_killed_workers_streams_go_on_where_they_were(
    server: Server, queue: Queue, models: TinyModels
) -> None:
    async with half_shown_streams(server, queue, seed=1) as (streams, victim):
        os.kill(pid_of(victim), signal.SIGKILL)
    await check_exact(streams, queue, models)
    assert await num_moved(streams, queue) > 0
    assert server.metric("lorikeet_resume_diverged_total") == 0


async def test_sampled_answers_are_the_same_with_and_without_a_kill(
    server: Server, client: openai.AsyncOpenAI, queue: Queue
) -> None:
    async with asyncio.TaskGroup() as group:
        with_kill = [group.create_task(sample(client, seed)) for seed in range(NUM_SAMPLED)]
        busy = await eventually(lambda: two_busy_workers(queue), within_s=PATIENCE_S)
        os.kill(pid_of(busy[0]), signal.SIGKILL)
    moved = [await queue.job_view(job_of(task.result())) for task in with_kill]
    assert any(view.try_ > 1 for view in moved if view)
    without = await asyncio.gather(*(sample(client, seed) for seed in range(NUM_SAMPLED)))
    assert [task.result().choices for task in with_kill] == [answer.choices for answer in without]


async def test_a_frozen_workers_streams_go_on_elsewhere_and_it_adds_nothing_later(
    server: Server, queue: Queue, models: TinyModels
) -> None:
    async with half_shown_streams(server, queue, seed=2) as (streams, victim):
        os.kill(pid_of(victim), signal.SIGSTOP)
        try:
            await eventually(lambda: is_given_up(victim, queue), within_s=PATIENCE_S)
        finally:
            os.kill(pid_of(victim), signal.SIGCONT)
    await check_exact(streams, queue, models)
    assert await num_moved(streams, queue) > 0
    assert server.metric("lorikeet_resume_diverged_total") == 0
    back = await eventually(lambda: registered_anew(victim, queue), within_s=PATIENCE_S)
    assert back.info.counters["lease_losses"] > 0


async def test_a_drained_worker_hands_its_streams_on_and_ends_well(
    server: Server, queue: Queue, models: TinyModels
) -> None:
    num_ends = server.log_text().count(ENDED_WELL)
    async with half_shown_streams(server, queue, seed=3) as (streams, victim):
        os.kill(pid_of(victim), signal.SIGTERM)
    await check_exact(streams, queue, models)
    assert await num_moved(streams, queue) > 0
    assert server.metric("lorikeet_resume_diverged_total") == 0
    await eventually(lambda: has_ended_well(server, num_ends + 1))


@asynccontextmanager
async def half_shown_streams(
    server: Server, queue: Queue, *, seed: int
) -> AsyncIterator[tuple[list[GreedyStream], WorkerId]]:
    """Streams of which half have shown text, on two workers, and one of these; waits for all."""
    streams = greedy_streams(NUM_STREAMS, lengths=LENGTHS, seed=seed)

    async def busy_worker() -> WorkerId | None:
        if sum(stream.is_going_on for stream in streams) < NUM_STREAMS / 2:
            return None
        busy = await two_busy_workers(queue)
        assert busy
        return busy[0]

    async with followed(server.api_url, streams):
        yield streams, await eventually(busy_worker, within_s=PATIENCE_S)


async def sample(client: openai.AsyncOpenAI, seed: int) -> Completion:
    """Three long answers that aren't streamed."""
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


async def two_busy_workers(queue: Queue) -> list[WorkerId] | None:
    """Both workers, once both hold jobs."""
    busy = [worker.id for worker in await queue.workers() if worker.running]
    return busy if len(busy) == 2 else None


def pid_of(worker: WorkerId) -> int:
    return int(worker.split(":")[1])


async def num_moved(streams: Sequence[GreedyStream], queue: Queue) -> int:
    """Streams that more than one worker computed."""
    views = [await queue.job_view(stream.job) for stream in streams if stream.job]
    return sum(view.try_ > 1 for view in views if view)


async def has_ended_well(server: Server, times: int) -> bool:
    """Whether so many workers have, by what the supervisor says."""
    return server.log_text().count(ENDED_WELL) == times


async def is_given_up(worker: WorkerId, queue: Queue) -> bool:
    return worker not in {other.id for other in await queue.workers()}


async def registered_anew(worker: WorkerId, queue: Queue) -> WorkerView | None:
    """The same process under another id."""
    views = await queue.workers()
    same = [v for v in views if pid_of(v.id) == pid_of(worker) and v.id != worker]
    return same[0] if same else None
