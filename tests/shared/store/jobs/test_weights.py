"""Shares of tenants with different weights."""

from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from queue_support import LIMITS, Actor, make_job

from shared.protocol.enqueue import EnqueueOptions
from shared.store.jobs.queue import Queue


async def enqueue_of(queue: Queue, tenant: str, count: int, *, weight: float = 1) -> None:
    for _ in range(count):
        job = make_job(tenant=tenant)
        await queue.enqueue(job, LIMITS, options=EnqueueOptions(weight=weight))


async def served(worker: Actor, count: int) -> Counter[str]:
    """Claim and finish jobs one at a time, and count them by tenant."""
    tenants: Counter[str] = Counter()
    for _ in range(count):
        (claimed,) = await worker.claim(sequences=1)
        await worker.finish(claimed)
        tenants[claimed.job.tenant] += 1
    return tenants


async def test_weights_set_the_shares_of_busy_tenants(queue: Queue, actor: Any) -> None:
    worker = await actor()
    await enqueue_of(queue, "heavy", 100, weight=4)
    await enqueue_of(queue, "light", 100)
    shares = await served(worker, 100)
    assert shares["heavy"] / shares["light"] == pytest.approx(4, rel=0.1)


@settings(max_examples=50)
@given(weight=st.floats(0.001, 1000))
def test_a_weight_is_written_as_a_number_that_lua_reads(weight: float) -> None:
    assert float(f"{weight:g}") == pytest.approx(weight, rel=1e-5)
