"""API processes of pools with simulated engines."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ops.lab.bench.servers.checkouts import LORIKEET, environment_of
from ops.lab.machine import ROOT
from ops.lab.server_processes import process, wait_until_serves
from ops.local.ports import free_port
from shared.store.redis.connection import connect
from shared.store.redis.keys import Keys

BASE = "base"
"""Name of the base model."""
START_TIMEOUT_S = 90.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiProcess:
    """A running `lorikeet api`."""

    pid: int
    port: int


@contextmanager
def api_process(
    redis_url: str, pool: str, scratch: Path, *, checkout: Path = ROOT
) -> Iterator[ApiProcess]:
    """Run the API process of a checkout until it is ready to serve `BASE`. It logs to `scratch`.

    Raises:
        ServerFailed: the process ended or didn't become ready.
    """
    port = free_port()
    words = ["api", "--port", str(port), "--redis-url", redis_url, "--pool", pool]
    words += ["--log-level", "warning"]
    name, variables = f"{pool}-api-{port}", environment_of(checkout)
    with process(name, [*LORIKEET, *words], scratch, variables) as started:
        wait_until_serves(
            f"http://127.0.0.1:{port}",
            ready="/ready/worker",
            names={BASE},
            started=[started],
            timeout_s=START_TIMEOUT_S,
            scratch=scratch,
        )
        yield ApiProcess(pid=started.pid, port=port)


async def num_workers(redis_url: str, pool: str) -> int:
    """Return the number of workers in a pool."""
    async with connect(redis_url) as redis:
        return int(await redis.zcard(Keys(pool).workers))
