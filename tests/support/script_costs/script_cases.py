"""Measures every queue script in every situation."""

from collections.abc import Awaitable, Callable

import batch_cases
import job_cases
import pool_cases
import version_cases
from large_pool import SHORT_LEASE_MS, LargePool, Sizes
from script_meter import Call, Meter

Case = Callable[[LargePool], Awaitable[None]]

CASES: tuple[Case, ...] = (
    job_cases.arrivals,
    job_cases.claims_of_own,
    job_cases.claims_of_foreign,
    job_cases.claims_in_vain,
    job_cases.mixed_pool,
    job_cases.running,
    job_cases.followed,
    job_cases.given_back,
    pool_cases.residents,
    pool_cases.shrinking,
    pool_cases.sweeps,
    pool_cases.deaths,
    pool_cases.overdue,
    pool_cases.quarantine,
    pool_cases.names,
    pool_cases.retired,
    pool_cases.small_scripts,
    batch_cases.batches,
    batch_cases.files,
    version_cases.versions,
    pool_cases.another_base,
)
"""All cases in order. `another_base` must be last, because it leaves the pool without workers."""


async def measure_scripts(url: str, sizes: Sizes) -> list[Call]:
    """Run all cases in a large pool, and return the measured calls.

    No other client may use the Redis at `url`.
    """
    meter = Meter(url)
    try:
        await meter.load_scripts()
        pool = LargePool(meter, sizes)
        await pool.fill()
        for case in CASES:
            await pool.renew(SHORT_LEASE_MS)
            await case(pool)
    finally:
        await meter.aclose()
    return meter.calls
