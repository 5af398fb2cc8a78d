"""`lorikeet queue` against a real Redis, and its view of two samples."""

import io
import re
from collections.abc import Awaitable, Callable
from dataclasses import replace

from api_support import queue_counts
from queue_support import INFO, LIMITS, Actor, make_job
from rich.console import Console

from ops.commands.queue import MAX_BACKLOGS, MAX_NAMES, Sample, render
from shared.protocol.capabilities import AdapterKind, Capabilities, Feature
from shared.protocol.ids import AdapterVersion, WorkerId
from shared.protocol.jobs import JobState
from shared.store.jobs.queue import Queue
from shared.store.redis.connection import Redis
from shared.store.redis.keys import Keys
from shared.store.views.pool_views import Backlog, WorkerView

Run = Callable[..., Awaitable[str]]
COUNTS = queue_counts(waiting=3, totals={JobState.DONE: 10, JobState.FAILED: 1})


def worker(name: str, tokens: int, *residents: str) -> WorkerView:
    info = replace(INFO, tokens_total=tokens, kv_blocks=100, kv_blocks_free=75)
    held = tuple(map(AdapterVersion, residents))
    return WorkerView(id=WorkerId(name), lease_left_ms=4000, info=info, residents=held, running=2)


def backlog(version: str, waiting: int = 1, waited_ms: int = 0) -> Backlog:
    return Backlog(version=AdapterVersion(version), waiting=waiting, next_waited_ms=waited_ms)


def shown(before: Sample, now: Sample, width: int = 160) -> list[str]:
    console = Console(file=io.StringIO(), width=width)
    console.print(render(before, now))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def cells(lines: list[str], name: str) -> list[str]:
    """Return the cells of a row, by its first cell."""
    row = next(line for line in lines if line.strip().startswith(f"{name} "))
    return re.split(r"\s{2,}", row.strip())


async def test_the_queue_shows_workers_and_waiting_jobs(
    run: Run, queue: Queue, redis: Redis, keys: Keys
) -> None:
    await Actor(queue, redis, keys, "w1", ["a@1", "c@2"]).register()
    for version in ("a@1", "b@9", "b@9"):
        await queue.enqueue(make_job(version), LIMITS)

    shown = await run("queue")

    assert "w1" in shown
    assert "c@2" in shown
    (backlog,) = [line.split() for line in shown.splitlines() if "b@9" in line]
    assert backlog[:2] == ["b@9", "2"]
    assert backlog[-4:] == ["0", "of", "1", "workers"]
    assert "1 worker · 0 running · 3 waiting, up to 0." in shown
    assert "jobs/s" not in shown  # rates need two samples


def test_a_mixed_pool_shows_what_each_worker_serves() -> None:
    def serving(name: str, **serves: object) -> WorkerView:
        given = {"kinds": frozenset(), "features": frozenset(), "max_rank": None, **serves}
        view = worker(name, 0)
        return replace(view, info=replace(view.info, serves=Capabilities(**given)))

    more = {"kinds": frozenset({AdapterKind.DORA}), "features": frozenset({Feature.EMBEDDINGS})}
    workers = [worker("w1", 0), serving("w2", max_rank=64), serving("w3", **more)]
    lines = shown(*[Sample(100.0, workers, COUNTS, [])] * 2)
    assert [cells(lines, name)[-1] for name in ("w1", "w2", "w3")] == [
        "everything",
        "plain LoRA up to rank 64",
        "plain LoRA, dora, embeddings",
    ]


def test_rates_are_computed_from_two_samples() -> None:
    later = replace(COUNTS, totals={JobState.DONE: 15, JobState.FAILED: 2})
    before = Sample(100.0, [worker("w1", 1000)], COUNTS, [])
    now = Sample(104.0, [worker("w1", 1400), worker("w2", 9000)], later, [])
    lines = shown(before, now)
    assert lines[0].strip() == "2 workers · 4 running · 3 waiting · 100 tokens/s · 1.5 jobs/s"
    assert cells(lines, "w1") == ["w1", "cpu", "2 of 8", "25%", "100", "1,400", "4.0 s"]
    assert cells(lines, "w2")[4] == "0"  # a new worker has no earlier sample
    lines = shown(before, before)
    assert lines[0].strip() == "1 worker · 2 running · 3 waiting"
    assert cells(lines, "w1")[4] == "-"


def test_a_backlog_shows_the_wait_of_its_next_job_and_its_holders() -> None:
    pool = [worker("w1", 0, "a@1"), worker("w2", 0)]
    lines = shown(*[Sample(1.0, pool, COUNTS, [backlog("a@1", 3, 2500), backlog("b@1")])] * 2)
    assert "3 waiting, up to 2.5 s at a queue's head" in lines[0]
    assert cells(lines, "a@1") == ["a@1", "3", "2.5 s", "1 of 2 workers"]
    assert cells(lines, "b@1") == ["b@1", "1", "0.0 s", "0 of 2 workers"]


def test_a_terminal_of_80_columns_shows_names_and_numbers_unbroken() -> None:
    names = ["extract@893dfec50ca8", "pirate@b13716a93689", "smollm2-135m-instruct@de08613913d4"]
    pool = [worker(f"vm:17:{boot * 32}", 123_456_789, *names) for boot in "ab"]
    text = "\n".join(shown(*[Sample(1.0, pool, COUNTS, [backlog(names[2], 5000)])] * 2, width=80))
    for piece in (
        "vm:17:aaaaaa ",
        "vm:17:bbbbbb ",
        "2 of 8",
        "123,456,789",
        "2 of 2 workers",
        *names,
    ):
        assert piece in text


def test_long_lists_are_shortened() -> None:
    names = [f"n{i}@1" for i in range(MAX_NAMES + 5)]
    backlogs = [backlog(f"v{i}@1") for i in range(MAX_BACKLOGS + 3)]
    text = "\n".join(shown(*[Sample(1.0, [worker("w1", 0, *names)], COUNTS, backlogs)] * 2))
    assert f"n{MAX_NAMES - 1}@1" in text
    assert f"n{MAX_NAMES}@1" not in text
    assert "and 5 more" in text
    assert f"v{MAX_BACKLOGS - 1}@1" in text
    assert f"v{MAX_BACKLOGS}@1" not in text
    assert "and 3 more" in text
