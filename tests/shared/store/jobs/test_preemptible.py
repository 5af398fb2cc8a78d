"""Preemptible jobs: they wait behind all others, and take idle capacity only."""


async def test_a_preemptible_job_that_waits_does_not_stop_the_jobs_of_other_adapters(
    actor, enqueue
) -> None:
    await enqueue(is_preemptible=True)
    worker = await actor()
    await worker.claim_ids(sequences=1)
    await enqueue(is_preemptible=True)
    cold = await enqueue("b@1")
    claim = await worker.try_claim(sequences=1, idle_sequences=0, max_cold=1)
    assert [claimed.job.id for claimed in claim.jobs] == [cold.id]
