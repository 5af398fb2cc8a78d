"""Tasks of the control process: what they do and log, their bounds, and the process itself."""

import asyncio
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from arq.connections import ArqRedis
from arq.worker import Function
from child_processes import child_processes
from pydantic import SecretStr
from queue_support import INFO, LIMITS, Actor, eventually, make_job
from servers import LORIKEET
from structlog.testing import capture_logs

from ops.control.batches.assembly import batch_work
from ops.control.batches.webhook import Webhook
from ops.control.tasks import TASKS, ControlTask, ControlTasks
from ops.lab.generate.bounds import WORK
from ops.local.embedded_redis import EmbeddedRedis
from shared.errors import RedisUnavailable
from shared.protocol.ids import AdapterVersion, JobId
from shared.settings import ControlSettings
from shared.store.audit import running_audit
from shared.store.jobs.queue import Queue
from shared.store.redis.connection import Redis
from shared.store.redis.keys import Keys
from shared.store.views.pool_views import PoolViews

A = AdapterVersion("a@1")
DAY_MS = 86_400_000
LETTER = {
    "id": "0" * 32,
    "version": A,
    "tenant": "red",
    "try": 3,
    "worker": "w1",
    "body": "",
    "error": '{"code":"poison_job","message":"it kills"}',
}


@pytest.fixture
def tasks(redis: Redis, keys: Keys) -> ControlTasks:
    return ControlTasks(redis, keys, ControlSettings())


async def now_ms(redis: Redis) -> int:
    seconds, _ = await redis.time()
    return int(seconds) * 1000


async def add_letter(redis: Redis, keys: Keys, age_ms: int, **changes: str) -> None:
    letter: dict[Any, Any] = {**LETTER, **changes}
    await redis.xadd(keys.dead, letter, id=f"{await now_ms(redis) - age_ms}-*")


async def test_every_task_runs_on_an_empty_pool_and_twice(tasks: ControlTasks) -> None:
    with capture_logs() as logs:
        for task in (*TASKS, *TASKS):
            await task.run_guarded(tasks)
    assert logs == []


async def test_workers_that_were_given_up_are_logged(
    tasks: ControlTasks, queue: Queue, redis: Redis, keys: Keys
) -> None:
    await queue.enqueue(make_job(), LIMITS)
    worker = await Actor(queue, redis, keys, "w1", [A]).register()
    await worker.claim()
    await queue.beat(worker.id, lease_ms=0, info=INFO)
    await queue.reap()  # marks the worker as missing
    await redis.hdel(keys.counters, "swept")  # type: ignore[misc]  # the next sweep is due at once
    with capture_logs() as logs:
        await tasks.reap()
    assert [(line["event"], line["workers"], line["requeued"]) for line in logs] == [
        ("workers_given_up", 1, 1)
    ]


@pytest.mark.parametrize(
    ("settings", "is_released"),
    [
        (ControlSettings(quarantine_s=600), True),
        (ControlSettings(quarantine_s=800), False),
        (ControlSettings(quarantine_s=0), False),
    ],
)
async def test_quarantined_versions_are_released_after_the_set_time(
    redis: Redis, keys: Keys, settings: ControlSettings, is_released: bool
) -> None:
    await redis.hset(keys.version(A), "state", "quarantined")  # type: ignore[misc]
    await redis.zadd(keys.quarantined, {A: await now_ms(redis) - 700_000})
    with capture_logs() as logs:
        await ControlTasks(redis, keys, settings).release_quarantined()
    assert [line["versions"] for line in logs] == ([[A]] if is_released else [])


async def test_retired_versions_are_deleted_without_workers(
    tasks: ControlTasks, redis: Redis, keys: Keys
) -> None:
    await redis.hset(keys.version(A), "state", "retired")  # type: ignore[misc]
    await redis.zadd(keys.retired, {A: await now_ms(redis) - DAY_MS})
    with capture_logs() as logs:
        await tasks.forget_unused()
    assert [line["versions"] for line in logs] == [[A]]
    assert await redis.exists(keys.version(A), keys.retired) == 0


async def test_new_dead_letters_are_logged_in_one_line(
    tasks: ControlTasks, redis: Redis, keys: Keys
) -> None:
    await add_letter(redis, keys, 2000)
    await add_letter(redis, keys, 1000, version="b@1")
    with capture_logs() as logs:
        await tasks.report_dead_letters()
        await tasks.report_dead_letters()
    (line,) = logs
    assert (line["event"], line["log_level"]) == ("new_dead_letters", "warning")
    assert (line["num_letters"], line["by_version"]) == (2, {A: 1, "b@1": 1})
    assert line["newest_ms"] - line["oldest_ms"] == pytest.approx(1000, abs=1000)


async def test_old_and_many_dead_letters_are_deleted(redis: Redis, keys: Keys) -> None:
    await add_letter(redis, keys, 3 * DAY_MS)
    for age_ms in range(40, 0, -1):
        await add_letter(redis, keys, age_ms, body="x" * 60_000)
    tasks = ControlTasks(redis, keys, ControlSettings(dead_letter_days=2, dead_letters_mb=1))
    with capture_logs() as logs:
        await tasks.trim_dead_letters()
    left = await redis.xlen(keys.dead)
    assert 5 <= left < 20
    assert [line["num_letters"] for line in logs] == [41 - left]


async def test_strays_are_logged_once(
    tasks: ControlTasks, redis: Redis, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running_audit, "LOOK_S", 0.01)
    stray = keys.result(JobId("0" * 32))
    await redis.set(stray, "x")
    with capture_logs() as logs:
        for _ in range(3):
            await tasks.audit()
    (line,) = logs
    assert (line["event"], line["num_strays"]) == ("stray_keys", 1)
    assert (line["strays"][0]["key"], line["strays"][0]["reason"]) == (stray, "it never expires")


@pytest.mark.parametrize(
    ("error", "level"),
    [(RuntimeError("a bug"), "error"), (RedisUnavailable("away"), "warning"), (None, "warning")],
    ids=["a bug", "no Redis", "it hangs"],
)
async def test_a_task_that_fails_is_logged(
    tasks: ControlTasks, error: Exception | None, level: str
) -> None:
    async def run(_: ControlTasks) -> None:
        if error:
            raise error
        await asyncio.Event().wait()

    task = ControlTask("bad", run, range(60), timeout_s=0.05)
    with capture_logs() as logs:
        await task.run_guarded(tasks)
    (line,) = logs
    assert (line["event"], line["task"], line["log_level"]) == ("task_failed", "bad", level)


Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start_control() -> Iterator[Start]:
    with child_processes() as start_process:

        def start(url: str, pool: str, *flags: str) -> "subprocess.Popen[str]":
            command = [str(LORIKEET), "control", "--redis-url", url, "--pool", pool, *flags]
            return start_process(command, stderr=subprocess.PIPE)

        yield start


async def logs(control: "subprocess.Popen[str]", event: str) -> None:
    assert control.stderr is not None
    line = "started"
    while event not in line:
        line = await asyncio.wait_for(asyncio.to_thread(control.stderr.readline), 60)
        assert line, "the process ended"


async def check_dead_worker_is_reaped(redis: Redis, keys: Keys) -> None:
    queue, views = Queue(redis, keys), PoolViews(redis, keys)
    worker = await Actor(queue, redis, keys, "w1", ["a@1"]).register(lease_ms=100)
    await queue.enqueue(make_job(), LIMITS)
    assert len(await worker.claim()) == 1

    async def is_requeued() -> bool:
        return (await views.counts()).waiting == 1

    await eventually(is_requeued)


@pytest.mark.slow
async def test_it_continues_after_redis_was_unavailable_and_stops_while_it_is(
    start_control: Start,
    start_server: Callable[..., EmbeddedRedis],
    open_client: Callable[[str], Redis],
    pool: str,
    keys: Keys,
    tmp_path: Path,
) -> None:
    server = start_server()
    control = start_control(server.url, pool, "--file-store", str(tmp_path))  # with batches
    redis = open_client(server.url)
    await check_dead_worker_is_reaped(redis, keys)
    server.stop()
    await logs(control, "redis_away")
    server = start_server(port=server.port)
    await check_dead_worker_is_reaped(redis, keys)
    server.stop()
    await logs(control, "redis_away")
    control.send_signal(signal.SIGINT)  # other tests send SIGTERM
    _, log = control.communicate(timeout=30)
    assert control.returncode == 0
    assert "control_stopped" in log
    assert "Traceback" not in log


@pytest.mark.slow
async def test_of_several_processes_one_runs_each_task(
    start_control: Start, redis_url: str, pool: str, redis: Redis, keys: Keys
) -> None:
    await add_letter(redis, keys, 0)
    controls = [start_control(redis_url, pool) for _ in range(3)]

    async def is_reported() -> bool:
        return bool(await redis.exists(keys.reported))

    await eventually(is_reported)
    for control in controls:
        control.terminate()
    output = "".join(control.communicate(timeout=30)[1] for control in controls)
    assert output.count("new_dead_letters") == 1


SECRET = "whsec_" + "c2VjcmV0" * 4


async def test_each_task_and_each_function_has_a_bound(
    redis: Redis, redis_url: str, pool: str, tmp_path: Path
) -> None:
    settings = ControlSettings(
        redis_url=redis_url,
        pool=pool,
        file_store=str(tmp_path),
        webhook_url="http://127.0.0.1:1/hook",
        webhook_secret=SecretStr(SECRET),
    )
    async with batch_work(settings, Webhook.of(settings), ArqRedis(redis.connection_pool)) as work:
        tasks, functions = [*TASKS, *work.tasks], work.functions
    assert {task.name for task in tasks} | {each.name for each in functions} == set(WORK)
    assert all(task.timeout_s > 0 for task in tasks)
    assert all(_is_bounded(each) for each in functions)


def _is_bounded(function: Function) -> bool:
    return bool(function.timeout_s and function.max_tries)
