"""Process that sends streams: to front ends inside of it, or over HTTP to an API process.

`python -m ops.bench.scale.hosts.stream_host ADAPTERS --redis-url URL --pool POOL --apps N`
`python -m ops.bench.scale.hosts.stream_host ADAPTERS --port PORT`
"""

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict
from typing import Annotated, Any

import typer

from api.app import create_app
from ops.bench.scale.hosts.host_process import serve_commands
from ops.bench.scale.hosts.registered_adapters import adapter_name
from ops.bench.scale.streams.app_client import AppClient
from ops.bench.scale.streams.http_client import HttpClient, allow_many_connections
from ops.bench.scale.streams.stream_load import Models, Send, StreamLoad
from shared.log import configure_logging
from shared.settings import ApiSettings, load_settings

ZIPF_S = 1.0


class StreamHost:
    """The load of this process."""

    def __init__(self, sends: Sequence[Send], num_adapters: int) -> None:
        names = [adapter_name(number) for number in range(num_adapters)]
        self._load = StreamLoad(sends, Models(names, ZIPF_S))

    async def run(self) -> None:
        """Send until standard input is closed."""
        await serve_commands(self._handle)
        await self._load.stop()

    async def _handle(self, command: dict[str, Any]) -> Any:
        load = self._load
        match command["command"]:
            case "resize":
                load.resize(command["streams"], command["tokens"])
                return None
            case "drain":
                await load.drain()
                return None
            case "totals":
                return asdict(load.totals)
            case "arrived":
                taken, load.arrivals = load.arrivals, []
                return taken
        raise ValueError(command)


async def _run_apps(settings: ApiSettings, num_apps: int, num_adapters: int) -> None:
    async with AsyncExitStack() as stack:
        apps = [create_app(settings) for _ in range(num_apps)]
        for app in apps:
            await stack.enter_async_context(app.router.lifespan_context(app))
        await StreamHost([AppClient(app).send for app in apps], num_adapters).run()


async def _run_http(port: int, num_adapters: int) -> None:
    client = HttpClient(port)
    await StreamHost([client.send], num_adapters).run()
    await client.close()


def main(
    adapters: Annotated[int, typer.Argument(help="Number of registered adapters.")],
    port: Annotated[int, typer.Option(help="Port of an API process.")] = 0,
    redis_url: Annotated[str, typer.Option(help="URL of Redis.")] = "",
    pool: Annotated[str, typer.Option(help="Name of the pool.")] = "",
    apps: Annotated[int, typer.Option(help="Number of front ends in this process.")] = 1,
) -> None:
    """Send streams as commanded until standard input is closed."""
    configure_logging("error", process="streams")
    allow_many_connections()
    if port:
        asyncio.run(_run_http(port, adapters))
    else:
        settings = load_settings(ApiSettings, redis_url=redis_url, pool=pool)
        asyncio.run(_run_apps(settings, apps, adapters))


if __name__ == "__main__":
    typer.run(main)
