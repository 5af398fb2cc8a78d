"""Worker processes that are killed or suspended while they stream answers."""

import os
import signal
import subprocess
from collections.abc import Iterator

import pytest
from simulated_workers import check_texts, send, worker_process
from worker_support import Client, has_workers, until

from shared.protocol.jobs import Job, JobState
from shared.store.views.pool_views import WorkerView

LEASE_MS = 1000
STEP_MS = 10
PROCESS_DEADLINE_S = 60.0


@pytest.fixture
def two_workers(redis_url: str, pool: str) -> Iterator[list["subprocess.Popen[bytes]"]]:
    settings = {"lease_ms": LEASE_MS, "max_num_seqs": 4}
    with (
        worker_process(redis_url, pool, simulated_step_ms=STEP_MS, **settings) as one,
        worker_process(redis_url, pool, simulated_step_ms=STEP_MS, **settings) as two,
    ):
        yield [one, two]


async def send_to_both(client: Client) -> list[Job]:
    """Send enough jobs to occupy two workers, and wait until all of them stream."""
    await until(lambda: has_workers(client.views, 2), PROCESS_DEADLINE_S)
    jobs = [await send(client, seed=seed, max_tokens=200 + 10 * seed) for seed in range(6)]
    jobs += [await send(client, seed=seed, max_tokens=150, n=2) for seed in (6,)]
    for job in jobs:
        await client.until_published(job, 20)
    assert all(worker.running for worker in await client.views.workers())
    return jobs


def of_process(workers: list[WorkerView], process: "subprocess.Popen[bytes]") -> list[WorkerView]:
    return [worker for worker in workers if worker.id.split(":")[1] == str(process.pid)]


async def test_another_worker_continues_the_jobs_of_a_killed_worker_without_gap_or_overlap(
    client: Client, two_workers: list["subprocess.Popen[bytes]"]
) -> None:
    jobs = await send_to_both(client)
    (victim,) = of_process(await client.views.workers(), two_workers[0])
    assert victim.running
    os.kill(two_workers[0].pid, signal.SIGKILL)
    ends = [await client.end_of(job, 60) for job in jobs]
    assert [end.state for end in ends] == [JobState.DONE] * len(jobs)
    assert sum(end.try_ > 1 for end in ends) >= victim.running
    assert check_texts(client, jobs) >= victim.running


async def test_a_suspended_worker_is_fenced_and_serves_again_afterwards(
    client: Client, two_workers: list["subprocess.Popen[bytes]"]
) -> None:
    jobs = await send_to_both(client)
    suspended = two_workers[0]
    (before,) = of_process(await client.views.workers(), suspended)
    os.kill(suspended.pid, signal.SIGSTOP)

    async def is_reaped() -> bool:
        return not of_process(await client.views.workers(), suspended)

    await until(is_reaped)
    os.kill(suspended.pid, signal.SIGCONT)
    ends = [await client.end_of(job, 60) for job in jobs]
    assert [end.state for end in ends] == [JobState.DONE] * len(jobs)
    assert check_texts(client, jobs) > 0

    async def is_registered_again() -> bool:
        return bool(of_process(await client.views.workers(), suspended))

    await until(is_registered_again)
    (after,) = of_process(await client.views.workers(), suspended)
    assert after.id != before.id
    os.kill(two_workers[1].pid, signal.SIGKILL)
    later = await send(client, seed=3, max_tokens=10)
    assert (await client.end_of(later)).state is JobState.DONE


async def test_sigterm_lets_running_jobs_finish_and_exits_cleanly(
    client: Client, redis_url: str, pool: str
) -> None:
    with worker_process(redis_url, pool, simulated_step_ms=STEP_MS) as process:
        job = await send(client, max_tokens=100)
        await client.until_published(job, 2)
        process.send_signal(signal.SIGTERM)
        assert (await client.end_of(job)).try_ == 1
        assert process.wait(20) == 0
    assert await client.views.workers() == []
