"""What a chaos run checks: breaks of streams, ends of processes, the ledger, and jobs."""

import signal
from dataclasses import dataclass, field
from typing import Any, cast

import pytest
from chaos_findings import OPTIONS, aftermath, fault, findings, record
from queue_support import LIMITS, make_job

from ops.lab.chaos.checks import monitor as monitor_module
from ops.lab.chaos.checks.breaks import AFTER_S, unexplained_breaks
from ops.lab.chaos.checks.ledger import ledger_sum, seen_sum
from ops.lab.chaos.checks.monitor import Monitor
from ops.lab.chaos.checks.restarts import LOOP_ENDS, LOOP_S, loops, unexplained
from ops.lab.chaos.cluster.pool import Pool
from ops.lab.chaos.cluster.supervised import ProcessEnd
from ops.lab.chaos.report.verdict import failures_of
from shared.store.access.ledger import Used
from shared.store.jobs.queue import Queue
from shared.store.redis.connection import Redis
from shared.store.redis.keys import Keys

FRONT_END = fault(kind="kill-api", subject="front end", target="api-0")
NETWORK = fault(kind="drop-packets", subject="network", target="api-0")
RECORDS = [
    record(jobs=["a"], usage=[5, 20]),
    record(jobs=["a"], usage=[5, 20]),  # sent twice with one idempotency key
    record(jobs=["b"], usage=[1, 2]),
    record(jobs=["c"], usage=[]),  # cancelled before it ran
    record(jobs=[]),
]


@pytest.mark.parametrize(
    ("faults", "broken_s", "is_explained"),
    [
        ([FRONT_END], 111.0, True),
        ([FRONT_END], 109.9, False),
        ([FRONT_END], 112.1, False),
        ([NETWORK], 112.0 + AFTER_S, True),
        ([NETWORK], 113.0 + AFTER_S, False),
        ([fault(kind="freeze-redis", subject="Redis"), fault()], 111.0, False),
        ([fault(), FRONT_END], 111.0, True),
        ([fault(subject="front end", recovered_s=None)], 1e6, True),
        ([], 111.0, False),
    ],
)
def test_a_break_is_explained_by_a_fault_of_its_connection_at_that_time(
    faults: list, broken_s: float, is_explained: bool
) -> None:
    broken = record(client="openai for Node", broken_s=broken_s)
    assert unexplained_breaks([record(), broken], faults) == ([] if is_explained else [broken])


def test_an_end_is_explained_by_a_fault_of_the_same_process_at_that_time() -> None:
    ends = [
        ProcessEnd("worker-0", 110.5, -signal.SIGKILL),
        ProcessEnd("worker-9", 110.5, 1),
        ProcessEnd("worker-1", 110.5, 1),
        ProcessEnd("worker-0", 150.0, 1),
    ]
    assert unexplained(ends, [fault(), fault(target="link of worker-9")]) == ends[2:]


def test_a_process_that_ends_again_and_again_is_in_a_loop() -> None:
    quick = [ProcessEnd("a", i * LOOP_S / LOOP_ENDS, 1) for i in range(LOOP_ENDS)]
    slow = [ProcessEnd("b", i * LOOP_S, 1) for i in range(2 * LOOP_ENDS)]
    assert loops([*quick, *slow]) == ["a"]


def test_each_job_counts_once_and_those_that_were_not_acknowledged_count_too() -> None:
    assert seen_sum(RECORDS, {}) == Used(3, prompt_tokens=6, completion_tokens=22)
    cancelled = {"a": [0, 0], "unknown": [1, 3], "never-ran": []}
    assert seen_sum(RECORDS, cancelled) == Used(5, prompt_tokens=7, completion_tokens=25)


@pytest.mark.parametrize(
    ("entered", "is_right"),
    [
        (Used(13, 106, 60, 122), True),  # cached tokens don't count
        (Used(12, 106, 50, 122), False),
        (Used(13, 107, 50, 122), False),
        (Used(13, 106, 50, 121), False),
    ],
)
def test_the_ledger_of_a_run_equals_the_usage_of_the_answers(entered: Used, is_right: bool) -> None:
    found = findings(
        records=RECORDS,
        jobs=frozenset("abc"),
        aftermath=aftermath(ledger=entered),
        ledger_before=Used(10, 100, 50, 100),
    )
    assert any("ledger" in each for each in failures_of(found, OPTIONS)) is not is_right


async def test_the_sum_of_the_ledger_has_all_tenants_and_models(redis: Redis, keys: Keys) -> None:
    day = (await redis.time())[0] // 86_400
    for tenant in ("red", "blue"):
        await redis.sadd(keys.ledger_tenants(day), tenant)  # type: ignore[misc]
        rows = {"a": "1 2 3 4", "b": "10 20 30 40"}
        await redis.hset(keys.ledger(day, tenant), mapping=rows)  # type: ignore[misc]
    assert await ledger_sum(redis, keys) == Used(22, 44, 66, 88)


@dataclass
class PoolOfJobs:
    redis: Redis
    keys: Keys
    apis: list[Any] = field(default_factory=list)


async def test_jobs_count_once_the_pool_has_kept_them_for_a_while_or_to_the_end(
    queue: Queue, redis: Redis, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monitor = Monitor(cast(Pool, PoolOfJobs(redis, keys)))
    kept, given_up, last = make_job(), make_job(), make_job()
    for job in (kept, given_up):
        await queue.enqueue(job, LIMITS)
    await monitor.sample()
    assert monitor.jobs == set()
    monkeypatch.setattr(monitor_module, "SETTLED_S", 0.0)
    await monitor.sample()
    assert monitor.jobs == {kept.id, given_up.id}
    await queue.cancel(given_up.id)
    await queue.enqueue(last, LIMITS)
    await monitor.finish()
    assert monitor.jobs == {kept.id, last.id}
