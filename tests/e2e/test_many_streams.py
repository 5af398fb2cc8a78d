"""200 concurrent streams over the base and three adapters are exact and complete."""

import asyncio

import openai
from served_tiny import TinyModels
from streams import check_exact, greedy_streams

from shared.store.views.pool_views import PoolViews

NUM_STREAMS = 200
LENGTHS = (1, 60)


async def test_200_streams_of_one_worker_match_the_reference(
    client: openai.AsyncOpenAI, views: PoolViews, models: TinyModels
) -> None:
    streams = greedy_streams(NUM_STREAMS, lengths=LENGTHS, seed=1, may_stop=True)
    async with asyncio.TaskGroup() as group:
        for stream in streams:
            group.create_task(stream.follow(client))
    await check_exact(streams, views, models)
