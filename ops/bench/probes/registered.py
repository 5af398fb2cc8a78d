"""Probe: cost of adapters that are registered but not used."""

import asyncio
import statistics
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass

from ops.bench.load.arrivals import Closed
from ops.bench.load.lengths import Length
from ops.bench.load.load import Load
from ops.bench.load.report import answers_of, report
from ops.bench.probes.finding import Chart, Finding
from ops.bench.scripts.large_pool import adapter, version
from ops.bench.synthetic_pool import LEASE_MS, LIMITS, new_pool, own_pool
from shared.protocol.ids import AdapterVersion, ApiId, JobId, WorkerId
from shared.protocol.jobs import Endpoint, Job, SamplingParams
from shared.protocol.workers import WorkerInfo
from shared.store.adapters.registry import Registry
from shared.store.jobs.queue import Queue
from shared.store.redis.keys import Keys

CLIENTS = 8
REQUESTS = 64
"""Number of requests to each server per round."""
CLAIMED_AT_ONCE = 8
JOBS = 2000
"""Number of jobs in each new pool in which claims are measured. No engine runs the jobs."""
WORKER = WorkerId("bench:1:0")
INFO = WorkerInfo(
    model="bench", device="cpu", dtype="none", version="0", max_num_seqs=JOBS, kv_tokens=10**6
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Registered:
    """Results with a given number of registered adapters. Each list has one value per round."""

    adapters: int
    """Number of registered adapters. Requests always use the same few adapters."""
    claim_us: list[float]
    """Mean duration of a claim in microseconds, according to Redis' `INFO commandstats`."""
    tokens_per_s: list[float]
    """Output tokens per second through the front end and the worker."""


def measure_claims(url: str, sizes: Sequence[int], active: int, rounds: int) -> list[list[float]]:
    """Measure claims with each of `sizes` as the number of registered adapters.

    No other process may use the Redis at `url`, because the measurement resets that server's
    commandstats.

    Returns:
        One list per size, with the mean duration of a claim in microseconds for each round.
    """
    return asyncio.run(_measure_claims(url, sizes, active, rounds))


def measure_served(urls: Sequence[str], models: Sequence[str], rounds: int) -> list[list[float]]:
    """Return one list per server, with the output tokens per second of each round.

    Each round measures all servers in turn.
    """
    for url in urls:
        _tokens_per_s(url, models, "warm-up")
    found: list[list[float]] = [[] for _ in urls]
    for number in range(rounds):
        for index, url in enumerate(urls):
            found[index].append(_tokens_per_s(url, models, str(number)))
    return found


def registered_finding(sizes: Sequence[Registered], active: int) -> Finding:
    """Return a finding that compares the results at each size with the results at the first size.

    A size is a number of registered adapters. Ratios are medians over rounds.
    """
    first = sizes[0]
    says = tuple(
        f"{one.adapters:,} adapters registered, {active} of them asked for: a claim takes Redis "
        f"{statistics.median(one.claim_us):.0f} us ({_ratio(one.claim_us, first.claim_us):.3f} x), "
        f"{statistics.median(one.tokens_per_s):.0f} tokens/s "
        f"({_ratio(one.tokens_per_s, first.tokens_per_s):.3f} x)"
        for one in sizes
    )
    series = {
        f"{one.adapters:,} registered": [(n + 1, value) for n, value in enumerate(one.tokens_per_s)]
        for one in sizes
    }
    chart = Chart(x="round", y="output tokens per second", series=series)
    return Finding(name="registered", figures={"sizes": sizes}, says=says, chart=chart)


def _ratio(some: Sequence[float], other: Sequence[float]) -> float:
    return statistics.median(one / another for one, another in zip(some, other, strict=True))


def _tokens_per_s(url: str, models: Sequence[str], seed: str) -> float:
    load = Load(
        url=url,
        models=tuple(models),
        arrivals=Closed(clients=CLIENTS),
        requests=REQUESTS,
        input_words=Length(32, 32),
        output_tokens=Length(32, 32),
        seed=f"registered/{seed}",
    )
    return report(load, answers_of(load)).tokens_per_s


async def _measure_claims(
    url: str, sizes: Sequence[int], active: int, rounds: int
) -> list[list[float]]:
    found: list[list[float]] = [[] for _ in sizes]
    for _ in range(rounds):
        for index, size in enumerate(sizes):
            found[index].append(await _claim_us(url, size, active))
    return found


async def _claim_us(url: str, size: int, active: int) -> float:
    """Claim all jobs of a new pool, and return the mean duration of a claim in microseconds."""
    pool = new_pool()
    async with own_pool(url, pool) as (queue, redis):
        registry = Registry(redis, Keys(pool))
        for number in range(size):
            await registry.add_adapter(adapter(number))
        await queue.register(WORKER, lease_ms=LEASE_MS, info=INFO, residents=_versions(active))
        for number in range(JOBS):
            await queue.enqueue(_job(version(number % active)), LIMITS)
        await redis.config_resetstat()
        await _claim_all(queue, _versions(active))
        stats = await redis.info("commandstats")
    return float(stats["cmdstat_evalsha"]["usec_per_call"])


async def _claim_all(queue: Queue, residents: Sequence[AdapterVersion]) -> None:
    num_claimed = 0
    while num_claimed < JOBS:
        claim = await queue.claim(
            WORKER,
            sequences=CLAIMED_AT_ONCE,
            tokens=10**6,
            steal_ms=1000,
            max_cold=0,
            residents=residents,
        )
        num_claimed += len(claim.jobs)


def _versions(active: int) -> list[AdapterVersion]:
    return [version(number) for number in range(active)]


def _job(version: AdapterVersion) -> Job:
    return Job(
        id=JobId(uuid.uuid4().hex),
        endpoint=Endpoint.COMPLETIONS,
        model=version,
        version=version,
        sampling=SamplingParams(seed=0, max_tokens=1),
        created_s=int(time.time()),
        deadline_ms=LEASE_MS,
        cost=129,
        reply_to=ApiId("bench"),
        prompts=("word " * 128,),
    )
