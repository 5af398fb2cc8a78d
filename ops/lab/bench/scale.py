"""Compares a pool of 1,000 workers and 10,000 adapters with a small one. Engines are simulated.

The workers are `worker.service.Worker` objects, hundreds of them per process. Clients send streams
to an API process, and request adapters by Zipf's law.
"""

import asyncio
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from ops.lab.bench.frame.rounds import Figures, Measure, Sizes, measure_rounds, rounds_finding
from ops.lab.bench.frame.run import Quick, Rounds, scratch_folder, show, sizes_of
from ops.lab.bench.servers.checkouts import environment_of
from ops.lab.bench.servers.simulated_pool import ApiProcess, api_process, num_workers
from ops.lab.bench.streams.http_client import HttpClient, allow_many_connections
from ops.lab.bench.streams.stream_load import StreamLoad
from ops.lab.bench.streams.window import measure_window
from ops.lab.machine import ROOT
from ops.lab.options import RESULTS, ResultsFolder
from ops.lab.server_processes import process, wait_until
from ops.local.embedded_redis import start_redis
from shared.protocol.adapters import Adapter
from shared.store.adapters.registry import Registry
from shared.store.redis.connection import connect
from shared.store.redis.keys import Keys
from worker.engine_simulated.adapters import SimulatedAdapter, source_digest, version_of

POOL = "main"
START_TIMEOUT_S = 120.0
WORKERS_PER_PROCESS = 250
STEP_MS = 100
SEQUENCES = 8
WARM_UP_S = 4.0
WINDOW_S = 8.0
QUICK_S = 0.5
NUM_AT_ONCE = 64
"""Maximum number of concurrent calls that register adapters."""


@dataclass(frozen=True, slots=True)
class Size:
    """Numbers of workers and adapters of a pool."""

    workers: int
    adapters: int

    def __str__(self) -> str:
        return f"{self.workers:,} workers, {self.adapters:,} adapters"


SMALL, LARGE = Size(16, 100), Size(1000, 10_000)
QUICK_SMALL, QUICK_LARGE = Size(1, 2), Size(4, 8)


@dataclass(frozen=True, slots=True)
class _Pool:
    """A running pool."""

    redis_url: str
    parts: Mapping[str, Sequence[int]]
    """Process ids of each part of the pool, by the part's name."""
    api: ApiProcess


def scale(rounds: Rounds = None, quick: Quick = False, results: ResultsFolder = RESULTS) -> None:
    """Compare a pool of 1,000 workers and 10,000 adapters with a small one."""
    sizes = sizes_of(Sizes(rounds=3, words=32), rounds, quick=quick)
    small, large = (QUICK_SMALL, QUICK_LARGE) if quick else (SMALL, LARGE)
    allow_many_connections()
    with scratch_folder() as scratch:
        window_s = QUICK_S if quick else WINDOW_S
        variants = {str(one): _measure_of(one, sizes, window_s, scratch) for one in (small, large)}
        found = measure_rounds(variants, sizes.rounds)
    pairs = [(str(large), str(small))]
    show(rounds_finding("scale", found, sizes, pairs), "simulated", results)


def _measure_of(size: Size, sizes: Sizes, window_s: float, scratch: Path) -> Measure:
    def measure(_: str) -> Figures:
        with TemporaryDirectory(dir=scratch) as logs, _running(size, Path(logs)) as pool:
            return asyncio.run(_figures(pool, size, sizes, window_s))

    return measure


async def _figures(pool: _Pool, size: Size, sizes: Sizes, window_s: float) -> Figures:
    client = HttpClient(pool.api.port)
    names = [_adapter_name(number) for number in range(size.adapters)]
    window = await measure_window(
        StreamLoad(client.send, names, sizes.words),
        pool.parts,
        streams=sizes.clients,
        warm_up_s=min(WARM_UP_S, window_s),
        window_s=window_s,
    )
    await client.close()
    async with connect(pool.redis_url) as redis:
        memory = await redis.info("memory")
    return {
        f"{sizes.clients} streams, tokens/s": window.tokens / window.seconds,
        "TTFT p50 in ms": 1000 * window.first_token_s,
        **{f"cores of {part}": used / window.seconds for part, used in window.cpu_s.items()},
        "memory of Redis, MB": memory["used_memory"] / 1e6,
    }


@contextmanager
def _running(size: Size, scratch: Path) -> Iterator[_Pool]:
    with ExitStack() as stack:
        redis = start_redis(None)
        stack.callback(redis.stop)
        started = []
        for first in range(0, size.workers, WORKERS_PER_PROCESS):
            number = min(WORKERS_PER_PROCESS, size.workers - first)
            words = (redis.url, POOL, str(number), str(STEP_MS), str(SEQUENCES))
            command = [sys.executable, "-m", "ops.lab.bench.worker_host", *words]
            name = f"workers-{first}"
            started.append(
                stack.enter_context(process(name, command, scratch, environment_of(ROOT)))
            )
        wait_until(
            lambda: asyncio.run(num_workers(redis.url, POOL)) == size.workers,
            started=started,
            timeout_s=START_TIMEOUT_S,
            scratch=scratch,
        )
        # The API process starts before the adapters are registered, so that it needn't list them.
        api = stack.enter_context(api_process(redis.url, POOL, scratch))
        asyncio.run(_register_adapters(redis.url, POOL, size.adapters))
        parts = {
            "Redis": [redis.pid],
            "the workers": [one.pid for one in started],
            "the API process": [api.pid],
        }
        yield _Pool(redis.url, parts, api)


def _adapter_name(number: int) -> str:
    """Return the name of adapter `number`."""
    return f"a{number}"


async def _register_adapters(url: str, pool: str, num_adapters: int) -> None:
    """Register adapters 0 to `num_adapters` - 1 as clients do. The pool must have a base model."""
    redis = connect(url, max_connections=NUM_AT_ONCE)
    registry, entries = Registry(redis, Keys(pool)), _entries(num_adapters)

    async def register_some() -> None:
        for entry in entries:
            await registry.load_adapter(entry, replace=False)

    try:
        await asyncio.gather(*(register_some() for _ in range(NUM_AT_ONCE)))
    finally:
        await redis.aclose()


def _entries(num_adapters: int) -> Iterator[Adapter]:
    for name in map(_adapter_name, range(num_adapters)):
        digest = source_digest(name)
        adapter = SimulatedAdapter(
            name=name, version=version_of(name, digest), digest=digest, source=name
        )
        yield adapter.registry_entry(name)
