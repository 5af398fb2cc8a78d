"""Sends jobs of several tenants to one pool."""

import asyncio

import orjson

from ops.bench.measurement_process import MeasurementFailed
from ops.bench.scale.processes import BASE, SimulatedPool
from ops.bench.scale.streams.http_client import HttpClient
from ops.bench.scale.streams.received_stream import ReceivedStream
from ops.bench.scale.streams.stream_load import body_of
from shared.store.redis.connection import connect

POLL_S = 0.02
PROMPT = [ord(char) for char in "a prompt of token ids, not of text"]
"""Prompt of all jobs. Its length in tokens is known exactly when a job is queued, so that fair
queueing needs no corrections when the job ends."""


class Tenants:
    """Sends jobs of all tenants to a pool, and counts those that have ended."""

    def __init__(self, pool: SimulatedPool, tokens_per_job: int) -> None:
        self._pool = pool
        self._tokens_per_job = tokens_per_job
        self._redis = connect(pool.redis.url)
        self._tasks: list[asyncio.Task[float]] = []
        self._clients: dict[str, HttpClient] = {}
        self.ended: dict[str, int] = {}
        """Number of jobs that have ended, by tenant."""

    def send(self, tenant: str) -> asyncio.Task[float]:
        """Send a job. The task returns the job's waiting time."""
        client = self._clients.setdefault(
            tenant, HttpClient(self._pool.api.port, api_key=api_key_of(tenant))
        )
        self._tasks.append(asyncio.create_task(self._send(client, tenant)))
        return self._tasks[-1]

    async def wait_until_queued(self, num_jobs: int) -> None:
        """Wait until this number of jobs have entered the queue since the pool's start."""
        while await self._num_queued() < num_jobs:
            self.raise_errors()
            await asyncio.sleep(POLL_S)

    def raise_errors(self) -> None:
        """Raise the error of a request that failed."""
        for task in self._tasks:
            if task.done():
                task.result()

    async def close(self) -> None:
        """Disconnect from unfinished jobs."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for client in self._clients.values():
            await client.close()
        await self._redis.aclose()

    async def _send(self, client: HttpClient, tenant: str) -> float:
        received = ReceivedStream()
        body = body_of(BASE, self._tokens_per_job, PROMPT)
        await client.send(orjson.dumps(body), received)
        if received.error or not received.token_s:
            raise MeasurementFailed(f"a request failed: {received.error}")
        self.ended[tenant] = self.ended.get(tenant, 0) + 1
        return received.first_token_s

    async def _num_queued(self) -> int:
        found = await self._redis.hget(self._pool.keys.counters, "arrivals")  # type: ignore[misc]
        return int(found or 0)


def api_key_of(tenant: str) -> str:
    """Return the API key of a tenant."""
    return f"{tenant}-" + 24 * "k"
