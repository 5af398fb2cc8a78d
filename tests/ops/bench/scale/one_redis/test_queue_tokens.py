"""Summary of what one Redis carries."""

import pytest

from ops.bench.scale.one_redis.drive import OneRedis, measure_one_redis
from ops.bench.scale.one_redis.queue_tokens import Case, queue_tokens_finding, row_of

CASE = Case(jobs=100, tokens_per_job=10, batch=4)


def one(redis_cpu_s: float) -> OneRedis:
    return OneRedis(
        jobs=100,
        tokens=1000,
        tokens_per_job=10,
        batch=4,
        seconds=2,
        redis_cpu_s=redis_cpu_s,
        bytes_per_running_job={"job": 1000, "tok": 500},
        bytes_per_ended_job={"job": 300},
        bytes_per_worker=0,
    )


def test_the_rates_are_those_at_which_redis_fills_a_core() -> None:
    row = row_of(CASE, [one(0.05)])
    assert row.carried.redis_us_per_job.median == pytest.approx(500)
    assert row.carried.jobs_per_s.median == pytest.approx(2000)
    assert row.carried.tokens_per_s.median == pytest.approx(20_000)
    assert row.carried.driven_jobs_per_s.median == pytest.approx(50)
    assert row.carried.bytes_per_running_job == 1500
    assert row.ratio is None


def test_the_ratio_to_the_baseline_is_taken_within_each_round() -> None:
    row = row_of(CASE, [one(0.05), one(0.1), one(0.04)], [one(0.1), one(0.3), one(0.04)])
    assert row.ratio is not None
    assert (row.ratio.low, row.ratio.median, row.ratio.high) == pytest.approx((1, 2, 3))
    (line,) = queue_tokens_finding([row]).says
    assert line.endswith("2.00 x (1.00 to 3.00)")


async def test_the_scripts_are_driven_with_every_token(redis_url: str) -> None:
    found = await measure_one_redis(redis_url, jobs=20, tokens_per_job=3, batch=2)
    assert found.jobs >= 20
    assert found.jobs <= found.tokens <= 4 * (found.jobs + 8)
    assert found.redis_cpu_s > 0
    assert found.bytes_per_running_job["job"] > found.bytes_per_ended_job["job"] > 0
    assert "res" in found.bytes_per_ended_job
    assert found.bytes_per_worker > 0
