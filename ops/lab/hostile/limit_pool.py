"""Runs a pool whose workers can be killed, and clients whose stored keys have rate limits."""

import secrets
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from subprocess import Popen
from typing import Any

import httpx

from ops.lab.hostile.pool import START_TIMEOUT_S, lorikeet
from ops.lab.server_processes import clean_environment, process, wait_until_serves
from ops.local.embedded_redis import start_redis
from ops.local.ports import free_port
from shared.api_keys import ADMIN
from shared.protocol.access.rights import Access, KeyLimits, Scope
from shared.store.access.key_store import KeyStore
from shared.store.access.ledger import Ledger, Used
from shared.store.redis.connection import Redis, connect
from shared.store.redis.keys import Keys

MODEL = "sim"
POOL = "main"
CHAT = "/v1/chat/completions"
TIMEOUT_S = 120.0
PAGE = 100
WORKER_FLAGS = ("--engine", "simulated", "--simulated-step-ms", "10", "--lease-ms", "1500")


class LimitPool:
    """A running pool. Each worker that is killed is started again."""

    def __init__(self, scratch: Path, redis_url: str, port: int) -> None:
        self.scratch = scratch
        self.redis_url = redis_url
        self.url = f"http://127.0.0.1:{port}"
        self._workers = ExitStack()
        self._running: list[Popen[bytes]] = []
        self.num_kills = 0

    def start_worker(self) -> "Popen[bytes]":
        """Start a worker."""
        words = lorikeet("worker", self.redis_url, MODEL, *WORKER_FLAGS)
        name = f"worker-{len(self._running) + self.num_kills}"
        running = process(name, words, self.scratch, clean_environment())
        self._running.append(self._workers.enter_context(running))
        return self._running[-1]

    def kill_worker(self) -> None:
        """Kill the oldest worker with SIGKILL, and start another one."""
        oldest = self._running.pop(0)
        oldest.kill()
        oldest.wait()
        self.num_kills += 1
        self.start_worker()

    def stop_workers(self) -> None:
        """Stop all workers."""
        self._workers.close()


@contextmanager
def limit_pool(scratch: Path, num_workers: int) -> Iterator[LimitPool]:
    """Run a pool with a file store.

    Raises:
        ServerFailed: the pool didn't become ready.
    """
    scratch.mkdir(parents=True)
    with ExitStack() as stack:
        redis, port, admin = start_redis(None), free_port(), secrets.token_hex(16)
        stack.callback(redis.stop)
        pool = LimitPool(scratch, redis.url, port)
        stack.callback(pool.stop_workers)
        store = ("--file-store", str(scratch / "files"))
        flags = ("--port", str(port), "--retain-s", "3600", *store)
        key = {"LORIKEET_API_KEYS": f"{ADMIN}:{admin}"}
        others = {
            "api": (lorikeet("api", redis.url, *flags), key),
            "control": (lorikeet("control", redis.url, *store), {}),
        }
        started = [pool.start_worker() for _ in range(num_workers)]
        for name, (words, more) in others.items():
            environment = clean_environment() | more
            started.append(stack.enter_context(process(name, words, scratch, environment)))
        wait_until_serves(
            pool.url,
            ready="/ready/worker",
            names={MODEL},
            started=started,
            timeout_s=START_TIMEOUT_S,
            scratch=scratch,
            api_key=admin,
        )
        yield pool


class LimitedClient:
    """Client of a tenant that has one stored key."""

    def __init__(self, pool: LimitPool, redis: Redis, tenant: str) -> None:
        self._store = KeyStore(redis, Keys(POOL))
        self._ledger = Ledger(redis, Keys(POOL))
        self._tenant = tenant
        limits = httpx.Limits(max_connections=None, keepalive_expiry=1.0)
        self.http = httpx.AsyncClient(
            base_url=pool.url, timeout=TIMEOUT_S, limits=limits, trust_env=False
        )
        self.key_id = ""

    async def begin(self, **limits: int) -> None:
        """Create the tenant's key, whose limits are the fields of `KeyLimits` in `limits`."""
        access = Access(tenant=self._tenant, scopes=frozenset({Scope.INFERENCE}))
        key, secret = await self._store.create(access, KeyLimits(**limits))
        self.key_id = key.id
        self.http.headers["Authorization"] = f"Bearer {secret}"

    async def jobs(self, **params: Any) -> list[dict[str, Any]]:
        """Return all jobs of the tenant."""
        found: list[dict[str, Any]] = []
        page: dict[str, Any] = {"has_more": True, "last_id": None}
        while page["has_more"]:
            after = {"after": page["last_id"]} if page["last_id"] else {}
            reply = await self.http.get("/v1/jobs", params={"limit": PAGE, **params, **after})
            page = reply.raise_for_status().json()
            found += page["data"]
        return found

    async def ledger(self) -> Used:
        """Return the tenant's usage of today, as the ledger has it."""
        used = Used()
        for entry in await self._ledger.entries(await self._ledger.today(), [self._tenant]):
            used += entry.used
        return used


def chat(*, stream: bool = False, **fields: Any) -> dict[str, Any]:
    """Return the body of a request whose answer ends only at its token limit."""
    message = {"role": "user", "content": f"hello {secrets.token_hex(4)}"}
    return {"model": MODEL, "messages": [message], "ignore_eos": True, "stream": stream, **fields}


def connected(pool: LimitPool, tenant: str) -> tuple[Redis, LimitedClient]:
    """Return a connection to the pool's Redis, and a client of `tenant` that has no key yet."""
    redis = connect(pool.redis_url)
    return redis, LimitedClient(pool, redis, tenant)


def unfinished(jobs: Sequence[dict[str, Any]]) -> list[str]:
    """Return the ids of jobs that wait or run."""
    return [job["id"] for job in jobs if job["state"] in ("queued", "running")]
