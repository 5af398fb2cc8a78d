"""The ledger of a chaos run must equal what its clients have seen."""

import pytest
from chaos_findings import OPTIONS, aftermath, findings, record

from ops.lab.chaos.checks.ledger import difference, ledger_sum, seen_sum
from ops.lab.chaos.report.verdict import failures_of
from shared.store.access.ledger import Used
from shared.store.redis.connection import Redis
from shared.store.redis.keys import Keys

RECORDS = [
    record(jobs=["a"], usage=[5, 20]),
    record(jobs=["a"], usage=[5, 20]),  # sent twice with one idempotency key
    record(jobs=["b"], usage=[1, 2]),
    record(jobs=["c"], usage=[]),  # cancelled before it ran
    record(jobs=[]),
]


def test_each_job_counts_once() -> None:
    assert seen_sum(RECORDS, {}) == Used(3, prompt_tokens=6, completion_tokens=22)


def test_jobs_of_requests_that_were_not_acknowledged_count_too() -> None:
    cancelled = {"a": [0, 0], "unknown": [1, 3], "never-ran": []}
    assert seen_sum(RECORDS, cancelled) == Used(5, prompt_tokens=7, completion_tokens=25)


@pytest.mark.parametrize("entered", [Used(2, 6, 0, 22), Used(3, 7, 0, 22), Used(3, 6, 0, 21)])
def test_a_run_whose_ledger_differs_from_the_usage_of_the_answers_fails(entered: Used) -> None:
    found = findings(records=RECORDS, jobs=frozenset("abc"), aftermath=aftermath(ledger=entered))
    (reason,) = [each for each in failures_of(found, OPTIONS) if "ledger" in each]
    assert str(entered) in reason


def test_what_was_used_before_the_load_and_cached_tokens_do_not_count() -> None:
    before = Used(10, 100, 50, 100)
    after = Used(13, 106, 60, 122)
    found = findings(
        records=RECORDS,
        jobs=frozenset("abc"),
        aftermath=aftermath(ledger=after),
        ledger_before=before,
    )
    assert not [each for each in failures_of(found, OPTIONS) if "ledger" in each]
    assert difference(after, before) == seen_sum(RECORDS, {})


async def test_the_sum_has_all_tenants_and_models(redis: Redis, keys: Keys) -> None:
    day = (await redis.time())[0] // 86_400
    for tenant in ("red", "blue"):
        await redis.sadd(keys.ledger_tenants(day), tenant)  # type: ignore[misc]
        rows = {"a": "1 2 3 4", "b": "10 20 30 40"}
        await redis.hset(keys.ledger(day, tenant), mapping=rows)  # type: ignore[misc]
    assert await ledger_sum(redis, keys) == Used(22, 44, 66, 88)
