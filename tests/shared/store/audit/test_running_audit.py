"""The audit that runs in short steps."""

import pytest
from queue_support import LIMITS, make_job

from shared.protocol.ids import JobId
from shared.store.audit import running_audit
from shared.store.audit.running_audit import RunningAudit
from shared.store.jobs.queue import Queue
from shared.store.redis.connection import Redis
from shared.store.redis.keys import Keys
from shared.store.views.pool_views import PoolViews

JOBS = [JobId(f"{number:032x}") for number in range(300)]


@pytest.fixture(autouse=True)
def quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running_audit, "LOOK_S", 0.01)


@pytest.fixture
def audit(redis: Redis, keys: Keys) -> RunningAudit:
    return RunningAudit(redis, keys)


async def test_a_stray_is_reported_once_by_the_second_step_that_sees_it(
    audit: RunningAudit, redis: Redis, keys: Keys
) -> None:
    await redis.set(keys.result(JOBS[0]), "x")
    found = [await audit.step() for _ in range(3)]
    assert [len(strays) for strays in found] == [0, 1, 0]
    assert found[1][0].key == keys.result(JOBS[0])
    status = await audit.status()
    assert status is not None
    assert status.strays == found[1]


async def test_the_number_of_strays_is_shown_until_they_are_gone(
    audit: RunningAudit, views: PoolViews, redis: Redis, keys: Keys
) -> None:
    assert await views.num_strays() is None
    await redis.mset({keys.result(job): "x" for job in JOBS[:3]})
    found = []
    for _ in range(2):
        await audit.step()
        found.append(await views.num_strays())
    assert found == [0, 3]
    await redis.delete(*map(keys.result, JOBS[:3]))
    await audit.step()
    assert await views.num_strays() == 0


async def test_a_suspect_that_is_in_order_again_is_not_reported(
    audit: RunningAudit, redis: Redis, keys: Keys
) -> None:
    await redis.set(keys.result(JOBS[0]), "x")
    await audit.step()
    await redis.expire(keys.result(JOBS[0]), 60)
    assert await audit.step() == ()


async def test_steps_continue_where_the_last_one_stopped(
    own_server, open_client, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running_audit, "MAX_SCANS", 1)
    redis = open_client(own_server.url)
    for job in JOBS:
        await redis.set(keys.result(job), "x")
    audit = RunningAudit(redis, keys)
    strays = set()
    for _ in range(4):
        strays |= set(await audit.step())
    assert {stray.key for stray in strays} == {keys.result(job) for job in JOBS}
    status = await audit.status()
    assert status is not None
    assert status.num_keys >= len(JOBS)


async def test_a_healthy_pool_has_an_empty_status(audit: RunningAudit, queue: Queue) -> None:
    assert await audit.status() is None
    await queue.enqueue(make_job(), LIMITS)
    assert await audit.step() == ()
    assert await audit.step() == ()
    status = await audit.status()
    assert status is not None
    assert (status.strays, status.num_keys > 5, status.checked_ms > 0) == ((), True, True)
