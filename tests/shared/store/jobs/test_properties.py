"""Random sequences of operations, compared with a model of the queue, and shares of tenants."""

import asyncio
from collections import Counter

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import run_state_machine_as_test
from queue_machine import QueueMachine
from queue_support import LIMITS, Actor, make_job

from shared.protocol.jobs import Job
from shared.store.jobs.queue import Queue
from shared.store.redis.connection import connect
from shared.store.redis.keys import Keys

QUICK = settings(
    max_examples=30,
    stateful_step_count=30,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
    phases=(Phase.explicit, Phase.generate, Phase.shrink),
)
pytestmark = pytest.mark.timeout(300)


def test_no_sequence_of_operations_loses_a_job_or_breaks_an_index(redis_url: str) -> None:
    QueueMachine.url = redis_url
    run_state_machine_as_test(QueueMachine, settings=QUICK)


costs = st.lists(st.integers(1, 100), min_size=1, max_size=12)


@settings(QUICK, max_examples=25)
@given(flood=st.lists(st.integers(1, 100), min_size=20, max_size=60), calm=costs, ran=costs)
def test_a_flood_delays_another_tenant_by_no_more_than_its_fair_share(
    redis_url: str, flood: list[int], calm: list[int], ran: list[int]
) -> None:
    """While jobs of both wait, neither tenant is ahead by more than one job of each."""

    async def claim_order() -> list[Job]:
        redis, keys = connect(redis_url), Keys(f"fair-{abs(hash((*flood, *calm, *ran)))}")
        queue = Queue(redis, keys)
        worker = await Actor(queue, redis, keys, "w", ["a@1"]).register()
        for cost in ran:
            await queue.enqueue(make_job(tenant="flood", cost=cost), LIMITS)
            await worker.claim(sequences=1)
        for tenant, tenant_costs in (("flood", flood), ("calm", calm)):
            for cost in tenant_costs:
                await queue.enqueue(make_job(tenant=tenant, cost=cost), LIMITS)
        claimed = []
        while batch := await worker.claim(sequences=1000):
            claimed += batch
        async for key in redis.scan_iter(match=f"{keys.prefix}*", count=1000):
            await redis.delete(key)
        await redis.aclose()
        return [c.job for c in claimed]

    served = Counter({"flood": 0, "calm": 0})
    left = Counter({"flood": len(flood), "calm": len(calm)})
    bound = max(flood) + max(calm) + max(ran)
    for job in asyncio.run(claim_order()):
        if all(left.values()):
            assert abs(served["flood"] - served["calm"]) <= bound
        served[job.tenant] += job.cost
        left[job.tenant] -= 1
    assert not any(left.values())
