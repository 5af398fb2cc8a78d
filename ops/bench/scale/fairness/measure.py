"""Fairness between tenants: waiting times beside a heavy tenant, and shares by weight.

All requests go through an API process with a key for each tenant, to one worker process with a
simulated engine. Each measurement has a pool of its own.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import mean
from typing import TypeVar

from ops.bench.scale.fairness.rounds import GOLD, GOLD_WEIGHT, HEAVY, SILVER, Round, Sizes
from ops.bench.scale.fairness.tenants import POLL_S, Tenants, api_key_of
from ops.bench.scale.processes import SimulatedPool, simulated_pool
from ops.bench.scale.streams.http_client import allow_many_connections
from ops.local.embedded_redis import EmbeddedRedis, start_redis

T = TypeVar("T")


def measure_fairness(
    sizes: Sizes, scratch: Path, report: Callable[[str], None] = lambda _: None
) -> list[Round]:
    """Run all rounds. `report` is called with a line for each round.

    Raises:
        MeasurementFailed: a request failed.
        ServerFailed: a process didn't become ready.
    """
    allow_many_connections()
    redis = start_redis(None)
    try:
        rounds = []
        for number in range(sizes.rounds):
            run = _Runner(redis, scratch, sizes, number)
            rounds.append(
                Round(
                    alone_s=run.measure("alone", _wait_alone),
                    beside_s=run.measure("beside", _wait_beside_heavy),
                    gold_per_silver=run.measure("weights", _share_by_weight),
                )
            )
            report(rounds[-1].describe())
        return rounds
    finally:
        redis.stop()


async def _wait_alone(tenants: Tenants, sizes: Sizes) -> dict[str, float]:
    """Return the mean waiting time of each light tenant. The tenants send in turn."""
    sent: dict[str, list[asyncio.Task[float]]] = {tenant: [] for tenant in sizes.light}
    for _ in range(sizes.light_jobs):
        for tenant in sizes.light:
            sent[tenant].append(tenants.send(tenant))
    return {tenant: mean(await asyncio.gather(*tasks)) for tenant, tasks in sent.items()}


async def _wait_beside_heavy(tenants: Tenants, sizes: Sizes) -> dict[str, float]:
    """Queue the jobs of the heavy tenant, then return the waiting times of the others."""
    for _ in range(sizes.heavy_jobs):
        tenants.send(HEAVY)
    await tenants.wait_until_queued(sizes.heavy_jobs)
    return await _wait_alone(tenants, sizes)


async def _share_by_weight(tenants: Tenants, sizes: Sizes) -> float:
    """Return the ratio of ended jobs while jobs of both tenants wait."""
    for _ in range(sizes.weighted_jobs):
        for tenant in (SILVER, GOLD):
            tenants.send(tenant)
    await tenants.wait_until_queued(2 * sizes.weighted_jobs)
    before = dict(tenants.ended)
    while tenants.ended.get(GOLD, 0) < sizes.weighted_jobs - sizes.sequences:
        tenants.raise_errors()
        await asyncio.sleep(POLL_S)
    gold, silver = (tenants.ended[name] - before.get(name, 0) for name in (GOLD, SILVER))
    return gold / silver


class _Runner:
    """Runs the measurements of one round."""

    def __init__(self, redis: EmbeddedRedis, scratch: Path, sizes: Sizes, number: int) -> None:
        self._redis = redis
        self._scratch = scratch
        self._sizes = sizes
        self._number = number

    def measure(self, name: str, measure: Callable[[Tenants, Sizes], Awaitable[T]]) -> T:
        """Run a measurement in a pool of its own, and return its result."""
        with self._pool(f"{name}-{self._number}") as pool:
            return asyncio.run(self._run(pool, measure))

    async def _run(
        self, pool: SimulatedPool, measure: Callable[[Tenants, Sizes], Awaitable[T]]
    ) -> T:
        tenants = Tenants(pool, self._sizes.tokens_per_job)
        try:
            return await measure(tenants, self._sizes)
        finally:
            await tenants.close()

    @contextmanager
    def _pool(self, name: str) -> Iterator[SimulatedPool]:
        tenants = [*self._sizes.light, HEAVY, GOLD, SILVER]
        flags = [
            word for tenant in tenants for word in ("--api-key", f"{tenant}:{api_key_of(tenant)}")
        ]
        flags += ["--tenant-weight", f"{GOLD}={GOLD_WEIGHT}"]
        with simulated_pool(
            self._redis,
            self._scratch,
            pool=name,
            step_ms=self._sizes.step_ms,
            sequences=self._sizes.sequences,
            api_flags=flags,
            api_key=api_key_of(HEAVY),
        ) as pool:
            yield pool
