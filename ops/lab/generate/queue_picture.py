"""`python -m ops.lab.generate.queue_picture`: the picture of `lorikeet queue` in ops/docs.

The picture shows the demo on two overloaded workers after half a minute of load.
"""

import asyncio
import io
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from rich.console import Console, RenderableType

from ops.commands.clients.queue import views
from ops.load.distributions import Closed, Length
from ops.load.load import Load, send_load
from ops.local.embedded_redis import start_redis
from ops.local.ports import free_port
from ops.local.up import lorikeet_argv
from ops.pool_client import PoolClient
from ops.server_client import ServerError

PICTURE = Path(__file__).parents[2] / "docs" / "queue.svg"
NUM_WORKERS = 2
CLIENTS = 40
SHOWN_AFTER_S = 30.0
COLUMNS = 128
POLL_S = 0.2


def write_picture() -> None:
    """Put a demo server under load, and write its queue view to `PICTURE`."""
    redis = start_redis(None)
    try:
        port = free_port()
        with _server(redis.url, port):
            asyncio.run(_render(PoolClient(f"http://127.0.0.1:{port}", None)))
    finally:
        redis.stop()


@contextmanager
def _server(redis_url: str, port: int) -> Iterator[None]:
    flags = ["--workers", str(NUM_WORKERS), "--max-num-seqs", "8", "--port", str(port)]
    with subprocess.Popen(
        lorikeet_argv("up", *flags), env={**os.environ, "LORIKEET_REDIS_URL": redis_url}
    ) as process:
        try:
            yield
        finally:
            process.terminate()


async def _render(client: PoolClient) -> None:
    names = await _served_names(client)
    load = Load(
        url=f"{client.url}/v1",
        models=tuple(names),
        arrivals=Closed(clients=CLIENTS),
        requests=10**6,
        input_words=Length(32, 32),
        output_tokens=Length(32, 32),
    )
    task = asyncio.create_task(send_load(load))
    try:
        shown = await asyncio.to_thread(_last_view, client)
    finally:
        task.cancel()
    console = Console(record=True, width=COLUMNS, file=io.StringIO())
    console.print(shown)
    console.save_svg(str(PICTURE), title="lorikeet queue --watch")


def _last_view(client: PoolClient) -> RenderableType:
    end_s = time.monotonic() + SHOWN_AFTER_S
    return next(view for view in views(client) if time.monotonic() > end_s)


async def _served_names(client: PoolClient) -> list[str]:
    """Wait until all workers have joined the pool, and return the names of the served models."""
    while True:
        await asyncio.sleep(POLL_S)
        with suppress(ServerError):
            if len((await asyncio.to_thread(client.pool))["workers"]) == NUM_WORKERS:
                return await asyncio.to_thread(client.models)


if __name__ == "__main__":
    write_picture()
