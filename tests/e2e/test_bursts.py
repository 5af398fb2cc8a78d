"""Many requests that arrive at the same moment."""

import asyncio
from collections import Counter
from pathlib import Path

import orjson
import pytest
from servers import lorikeet_up

from ops.lab.bench.streams.http_client import HttpClient, allow_many_connections
from ops.lab.bench.streams.received_stream import ReceivedStream
from ops.lab.bench.streams.stream_load import body_of

NUM_REQUESTS = 2000
BASE = "simulated"


@pytest.mark.long
async def test_2000_requests_that_arrive_at_once_are_all_answered(tmp_path: Path) -> None:
    allow_many_connections()
    with lorikeet_up(tmp_path, BASE, "--engine", "simulated") as server:
        client = HttpClient(int(server.url.rpartition(":")[2]))
        body = orjson.dumps(body_of(BASE, 1, "a prompt"))

        async def send() -> str | int:
            received = ReceivedStream()
            await client.send(body, received)
            return received.error or received.status

        results = Counter(await asyncio.gather(*(send() for _ in range(NUM_REQUESTS))))
        await client.close()
    assert results == {200: NUM_REQUESTS}
