"""A large pool with simulated engines: one Redis, many workers, and the front ends of a cluster.

The workers are `worker.service.Worker` objects, hundreds of them per process. The front ends are
whole apps, several per process, and the load generator calls them there without HTTP. A further
API process serves the same load over HTTP.
"""

import asyncio
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ops.bench.measurement_process import MeasurementFailed
from ops.bench.scale.cpu_times import Part
from ops.bench.scale.hosts.host_process import HostProcess
from ops.bench.scale.hosts.registered_adapters import register_adapters
from ops.bench.scale.key_bytes import KindBytes, bytes_by_kind
from ops.bench.scale.processes import api_process, num_workers
from ops.local.embedded_redis import start_redis
from shared.store.redis.connection import connect
from shared.store.redis.keys import Keys

POOL = "main"
START_TIMEOUT_S = 120.0
POLL_S = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolSize:
    """Sizes of the pool."""

    workers: int
    worker_processes: int
    front_ends: int
    front_end_processes: int
    adapters: int
    step_ms: int
    """Duration of an engine's step. Each step gives each running job one token."""
    sequences: int
    """Maximum number of jobs that run on one worker."""


@dataclass(frozen=True, slots=True)
class ScalePool:
    """The running pool."""

    size: PoolSize
    url: str
    """URL of Redis."""
    worker_hosts: Sequence[HostProcess]
    app_hosts: Sequence[HostProcess]
    """Processes of the front ends that are called without HTTP."""
    http_host: HostProcess
    """Client of the API process."""
    parts: dict[str, Part]
    """Parts whose CPU time is measured."""

    def hosts(self, *, over_http: bool) -> Sequence[HostProcess]:
        """Return the processes that send a load."""
        return [self.http_host] if over_http else self.app_hosts

    def drain(self) -> None:
        """Wait for the end of all running answers."""
        for host in (*self.app_hosts, self.http_host):
            host.ask("drain")

    def key_bytes(self) -> dict[str, KindBytes]:
        """Return the memory of all keys in Redis by kind."""
        return asyncio.run(_key_bytes(self.url))

    def command_stats(self) -> dict[str, dict[str, float]]:
        """Return Redis' statistics of each command, those inside of scripts included."""
        return asyncio.run(_command_stats(self.url))

    def num_lease_losses(self) -> int:
        """Return the number of leases that workers have lost."""
        return sum(host.ask("lease_losses") for host in self.worker_hosts)


@contextmanager
def scale_pool(size: PoolSize, scratch: Path) -> Iterator[ScalePool]:
    """Run a pool. Its processes write their logs to `scratch`.

    Raises:
        MeasurementFailed: a process of the pool ended, or not all workers entered the pool.
    """
    with ExitStack() as stack:
        redis = start_redis(None)
        stack.callback(redis.stop)

        def host(number: int, module: str, *arguments: object) -> HostProcess:
            log = scratch / f"{module}-{number}.log"
            return stack.enter_context(HostProcess(module, *map(str, arguments), log=log))

        each = size.workers // size.worker_processes
        work = (redis.url, POOL, each, size.step_ms, size.sequences)
        workers = [host(n, "hosts.worker_host", *work) for n in range(size.worker_processes)]
        _wait_for_workers(redis.url, each * size.worker_processes, workers)
        # The API process starts before it would have to list all adapters.
        api = stack.enter_context(api_process(redis.url, POOL, scratch))
        asyncio.run(register_adapters(redis.url, POOL, size.adapters))
        flags = ("--redis-url", redis.url, "--pool", POOL)
        apps = ("--apps", size.front_ends // size.front_end_processes)
        fronts = [
            host(n, "hosts.stream_host", size.adapters, *flags, *apps)
            for n in range(size.front_end_processes)
        ]
        http = host(
            size.front_end_processes, "hosts.stream_host", size.adapters, "--port", api.port
        )
        threads = {one.pid: one.ask("engine_threads") for one in workers}
        for one in (*fronts, http):
            one.ask("totals")  # the process has started
        yield ScalePool(
            size=size,
            url=redis.url,
            worker_hosts=workers,
            app_hosts=fronts,
            http_host=http,
            parts={
                "redis": Part(pids=[redis.pid]),
                "workers": Part(pids=list(threads), without_threads=threads),
                "front ends": Part(pids=[one.pid for one in fronts]),
                "API process": Part(pids=[api.pid]),
            },
        )


def _wait_for_workers(url: str, count: int, hosts: Sequence[HostProcess]) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while asyncio.run(num_workers(url, POOL)) < count:
        for host in hosts:
            host.ask("lease_losses")  # raises if the process has ended
        if time.monotonic() > deadline:
            raise MeasurementFailed(f"not all of {count} workers entered the pool")
        time.sleep(POLL_S)


async def _key_bytes(url: str) -> dict[str, KindBytes]:
    async with connect(url) as redis:
        return await bytes_by_kind(redis, Keys(POOL))


async def _command_stats(url: str) -> dict[str, dict[str, float]]:
    async with connect(url) as redis:
        found: dict[str, Any] = await redis.info("commandstats")
        return {name.removeprefix("cmdstat_"): stats for name, stats in found.items()}
