"""Workers that are killed or suspended, or whose engine or event loop hangs. Others go on."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from child_processes import is_alive, wait_until
from scripted_engine import ScriptedEngine
from simulated_workers import check_texts, send, worker_command, worker_process
from worker_support import Client, check_answers, has_workers, until

from ops.local.supervisor import Child, Supervisor
from shared.errors import EngineStalled
from shared.protocol.jobs import Job, JobState
from shared.store.views.pool_views import WorkerView
from worker.service import Worker
from worker.watchdog import until_stalled

LEASE_MS = 1000
STEP_MS = 10
STALL_S = 1.0
BEFORE_DEFAULT_STALL_S = 40.0
"""Less than the default of `--stall-s`, which is 60, and more than a busy machine needs."""
PROCESS_DEADLINE_S = 60.0
Processes = list["subprocess.Popen[bytes]"]
HANGING_WORKER = Path(__file__).parents[1] / "support" / "hanging_worker.py"


@pytest.fixture
def two_workers(redis_url: str, pool: str) -> Iterator[Processes]:
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
    client: Client, two_workers: Processes
) -> None:
    jobs = await send_to_both(client)
    (victim,) = of_process(await client.views.workers(), two_workers[0])
    assert victim.running
    os.kill(two_workers[0].pid, signal.SIGKILL)
    ends = [await client.end_of(job) for job in jobs]
    assert [end.state for end in ends] == [JobState.DONE] * len(jobs)
    assert sum(end.try_ > 1 for end in ends) >= victim.running
    assert check_texts(client, jobs) >= victim.running


@pytest.mark.slow
async def test_a_suspended_worker_is_fenced_and_serves_again_afterwards(
    client: Client, two_workers: Processes
) -> None:
    jobs = await send_to_both(client)
    suspended = two_workers[0]
    (before,) = of_process(await client.views.workers(), suspended)
    os.kill(suspended.pid, signal.SIGSTOP)

    async def is_reaped() -> bool:
        return not of_process(await client.views.workers(), suspended)

    await until(is_reaped)
    os.kill(suspended.pid, signal.SIGCONT)
    ends = [await client.end_of(job) for job in jobs]
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
        assert process.wait(PROCESS_DEADLINE_S) == 0
    assert await client.views.workers() == []


async def test_a_worker_whose_engine_hangs_ends_and_another_finishes_its_jobs(
    client: Client,
) -> None:
    hanging, healthy = ScriptedEngine(step_s=0.002), ScriptedEngine(step_s=0.002)
    hanging.may_step.clear()
    with pytest.RaisesGroup(EngineStalled, flatten_subgroups=True):
        async with client.worker(hanging, lease_ms=600, stall_s=0.3) as worker:
            jobs = [await client.send(max_tokens=20, seed=seed) for seed in range(3)]
            await until(lambda: len(hanging.requests) == 3)
            await until_cancelled(worker)
    async with client.worker(healthy, lease_ms=600):
        ends = [await client.end_of(job) for job in jobs]
    assert [(end.state, end.try_) for end in ends] == [(JobState.DONE, 2)] * 3
    check_answers(client, jobs)
    hanging.may_step.set()  # its thread must not post outputs to a closed event loop
    await until(lambda: not hanging.requests)


async def test_an_engine_that_is_slow_or_idle_is_not_stalled(client: Client) -> None:
    engine = ScriptedEngine(step_s=0.1)
    async with client.worker(engine, stall_s=0.3):
        job = await client.send(max_tokens=5)
        assert (await client.end_of(job)).state is JobState.DONE
        await asyncio.sleep(0.5)  # idle for longer than the limit
        job = await client.send(max_tokens=1)
        assert (await client.end_of(job)).state is JobState.DONE


async def test_a_worker_reports_the_duration_of_its_engines_current_step(client: Client) -> None:
    engine = ScriptedEngine()
    async with client.worker(engine, lease_ms=300, stall_s=2.0):
        engine.may_step.clear()
        job = await client.send(max_tokens=3)

        async def is_stalled() -> bool:
            (worker,) = await client.views.workers()
            return worker.info.is_stalled and worker.info.step_ms >= 1000

        await until(is_stalled)
        engine.may_step.set()
        assert (await client.end_of(job)).state is JobState.DONE


@pytest.mark.slow
async def test_a_process_with_a_hung_engine_exits_and_its_supervisor_starts_another(
    client: Client, redis_url: str, pool: str
) -> None:
    lines: list[str] = []
    workers = [supervised(f"w{i}", redis_url, pool, lines) for i in range(2)]
    supervisor = Supervisor([workers])
    running = asyncio.create_task(supervisor.run())
    await until(lambda: has_workers(client.views, 2), PROCESS_DEADLINE_S)
    before = {worker.pid for worker in workers}
    jobs = [await send(client, max_tokens=150, seed=seed) for seed in range(6)]
    for job in jobs:
        await client.until_published(job, 5)
    hung_s = time.monotonic()
    os.kill(workers[0].pid, signal.SIGUSR1)
    ends = [await client.end_of(job) for job in jobs]
    assert time.monotonic() - hung_s < BEFORE_DEFAULT_STALL_S
    assert [end.state for end in ends] == [JobState.DONE] * len(jobs)
    assert any(end.try_ > 1 for end in ends)
    assert check_texts(client, jobs) > 0
    await until(lambda: has_workers(client.views, 2), PROCESS_DEADLINE_S)
    assert before & {worker.pid for worker in workers} == {workers[1].pid}
    assert any("ended (exit code 1)" in line for line in lines)
    assert any("engine_stalled" in line for line in lines)
    supervisor.stop()
    await running


def supervised(name: str, redis_url: str, pool: str, lines: list[str]) -> Child:
    settings = {"drain_s": 0, "max_num_seqs": 4, "lease_ms": LEASE_MS, "stall_s": STALL_S}
    return Child(
        name=name,
        argv=worker_command(redis_url, pool, simulated_step_ms=10, **settings),
        env=dict(os.environ),
        stop_timeout_s=10,
        show=lambda _, line: lines.append(line),
    )


async def until_cancelled(worker: Worker) -> None:
    """Wait for the worker's error, which cancels this wait through the enclosing task group."""
    await asyncio.sleep(20)
    raise AssertionError(f"{worker} still runs")


async def test_time_in_which_the_process_was_suspended_is_not_counted() -> None:
    limit_s, start_s = 0.3, time.monotonic()
    watching = asyncio.create_task(until_stalled(lambda: time.monotonic() - start_s, limit_s))
    await asyncio.sleep(limit_s / 10)
    time.sleep(2 * limit_s)  # noqa: ASYNC251 -- suspends the process and its engine
    await asyncio.sleep(limit_s / 10)
    assert not watching.done()
    watching.cancel()


@pytest.mark.parametrize(
    "kind",
    [pytest.param("engine", marks=pytest.mark.slow), pytest.param("loop", marks=pytest.mark.long)],
)
async def test_a_worker_that_hangs_ends_in_time_and_another_finishes_its_jobs(
    kind: str, client: Client, redis_url: str, pool: str
) -> None:
    """A thread holds the GIL, or blocks the event loop."""
    lease_ms, stall_s = 1500, 2.0
    settings = {"lease_ms": lease_ms, "stall_s": stall_s, "simulated_step_ms": STEP_MS}
    program = (sys.executable, str(HANGING_WORKER), kind)
    with worker_process(redis_url, pool, program=program, **settings) as hanging:
        await until(lambda: has_workers(client.views, 1), PROCESS_DEADLINE_S)
        jobs = [await send(client, max_tokens=400, seed=seed) for seed in range(3)]
        for job in jobs:
            await client.until_published(job, 5)
        hung_s = time.monotonic()
        hanging.send_signal(signal.SIGUSR1)
        await until(lambda: hanging.poll() is not None, PROCESS_DEADLINE_S)
        assert time.monotonic() - hung_s < BEFORE_DEFAULT_STALL_S
        assert hanging.returncode == signal.SIGUSR2
    with worker_process(redis_url, pool, lease_ms=lease_ms):
        ends = [await client.end_of(job) for job in jobs]
    assert [end.state for end in ends] == [JobState.DONE] * len(jobs)
    assert all(end.try_ > 1 for end in ends)
    assert check_texts(client, jobs) == len(jobs)


LIMIT_S = 1.0
EXIT_HUNG = int(signal.SIGUSR2)
DEADLINE_S = 30.0
PROGRAM = """
import asyncio, ctypes, sys, threading, time
from worker.watchdog import watched

def hold_gil():
    ctypes.PyDLL(None).sleep(1000)

async def main():
    async with watched({limit_s}):
        await asyncio.sleep({limit_s} / 10)
        print("watched", flush=True)
        line = await asyncio.to_thread(sys.stdin.readline)
        {hang}
        await asyncio.to_thread(sys.stdin.readline)

asyncio.run(main())
"""
HANGS = {
    "a thread holds the GIL": "threading.Thread(target=hold_gil).start()",
    "the event loop holds the GIL": "hold_gil()",
    "the event loop waits without the GIL": "time.sleep(1000)",
    "the event loop computes": "exec('while True: pass')",
}
Process = subprocess.Popen[str]


@contextmanager
def watched_process(hang: str = "pass", *, prefix: tuple[str, ...] = ()) -> Iterator[Process]:
    """Run a process in a group of its own that executes `hang` after a line on stdin."""
    program = PROGRAM.format(limit_s=LIMIT_S, hang=hang)
    process = subprocess.Popen(
        [*prefix, sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        assert process.stdout.readline() == "watched\n"
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def next_line(process: Process) -> None:
    """Let the process take its next step."""
    process.stdin.write("\n")
    process.stdin.flush()


def watchdog_of(process: Process) -> int:
    """Return the id of the process's watchdog, its only child; 0 if it has none."""
    return next((child.pid for child in psutil.Process(process.pid).children()), 0)


def ignores(pid: int, number: int) -> bool:
    status = Path(f"/proc/{pid}/status").read_text()
    (mask,) = [line.split()[1] for line in status.splitlines() if line.startswith("SigIgn:")]
    return bool(int(mask, 16) >> (number - 1) & 1)


@pytest.mark.slow
@pytest.mark.parametrize("hang", HANGS.values(), ids=HANGS)
def test_a_process_whose_event_loop_stands_still_exits_and_prints_its_tracebacks(
    hang: str,
) -> None:
    with watched_process(hang) as process:
        watchdog = watchdog_of(process)
        next_line(process)
        _, errors = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == EXIT_HUNG
    assert "lorikeet: worker_hung: the event loop of process" in errors
    assert "most recent call first" in errors
    wait_until(lambda: not is_alive(watchdog))


@pytest.mark.slow
def test_a_process_that_runs_its_event_loop_goes_on_and_takes_its_watchdog_with_it() -> None:
    with watched_process() as process:
        watchdog = watchdog_of(process)
        time.sleep(2 * LIMIT_S)  # twice the time after which it would have been ended
        next_line(process)
        next_line(process)
        _, errors = process.communicate(timeout=DEADLINE_S)
    assert (process.returncode, errors) == (0, "")
    assert not is_alive(watchdog)


@pytest.mark.slow
def test_a_suspended_process_or_group_goes_on_afterwards() -> None:
    with watched_process() as process:
        for send in (os.kill, os.killpg):
            send(process.pid, signal.SIGSTOP)
            time.sleep(2 * LIMIT_S)  # the process must not be ended in this time
            send(process.pid, signal.SIGCONT)
            time.sleep(LIMIT_S / 2)
        next_line(process)
        next_line(process)
        _, errors = process.communicate(timeout=DEADLINE_S)
    assert (process.returncode, errors) == (0, "")


@pytest.mark.slow
def test_the_watchdog_ends_with_a_killed_process_and_a_killed_watchdog_is_replaced() -> None:
    with watched_process() as process:
        watchdog = watchdog_of(process)
        process.kill()
        wait_until(lambda: not is_alive(watchdog))
    with watched_process(HANGS["the event loop holds the GIL"]) as process:
        first = watchdog_of(process)
        os.kill(first, signal.SIGKILL)
        wait_until(lambda: watchdog_of(process) not in (0, first))
        next_line(process)
        log, _ = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == EXIT_HUNG
    assert "watchdog_ended" in log


@pytest.mark.slow
def test_a_drain_signal_to_all_processes_of_a_terminal_leaves_the_watchdog() -> None:
    with watched_process(HANGS["the event loop holds the GIL"]) as process:
        watchdog = watchdog_of(process)
        for number in (signal.SIGINT, signal.SIGTERM):
            wait_until(lambda ignored=number: ignores(watchdog, ignored))
            os.kill(watchdog, number)
        next_line(process)
        log, _ = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == EXIT_HUNG
    assert "watchdog_ended" not in log


@pytest.mark.slow
def test_the_first_process_of_a_container_is_ended() -> None:
    prefix = ("unshare", "--map-root-user", "--pid", "--fork", "--mount-proc")
    with watched_process(HANGS["a thread holds the GIL"], prefix=prefix) as process:
        next_line(process)
        _, errors = process.communicate(timeout=DEADLINE_S)
    assert "the event loop of process 1 hasn't run" in errors
    assert process.returncode == EXIT_HUNG
