"""The measurement of the queue, at a size at which its figures are meaningless."""

from ops.bench.compare.queue_latency import measure_queue


async def test_the_measurement_of_the_queue_counts_every_job(redis_url: str) -> None:
    report = await measure_queue(redis_url, latency_jobs=3, pass_jobs=128)
    assert 0 < report.claim_p50_ms <= report.claim_p99_ms
    assert report.jobs_per_s > 0
    assert report.redis_us_per_job > 0
