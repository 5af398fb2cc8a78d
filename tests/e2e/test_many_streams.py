"""200 streams at a time, over the base and three adapters: exact, whole, and none mixed up."""

import asyncio
from pathlib import Path

import openai
from queue_support import eventually
from served_tiny import TinyModels
from servers import Server, lorikeet_worker
from streams import GreedyStream, check_exact, greedy_streams

from shared.store.queue import Queue

NUM_STREAMS = 200
LENGTHS = (1, 60)


async def follow_all(client: openai.AsyncOpenAI, *, seed: int) -> list[GreedyStream]:
    streams = greedy_streams(NUM_STREAMS, lengths=LENGTHS, seed=seed, may_stop=True)
    async with asyncio.TaskGroup() as group:
        for stream in streams:
            group.create_task(stream.follow(client))
    return streams


async def tokens_of_workers(queue: Queue) -> dict[str, int]:
    return {worker.id: worker.info.tokens_total for worker in await queue.workers()}


async def test_200_streams_of_one_worker_show_the_answers_of_the_reference(
    client: openai.AsyncOpenAI, queue: Queue, models: TinyModels
) -> None:
    streams = await follow_all(client, seed=1)
    await check_exact(streams, queue, models)


async def test_200_streams_of_two_workers_show_the_answers_of_the_reference(
    server: Server, client: openai.AsyncOpenAI, queue: Queue, models: TinyModels, tmp_path: Path
) -> None:
    with lorikeet_worker(server, tmp_path, *models.flags):
        before = await tokens_of_workers(queue)
        streams = await follow_all(client, seed=2)
        await check_exact(streams, queue, models)

        async def both_have_worked() -> bool:
            now = await tokens_of_workers(queue)
            return len(now) == 2 and all(now[worker] > before[worker] for worker in before)

        await eventually(both_have_worked)
