"""`lorikeet queue` and `lorikeet status`: their screens, and the state of a real pool in them."""

import io
import re
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest
from api_support import ADAPTER, BASE, register_models
from queue_support import LIMITS, Actor, make_job
from rich.console import Console

from ops.pool_screen import (
    MAX_ADAPTERS,
    MAX_BACKLOGS,
    MAX_INCIDENTS,
    MAX_NAMES,
    Sample,
    queue_screen,
    status_screen,
)
from shared.protocol.ids import AdapterVersion
from shared.store.adapters.candidates import CandidateMode, Candidates
from shared.store.adapters.registry import Registry
from shared.store.audit import running_audit
from shared.store.jobs.queue import Queue
from shared.store.redis.connection import Redis
from shared.store.redis.keys import Keys

Run = Callable[..., Awaitable[str]]
Body = dict[str, Any]


def worker(name: str, tokens: int, *residents: str, **changes: Any) -> Body:
    held = [{"version": each, "state": "resident", "running": 0} for each in residents]
    return {
        "id": f"id-of-{name}",
        "name": name,
        "device": "cpu",
        "running": 2,
        "max_num_seqs": 8,
        "kv_used": 0.25,
        "tokens_total": tokens,
        "lease_left_s": 4.0,
        "is_stalled": False,
        "serves": None,
        "adapters": held,
        **changes,
    }


def adapter(version: str, waiting: int = 0, waited_s: float | None = None, **changes: Any) -> Body:
    return {
        "name": version.partition("@")[0],
        "version": version,
        "is_current": True,
        "is_base": False,
        "waiting": waiting,
        "running": 0,
        "oldest_waited_s": waited_s,
        "requests": 1234,
        "tokens": 5,
        **changes,
    }


def pool(workers: list[Body], adapters: list[Body] | None = None, **changes: Any) -> Body:
    ended = {"done": 10, "failed": 1, "cancelled": 0, "expired": 0, "dead": 0}
    return {
        "pool": "main",
        "version": "0.2.0",
        "base": "tiny",
        "reason": None,
        "num_adapters": len(adapters or ()),
        "num_strays": 0,
        "incidents": [],
        "workers": workers,
        "adapters": adapters or [],
        "queue": {"waiting": 3, "running": 0, **ended, "retried": 0},
        **changes,
    }


def lines_of(screen: Any, width: int = 160) -> list[str]:
    console = Console(file=io.StringIO(), width=width)
    console.print(screen)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def queue_of(body: Body, width: int = 160) -> list[str]:
    return lines_of(queue_screen(*[Sample(1.0, body)] * 2), width)


def cells(lines: list[str], name: str) -> list[str]:
    """Return the cells of a row, by its first cell."""
    row = next(line for line in lines if line.strip().startswith(f"{name} "))
    return re.split(r"\s{2,}", row.strip())


async def test_the_queue_shows_workers_and_waiting_jobs(
    on_front_end: Run, queue: Queue, redis: Redis, keys: Keys
) -> None:
    await register_models(Registry(redis, keys))
    await Actor(queue, redis, keys, "w1", ["extract@111111111111", "c@2"]).register()
    for version in ("extract@111111111111", BASE.version, BASE.version):
        await queue.enqueue(make_job(version), LIMITS)

    shown = await on_front_end("queue")

    assert "w1" in shown
    assert "c@2" in shown
    (backlog,) = [line.split() for line in shown.splitlines() if BASE.version in line]
    assert backlog[:2] == [BASE.version, "2"]
    assert backlog[-4:] == ["0", "of", "1", "workers"]
    assert "1 worker · 0 running · 3 waiting, up to 0." in shown
    assert "jobs/s" not in shown  # rates need two samples


async def test_the_status_of_a_pool_fits_one_screen(
    on_front_end: Run,
    queue: Queue,
    redis: Redis,
    keys: Keys,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    await register_models(Registry(redis, keys))
    shown = await on_front_end("status")
    assert "requests wait: no worker is alive" in shown
    await Actor(queue, redis, keys, "w1", []).register()
    lines = (await on_front_end("status")).splitlines()
    text = "\n".join(lines)
    for piece in (f"pool {keys.prefix[4:-2]}", BASE.name, "requests are answered", "w1", "extract"):
        assert piece in text
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 80


async def test_the_status_shows_a_candidate_below_its_adapter(
    on_front_end: Run, redis: Redis, keys: Keys
) -> None:
    registry, candidates = Registry(redis, keys), Candidates(redis, keys)
    await register_models(registry)
    name = ADAPTER.name
    tried = replace(ADAPTER, version=AdapterVersion(f"{name}@{'2' * 12}"))
    await registry.add_candidate(tried, keep_versions=4, by="")
    await redis.hset(keys.version(tried.version), mapping={"requests": 7, "tokens": 70})  # type: ignore[misc]
    for mode, percent, trial in (("canary", 10, "canary 10 %"), ("shadow", 2.5, "shadow 2.5 %")):
        await candidates.set(name, None, mode=CandidateMode(mode), percent=percent, by="")
        lines = (await on_front_end("status")).splitlines()
        (at,) = [place for place, line in enumerate(lines) if line.strip().startswith(f"{name} ")]
        version = ADAPTER.version.partition("@")[2]
        assert lines[at].split() == [name, version, "0", "0", "0", "0"]
        assert lines[at + 1].split() == [*trial.split(), "222222222222", "0", "0", "7", "70"]


def test_the_status_begins_with_adapters_that_have_jobs_or_candidates() -> None:
    idle = [adapter(f"a{number:02}@1") for number in range(MAX_ADAPTERS)]
    share = {"mode": "canary", "percent": 10}
    others = [
        adapter("x@1"),
        adapter("x@2", is_current=False, candidate=share),
        adapter("y@0", is_current=False, running=1),
        adapter("y@1"),
        adapter("z@1", waiting=1, waited_s=0.0),
    ]
    lines = lines_of(status_screen("http://x", pool([worker("w1", 0)], [*idle, *others])))
    start = next(place for place, line in enumerate(lines) if "all tokens" in line) + 2
    shown = [line.split() for line in lines[start : start + 6]]
    assert [row[0] for row in shown] == ["y", "0", "z", "x", "canary", "a00"]
    assert shown[4][:4] == ["canary", "10", "%", "2"]
    assert "and 3 more" in "\n".join(lines)


async def test_the_queue_names_the_number_of_strays(
    on_front_end: Run, redis: Redis, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running_audit, "LOOK_S", 0.01)
    assert "stray" not in await on_front_end("queue")
    await redis.set(keys.result("0" * 32), "x")  # type: ignore[arg-type]
    audit = running_audit.RunningAudit(redis, keys)
    for _ in range(2):
        await audit.step()
    assert "stray keys: 1; `lorikeet audit` lists them" in await on_front_end("queue")


def test_a_mixed_pool_shows_what_each_worker_serves() -> None:
    lines = queue_of(pool([worker("w1", 0), worker("w2", 0, serves="plain LoRA, dora")]))
    assert [cells(lines, name)[-1] for name in ("w1", "w2")] == ["everything", "plain LoRA, dora"]


def test_the_state_of_each_worker_is_named() -> None:
    states = [{"state": "paused"}, {"is_stalled": True}, {"lease_left_s": -1.0}, {}]
    workers = [worker(f"w{number}", 0, **changes) for number, changes in enumerate(states)]
    lines = queue_of(pool(workers))
    assert [cells(lines, f"w{number}")[-1] for number in range(4)] == [
        "paused",
        "stalled",
        "lease expired",
        "serving",
    ]


def test_rates_are_computed_from_two_samples() -> None:
    later = {"waiting": 3, "done": 15, "failed": 2, **dict.fromkeys(("cancelled", "expired"), 0)}
    before = Sample(100.0, pool([worker("w1", 1000)]))
    workers = [worker("w1", 1400), worker("w2", 9000)]
    now = Sample(104.0, pool(workers, queue={**later, "dead": 0, "retried": 0}))
    lines = lines_of(queue_screen(before, now))
    assert lines[0].strip() == "2 workers · 4 running · 3 waiting · 100 tokens/s · 1.5 jobs/s"
    assert cells(lines, "w1") == ["w1", "cpu", "2 of 8", "25%", "100", "1,400", "serving"]
    assert cells(lines, "w2")[4] == "0"  # a new worker has no earlier sample
    lines = lines_of(queue_screen(before, before))
    assert lines[0].strip() == "1 worker · 2 running · 3 waiting"
    assert cells(lines, "w1")[4] == "-"


def test_a_backlog_shows_the_wait_of_its_next_job_and_its_holders() -> None:
    workers = [worker("w1", 0, "a@1"), worker("w2", 0)]
    lines = queue_of(pool(workers, [adapter("b@1", 1, 0.0), adapter("a@1", 3, 2.5)]))
    assert "3 waiting, up to 2.5 s at a queue's head" in lines[0]
    assert cells(lines, "a@1") == ["a@1", "3", "2.5 s", "1 of 2 workers"]
    assert cells(lines, "b@1") == ["b@1", "1", "0.0 s", "0 of 2 workers"]


def test_a_terminal_of_80_columns_shows_names_and_numbers_unbroken() -> None:
    names = ["extract@893dfec50ca8", "pirate@b13716a93689", "smollm2-135m-instruct@de08613913d4"]
    workers = [worker(name, 123_456_789, *names) for name in ("aaaa", "bbbb")]
    lines = queue_of(pool(workers, [adapter(names[2], 1, 5.0)]), width=80)
    text = "\n".join(lines)
    for piece in ("aaaa", "bbbb", "2 of 8", "123,456,789", "2 of 2 workers", *names):
        assert piece in text
    assert max(map(len, lines)) <= 80


def test_long_lists_are_shortened() -> None:
    names = [f"n{i}@1" for i in range(MAX_NAMES + 5)]
    waiting = [adapter(f"v{i}@1", 1, 100.0 - i) for i in range(MAX_BACKLOGS + 3)]
    incidents = [{"time": 0.0, "text": f"event {i}"} for i in range(MAX_INCIDENTS + 2)]
    body = pool([worker("w1", 0, *names)], waiting, incidents=incidents)
    text = "\n".join(queue_of(body))
    assert f"n{MAX_NAMES - 1}@1" in text
    assert f"n{MAX_NAMES}@1" not in text
    assert "and 5 more" in text
    assert f"v{MAX_BACKLOGS - 1}@1" in text
    assert f"v{MAX_BACKLOGS}@1" not in text
    assert "and 3 more" in text
    text = "\n".join(lines_of(status_screen("http://x", body)))
    assert f"and {len(waiting) - MAX_ADAPTERS} more; `lorikeet adapters list` shows all" in text
    assert f"event {MAX_INCIDENTS - 1}" in text
    assert f"event {MAX_INCIDENTS}" not in text
