"""`lorikeet jobs` on a real front end."""

import io
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest
from adapter_versions import BASE
from queue_support import LIMITS, Actor, make_adapter, make_job

from ops.commands.clients.client_options import NotConfirmed
from ops.commands.clients.jobs import JobsLeft, _act_on_many
from ops.server_client import ServerError
from shared.errors import SettingsError
from shared.protocol.ids import JobId
from shared.protocol.jobs import Job, JobState
from shared.store.adapters.registry import Registry
from shared.store.jobs.queue import Queue
from shared.store.redis.connection import Redis
from shared.store.redis.keys import Keys
from shared.store.views.pool_views import PoolViews

Run = Callable[..., Awaitable[str]]
TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
ANONYMOUS = "default"


def own_job(version: str = "a@1", **fields: Any) -> Job:
    return make_job(version, tenant=ANONYMOUS, **fields)


async def test_a_job_is_listed_shown_and_cancelled(
    on_front_end: Run, queue: Queue, views: PoolViews
) -> None:
    assert await on_front_end("jobs", "list") == "there are no jobs\n"
    job = own_job()
    await queue.enqueue(job, LIMITS)
    (row,) = [line for line in (await on_front_end("jobs", "list")).splitlines() if job.id in line]
    assert row.split()[1:3] == ["queued", job.model]
    for name in (job.id, f"chatcmpl-{job.id}"):
        assert "queued" in await on_front_end("jobs", "show", name)
    assert "there are no such jobs" in await on_front_end("jobs", "list", "--state", "failed")

    assert await on_front_end("jobs", "cancel", job.id) == f"{job.id}: cancelled\n"

    view = await views.job(job.id)
    assert view is not None
    assert view.state is JobState.CANCELLED
    assert job.id in await on_front_end("jobs", "list", "--state", "cancelled", "--state", "done")


async def test_a_list_of_jobs_fits_80_columns(
    on_front_end: Run, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    for _ in range(3):
        await queue.enqueue(own_job("a-long-name-of-an-adapter/with-a-part@111111111111"), LIMITS)
    lines = (await on_front_end("jobs", "list", "--limit", "2")).splitlines()
    assert sum("queued" in line for line in lines) == 2
    assert max(map(len, lines)) <= 80


async def test_cancelling_a_running_job_says_that_its_worker_will_stop_it(
    on_front_end: Run, queue: Queue, redis: Redis, keys: Keys
) -> None:
    job = own_job()
    await queue.enqueue(job, LIMITS)
    worker = await Actor(queue, redis, keys, "w1", ["a@1"]).register()
    assert await worker.claim_ids() == [job.id]
    shown = await on_front_end("jobs", "cancel", job.id)
    assert shown == f"{job.id}: cancelling: its worker will stop it\n"


async def test_dead_jobs_are_listed_and_shown_with_the_reason(
    on_front_end: Run, queue: Queue, redis: Redis, keys: Keys
) -> None:
    assert await on_front_end("jobs", "dead") == "there are no dead jobs\n"
    job = await dead_job(queue, redis, keys)
    shown = await on_front_end("jobs", "dead")
    for word in (job.id, job.model, "dead", "poison_job"):
        assert word in shown
    shown = await on_front_end("jobs", "show", job.id)
    for word in ("killed its worker 2 times", "not be tried"):
        assert word in shown


async def test_a_dead_job_is_retried_with_the_current_weights(
    on_front_end: Run, queue: Queue, redis: Redis, keys: Keys
) -> None:
    dead = await dead_job(queue, redis, keys)
    registry = Registry(redis, keys)
    await registry.set_base(BASE)
    await registry.add_adapter(make_adapter("a@2"))

    output = await on_front_end("jobs", "retry", f"chatcmpl-{dead.id}")

    worker = await Actor(queue, redis, keys, "w2", ["a@2"]).register()
    (claimed,) = await worker.claim()
    assert output == f"chatcmpl-{dead.id}: enqueued as {claimed.job.id}, number 1 of its queue\n"
    assert claimed.suspect
    same = replace(dead, id=claimed.job.id, version="a@2", reply_to=claimed.job.reply_to)
    same = replace(same, fingerprint="fp_1_2")
    assert replace(claimed.job, created_s=0, traceparent=TRACEPARENT) == same
    with pytest.raises(ServerError, match="is dead: it was retried before"):
        await on_front_end("jobs", "retry", dead.id)


async def dead_job(queue: Queue, redis: Redis, keys: Keys) -> Job:
    """Enqueue a job and let it kill its worker until it is a dead letter."""
    job = own_job(traceparent=TRACEPARENT)
    await queue.enqueue(job, LIMITS)
    worker = await Actor(queue, redis, keys, "w1", ["a@1"]).register()
    await worker.die_of(job)
    return job


@pytest.mark.parametrize("command", ["show", "cancel", "retry"])
@pytest.mark.parametrize("job_id", ["nothing", "\udcff"])
async def test_an_unknown_job_is_an_error(on_front_end: Run, command: str, job_id: str) -> None:
    with pytest.raises(ServerError, match="doesn't exist or has expired"):
        await on_front_end("jobs", command, job_id)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["cancel"], "give either ids of jobs, or a filter"),
        (["retry", "x", "--model", "a"], "give either ids of jobs, or a filter"),
        (["list", "--min-age", "soon"], "--min-age: 'soon' isn't a time such as 90s"),
        (["list", "--max-age", "1.5h"], "--max-age"),
    ],
)
async def test_contradicting_options_are_refused(
    on_front_end: Run, words: list[str], reason: str
) -> None:
    with pytest.raises(SettingsError, match=reason):
        await on_front_end("jobs", *words)


class ManyJobs:
    """Client of a server with many jobs, of which one request cancels `size`."""

    def __init__(self, matched: int, size: int, refused: int = 0) -> None:
        self.left, self.size, self.refused = matched, size, refused
        self.sent: list[tuple[str, dict[str, object], bool]] = []

    def act_on_many(self, action: str, filters: dict[str, object], *, dry_run: bool) -> Any:
        self.sent.append((action, filters, dry_run))
        matched = min(self.left, self.size)
        done = 0 if dry_run else max(0, matched - self.refused)
        if not dry_run:
            self.left -= done
        jobs = [{"id": JobId(f"{number:032x}"), "error": None} for number in range(matched)]
        if self.refused:
            jobs[0]["error"] = "the request was invalid"
        has_more = not dry_run and self.left > self.refused
        return {
            "matched": matched,
            "done": done,
            "skipped": matched - done,
            "jobs": jobs,
            "has_more": has_more,
        }


def test_many_jobs_are_counted_before_they_are_changed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    many = ManyJobs(25, 10)
    _act_on_many(many, "cancel", {"model": "a"}, yes=True)  # type: ignore[arg-type]
    assert [dry for _, _, dry in many.sent] == [True, False, False, False]
    printed = capsys.readouterr()
    assert "10 jobs match, for example:" in printed.err
    assert printed.out == "25 cancelled\n"


def test_without_a_confirmation_no_job_is_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("no\n"))
    many = ManyJobs(3, 10)
    with pytest.raises(NotConfirmed, match="nothing was changed"):
        _act_on_many(many, "retry", {}, yes=False)  # type: ignore[arg-type]
    assert many.left == 3


def test_jobs_that_stay_as_they_are_fail_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(JobsLeft, match="2 jobs were left as they are: the request was invalid"):
        _act_on_many(ManyJobs(5, 10, refused=2), "retry", {}, yes=True)  # type: ignore[arg-type]
    assert capsys.readouterr().out == "3 enqueued again\n"


def test_no_matching_job_changes_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    many = ManyJobs(0, 10)
    _act_on_many(many, "cancel", {}, yes=False)  # type: ignore[arg-type]
    assert capsys.readouterr().out == "no job to cancel matches\n"
    assert len(many.sent) == 1


async def test_jobs_are_cancelled_and_retried_by_a_filter(
    on_front_end: Run, queue: Queue, redis: Redis, keys: Keys
) -> None:
    registry = Registry(redis, keys)
    await registry.set_base(BASE)
    await registry.add_adapter(make_adapter("a@1"))
    dead = await dead_job(queue, redis, keys)
    for version in ("a@1", "a@1", "b@1"):
        await queue.enqueue(own_job(version), LIMITS)
    words = ("--model", "a", "--state", "queued", "--max-age", "1h", "--yes")
    assert await on_front_end("jobs", "cancel", *words) == "2 cancelled\n"
    assert await on_front_end("jobs", "cancel", *words) == "no job to cancel matches\n"
    output = await on_front_end("jobs", "retry", "--error-code", "poison_job", "--yes")
    assert output == "1 enqueued again\n"
    shown = await on_front_end("jobs", "show", dead.id)
    for event in ("accepted", "claimed", "worker_lost", "dead"):
        assert event in shown
    listed = await on_front_end("jobs", "list", "--tenant", "*", "--state", "queued")
    assert listed.count("queued") == 2
