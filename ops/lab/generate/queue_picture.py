"""`python -m ops.lab.generate.queue_picture`: the picture of `lorikeet queue` in ops/docs.

The picture shows the demo on two overloaded workers after half a minute of load.
"""

import asyncio
import io
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from rich.console import Console

from ops.commands.pool import Pool, on_pool
from ops.commands.queue import views
from ops.load.distributions import Closed, Length
from ops.load.load import Load, send_load
from ops.local.embedded_redis import start_redis
from ops.local.ports import free_port
from ops.local.up import lorikeet_argv
from ops.server_client import ServerClient, ServerError

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
            on_pool(
                {"redis_url": redis.url}, lambda pool: _render(pool, f"http://127.0.0.1:{port}")
            )
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


async def _render(pool: Pool, url: str) -> None:
    names = await _served_names(pool, url)
    load = Load(
        url=f"{url}/v1",
        models=tuple(names),
        arrivals=Closed(clients=CLIENTS),
        requests=10**6,
        input_words=Length(32, 32),
        output_tokens=Length(32, 32),
    )
    task = asyncio.create_task(send_load(load))
    try:
        with suppress(TimeoutError):
            async with asyncio.timeout(SHOWN_AFTER_S):
                async for view in views(pool):
                    shown = view
    finally:
        task.cancel()
    console = Console(record=True, width=COLUMNS, file=io.StringIO())
    console.print(shown)
    console.save_svg(str(PICTURE), title="lorikeet queue --watch")


async def _served_names(pool: Pool, url: str) -> list[str]:
    """Wait until all workers have joined the pool, and return the names of the served models."""
    while True:
        await asyncio.sleep(POLL_S)
        if len(await pool.views.workers()) == NUM_WORKERS:
            with suppress(ServerError):
                return await asyncio.to_thread(ServerClient(url, None).models)


if __name__ == "__main__":
    write_picture()
