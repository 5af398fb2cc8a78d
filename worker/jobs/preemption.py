"""Chooses which preemptible jobs, such as jobs of batches, make room for other jobs. Pure."""

from collections.abc import Sequence

from worker.jobs.running import RunningJob


def jobs_to_preempt(
    jobs: Sequence[RunningJob], *, max_sequences: int, max_tokens: int
) -> list[RunningJob]:
    """Return the preemptible jobs that must make room for other jobs, youngest first.

    Preemptible jobs never make room for each other: a worker takes them only if it has room. `jobs`
    are the worker's unfinished jobs, in the order of their claims. At most `max_sequences` choices
    run at the same time, and `max_tokens` fit into the KV cache.
    """
    preemptible = [job for job in jobs if job.job.is_preemptible]
    if len(preemptible) == len(jobs):
        return []
    sequences = sum(job.num_open for job in jobs)
    tokens = sum(job.job.cost for job in jobs)
    preempted: list[RunningJob] = []
    while preemptible and (sequences > max_sequences or tokens > max_tokens):
        job = preemptible.pop()
        sequences, tokens = sequences - job.num_open, tokens - job.job.cost
        preempted.append(job)
    return preempted
