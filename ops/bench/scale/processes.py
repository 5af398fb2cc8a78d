"""Starts Lorikeet's processes with simulated engines, as users start them."""

import asyncio
import sysconfig
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from ops.bench.server_processes import (
    clean_environment,
    process,
    wait_until,
    wait_until_serves,
)
from ops.local.embedded_redis import EmbeddedRedis
from ops.local.ports import free_port
from shared.store.redis.connection import connect
from shared.store.redis.keys import Keys

BASE = "base"
"""Name of the base model."""
START_TIMEOUT_S = 90.0
LORIKEET = str(Path(sysconfig.get_path("scripts")) / "lorikeet")


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiProcess:
    """A running `lorikeet api`."""

    pid: int
    port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedPool:
    """A running pool: an API process, and worker processes with simulated engines."""

    redis: EmbeddedRedis
    keys: Keys
    api: ApiProcess
    worker_pids: Sequence[int]


@contextmanager
def simulated_pool(
    redis: EmbeddedRedis,
    scratch: Path,
    *,
    pool: str,
    workers: int = 1,
    step_ms: int,
    sequences: int,
    worker_flags: Sequence[str] = (),
    api_flags: Sequence[str] = (),
    api_key: str | None = None,
) -> Iterator[SimulatedPool]:
    """Run a pool with an engine step of `step_ms` and up to `sequences` running jobs per worker.

    The processes write their logs to `scratch`. If `api_flags` has API keys, `api_key` is one of
    them.

    Raises:
        ServerFailed: a process ended or didn't become ready.
    """
    command = [
        *(LORIKEET, "worker", "--engine", "simulated", BASE, "--redis-url", redis.url),
        *("--pool", pool, "--log-level", "warning"),
        *("--simulated-step-ms", str(step_ms), "--max-num-seqs", str(sequences)),
        *worker_flags,
    ]
    with ExitStack() as stack:
        started = [
            stack.enter_context(
                process(f"{pool}-worker-{number}", command, scratch, clean_environment())
            )
            for number in range(workers)
        ]
        wait_until(
            lambda: asyncio.run(num_workers(redis.url, pool)) == workers,
            started=started,
            timeout_s=START_TIMEOUT_S,
            scratch=scratch,
        )
        api = stack.enter_context(
            api_process(redis.url, pool, scratch, flags=api_flags, api_key=api_key)
        )
        pids = [one.pid for one in started]
        yield SimulatedPool(redis=redis, keys=Keys(pool), api=api, worker_pids=pids)


@contextmanager
def api_process(
    redis_url: str,
    pool: str,
    scratch: Path,
    *,
    flags: Sequence[str] = (),
    api_key: str | None = None,
    command: Callable[[int], Sequence[str]] | None = None,
    environment: Mapping[str, str] | None = None,
) -> Iterator[ApiProcess]:
    """Run an API process of a pool that has workers. It writes its log to `scratch`.

    Args:
        redis_url: URL of the pool's Redis.
        pool: the pool's name.
        scratch: folder of the log.
        flags: flags of `lorikeet api`.
        api_key: one of the API keys in `flags`, if there are any.
        command: makes the command that runs the process at a port. The default is `lorikeet api`
            with `flags`.
        environment: variables that are added to the process's environment.

    Raises:
        ServerFailed: the process ended or didn't become ready.
    """
    port = free_port()
    words = [LORIKEET, "api", "--port", str(port), "--redis-url", redis_url, "--pool", pool]
    words += ["--log-level", "warning", *flags]
    variables = clean_environment() | dict(environment or {})
    name = f"{pool}-api-{port}"
    with process(name, command(port) if command else words, scratch, variables) as started:
        wait_until_serves(
            f"http://127.0.0.1:{port}",
            ready="/ready/worker",
            names={BASE},
            started=[started],
            timeout_s=START_TIMEOUT_S,
            scratch=scratch,
            api_key=api_key,
        )
        yield ApiProcess(pid=started.pid, port=port)


async def num_workers(redis_url: str, pool: str) -> int:
    """Return the number of workers in a pool."""
    async with connect(redis_url) as redis:
        return int(await redis.zcard(Keys(pool).workers))
