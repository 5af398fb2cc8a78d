"""Jobs are unaffected when Redis' clock jumps by an hour."""

from pathlib import Path

import pytest
from fake_clock import FakeClock
from scripted_engine import ScriptedEngine
from worker_support import Client, until

from shared.protocol.jobs import JobState
from shared.store.redis.connection import connect
from shared.store.redis.keys import Keys

HOUR_S = 3600
LEASE_MS = 900
NUM_TOKENS = 120


@pytest.mark.slow
async def test_running_and_waiting_jobs_complete_despite_jumps_of_an_hour(
    tmp_path: Path, pool: str
) -> None:
    with FakeClock.build(tmp_path) as clock:
        redis, keys = connect(clock.start_redis()), Keys(pool)
        client = Client(redis, keys)
        engines = [ScriptedEngine(step_s=0.01) for _ in range(2)]
        settings = {"lease_ms": LEASE_MS, "max_num_seqs": 3}
        async with client.worker(engines[0], **settings):  # noqa: SIM117 -- one after the other
            async with client.worker(engines[1], **settings):
                jobs = [await client.send(max_tokens=NUM_TOKENS, seed=seed) for seed in range(36)]
                for offset_s in (HOUR_S, 0, -HOUR_S, 0):
                    num_ended = await count_ended(client)
                    clock.set(offset_s)
                    await until(lambda before=num_ended: has_more_ended(client, before))
                await until(lambda: have_all_ended(client, len(jobs)))
        counts = await client.views.counts()
        assert sum(counts.totals.values()) == len(jobs)
        assert (counts.workers_lost, counts.retried) == (0, 0)
        await redis.aclose()


async def count_ended(client: Client) -> int:
    return (await client.views.counts()).totals[JobState.DONE]


async def have_all_ended(client: Client, count: int) -> bool:
    return await count_ended(client) == count


async def has_more_ended(client: Client, before: int) -> bool:
    return await count_ended(client) > before
