"""Workers in processes of their own, killed and frozen in mid-stream."""

import os
import signal
import subprocess
from collections.abc import Iterator

import pytest
from worker_support import Client, all_seamless, has_workers, until, worker_process

from shared.protocol.jobs import Job, JobState
from shared.store.queue import WorkerView

LEASE_MS = 1000
STEP_S = 0.01
PROCESS_DEADLINE_S = 60.0


@pytest.fixture
def two_workers(redis_url: str, pool: str) -> Iterator[list["subprocess.Popen[bytes]"]]:
    settings = {"lease_ms": LEASE_MS, "max_num_seqs": 4}
    with (
        worker_process(redis_url, pool, step_s=STEP_S, **settings) as one,
        worker_process(redis_url, pool, step_s=STEP_S, **settings) as two,
    ):
        yield [one, two]


async def send_to_both(client: Client) -> list[Job]:
    """As many jobs as two workers hold, all of them streaming."""
    await until(lambda: has_workers(client.queue, 2), PROCESS_DEADLINE_S)
    jobs = [await client.send(seed=seed, max_tokens=200 + 10 * seed) for seed in range(6)]
    jobs += [await client.send(seed=seed, max_tokens=150, n=2) for seed in (6,)]
    for job in jobs:
        await client.until_shown(job, 20)
    assert all(worker.running for worker in await client.queue.workers())
    return jobs


def of_process(workers: list[WorkerView], process: "subprocess.Popen[bytes]") -> list[WorkerView]:
    return [worker for worker in workers if worker.id.split(":")[1] == str(process.pid)]


async def test_jobs_of_a_killed_worker_go_on_elsewhere_without_gap_or_overlap(
    client: Client, two_workers: list["subprocess.Popen[bytes]"]
) -> None:
    jobs = await send_to_both(client)
    (victim,) = of_process(await client.queue.workers(), two_workers[0])
    assert victim.running
    os.kill(two_workers[0].pid, signal.SIGKILL)
    ends = [await client.end_of(job, 60) for job in jobs]
    assert [end.state for end in ends] == [JobState.DONE] * len(jobs)
    assert sum(end.try_ > 1 for end in ends) >= victim.running
    all_seamless(client, jobs)


async def test_a_frozen_worker_is_fenced_and_serves_again_afterwards(
    client: Client, two_workers: list["subprocess.Popen[bytes]"]
) -> None:
    jobs = await send_to_both(client)
    frozen = two_workers[0]
    (before,) = of_process(await client.queue.workers(), frozen)
    os.kill(frozen.pid, signal.SIGSTOP)

    async def is_given_up() -> bool:
        return not of_process(await client.queue.workers(), frozen)

    await until(is_given_up)
    os.kill(frozen.pid, signal.SIGCONT)
    ends = [await client.end_of(job, 60) for job in jobs]
    assert [end.state for end in ends] == [JobState.DONE] * len(jobs)
    all_seamless(client, jobs)

    async def is_back() -> bool:
        return bool(of_process(await client.queue.workers(), frozen))

    await until(is_back)
    (after,) = of_process(await client.queue.workers(), frozen)
    assert after.id != before.id
    os.kill(two_workers[1].pid, signal.SIGKILL)
    later = await client.send(seed=3, max_tokens=10)
    assert (await client.end_of(later)).state is JobState.DONE


async def test_sigterm_lets_running_jobs_finish_and_exits_cleanly(
    client: Client, redis_url: str, pool: str
) -> None:
    with worker_process(redis_url, pool, step_s=STEP_S) as process:
        job = await client.send(max_tokens=100)
        await client.until_shown(job, 2)
        process.send_signal(signal.SIGTERM)
        assert (await client.end_of(job)).try_ == 1
        assert process.wait(20) == 0
    assert await client.queue.workers() == []


async def test_sigterm_without_time_hands_jobs_on_to_the_other_worker(
    client: Client, redis_url: str, pool: str
) -> None:
    with (
        worker_process(redis_url, pool, step_s=STEP_S, drain_s=0.0) as one,
        worker_process(redis_url, pool, step_s=STEP_S, drain_s=0.0) as two,
    ):
        await until(lambda: has_workers(client.queue, 2), PROCESS_DEADLINE_S)
        job = await client.send(max_tokens=300, n=2)
        await client.until_shown(job, 20)
        owner, other = (one, two) if await owner_of(client, job) == one.pid else (two, one)
        owner.send_signal(signal.SIGTERM)
        assert (await client.end_of(job)).try_ == 2
        assert owner.wait(20) == 0
        assert other.poll() is None
    all_seamless(client, [job])


async def owner_of(client: Client, job: Job) -> int:
    """The process id of the worker that runs the job."""
    view = await client.queue.job_view(job.id)
    assert view is not None
    assert view.worker is not None
    return int(view.worker.split(":")[1])
