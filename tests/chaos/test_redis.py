"""While Redis is down for five seconds, new requests get a 503; running streams complete."""

import time

import openai
import pytest
from queue_support import eventually
from served_tiny import BASE, TinyModels
from servers import Server
from streams import check_exact, followed, greedy_streams

from shared.store.views.pool_views import PoolViews

NUM_STREAMS = 12
LENGTHS = (200, 400)
DOWN_S = 5.0
pytestmark = pytest.mark.slow


async def test_running_streams_survive_a_restart_of_redis_and_new_requests_get_a_503(
    server: Server, client: openai.AsyncOpenAI, views: PoolViews, models: TinyModels
) -> None:
    streams = greedy_streams(NUM_STREAMS, lengths=LENGTHS, seed=4, has_chats=True)

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
        await client.completions.create(model=BASE, prompt="hello", timeout=3)
    assert caught.value.status_code == 503
    assert caught.value.code == "service_unavailable"
    assert caught.value.type == "server_error"
    assert int(caught.value.response.headers["Retry-After"]) > 0
