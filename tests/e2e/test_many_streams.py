"""200 concurrent streams over the base and three adapters are exact and complete."""

import asyncio
from pathlib import Path

import openai
import pytest
from queue_support import eventually
from served_tiny import TinyModels
from servers import Server, lorikeet_worker
from streams import GreedyStream, check_exact, greedy_streams

from shared.store.views.pool_views import PoolViews

NUM_STREAMS = 200
LENGTHS = (1, 60)


async def follow_all(client: openai.AsyncOpenAI, *, seed: int) -> list[GreedyStream]:
    streams = greedy_streams(NUM_STREAMS, lengths=LENGTHS, seed=seed, may_stop=True)
    async with asyncio.TaskGroup() as group:
        for stream in streams:
            group.create_task(stream.follow(client))
    return streams


async def tokens_of_workers(views: PoolViews) -> dict[str, int]:
    return {worker.id: worker.info.tokens_total for worker in await views.workers()}


async def test_200_streams_of_one_worker_match_the_reference(
    client: openai.AsyncOpenAI, views: PoolViews, models: TinyModels
) -> None:
    streams = await follow_all(client, seed=1)
    await check_exact(streams, views, models)


@pytest.mark.slow
async def test_200_streams_of_two_workers_match_the_reference(
    server: Server,
    client: openai.AsyncOpenAI,
    views: PoolViews,
    models: TinyModels,
    tmp_path: Path,
) -> None:
    with lorikeet_worker(server, tmp_path, *models.flags):
        before = await tokens_of_workers(views)
        streams = await follow_all(client, seed=2)
        await check_exact(streams, views, models)

        async def both_have_worked() -> bool:
            now = await tokens_of_workers(views)
            return len(now) == 2 and all(now[worker] > before[worker] for worker in before)

        await eventually(both_have_worked)
