"""`lorikeet queue`, `jobs`, `keys` and `audit` against a real Redis."""

import asyncio
import io
import re
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial

import pytest
from adapter_versions import BASE
from api_support import queue_counts
from command_line import lorikeet
from queue_support import INFO, LIMITS, Actor, make_adapter, make_job
from rich.console import Console
from typer.testing import CliRunner

from ops import cli
from ops.commands.audit import StraysFound
from ops.commands.queue import MAX_BACKLOGS, MAX_NAMES, Sample, render
from shared.errors import JobFailed, SettingsError
from shared.protocol.access.rights import KeyLimits, Scope
from shared.protocol.capabilities import AdapterKind, Capabilities, Feature
from shared.protocol.ids import AdapterVersion, JobId, WorkerId
from shared.protocol.jobs import Job, JobState
from shared.store.access.key_store import KeyStore
from shared.store.adapters.registry import Registry
from shared.store.audit import running_audit
from shared.store.jobs.queue import Queue
from shared.store.redis.connection import Redis
from shared.store.redis.keys import Keys
from shared.store.views.pool_views import Backlog, PoolViews, WorkerView

Run = Callable[..., Awaitable[str]]


@pytest.fixture
def run(redis_url: str, pool: str, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Return a function that runs `lorikeet WORDS` on the test's pool and returns its output."""
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("LORIKEET_REDIS_URL", redis_url)
    monkeypatch.setenv("LORIKEET_POOL", pool)
    return partial(asyncio.to_thread, lorikeet)


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


TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


async def test_a_job_is_shown_and_cancelled(run: Run, queue: Queue, views: PoolViews) -> None:
    job = make_job("a@1")
    await queue.enqueue(job, LIMITS)
    assert "queued" in await run("jobs", "show", job.id)
    assert "queued" in await run("jobs", "show", f"chatcmpl-{job.id}")

    assert await run("jobs", "cancel", job.id) == f"{job.id}: cancelled\n"

    view = await views.job(job.id)
    assert view is not None
    assert view.state is JobState.CANCELLED
    assert "cancelled" in await run("jobs", "show", job.id)


async def test_cancelling_a_running_job_says_that_its_worker_will_stop_it(
    run: Run, queue: Queue, redis: Redis, keys: Keys
) -> None:
    job = make_job("a@1")
    await queue.enqueue(job, LIMITS)
    worker = await Actor(queue, redis, keys, "w1", ["a@1"]).register()
    assert await worker.claim_ids() == [job.id]
    assert await run("jobs", "cancel", job.id) == f"{job.id}: cancelling: its worker will stop it\n"


async def test_dead_jobs_are_listed_with_the_reason_and_a_summary(
    run: Run, queue: Queue, redis: Redis, keys: Keys
) -> None:
    assert await run("jobs", "dead") == "there are no dead jobs\n"
    job = await dead_job(queue, redis, keys)
    shown = await run("jobs", "dead")
    for word in (job.id, "a@1", "red", "3", "w1", "killed its worker 2 times", "not be tried"):
        assert word in shown
    summary = "dead jobs: 1, all listed; adapters: a@1 (1); workers: w1 (1); errors: poison_job (1)"
    assert summary in shown.splitlines()
    await dead_job(queue, redis, keys)
    shown = await run("jobs", "dead", "--most", "1")
    assert "dead jobs: 2, the newest 1 listed; adapters: a@1 (1)" in shown


async def test_a_dead_job_is_retried_with_the_current_weights(
    run: Run, queue: Queue, redis: Redis, keys: Keys
) -> None:
    dead = await dead_job(queue, redis, keys)
    registry = Registry(redis, keys)
    await registry.set_base(BASE)
    await registry.add_adapter(make_adapter("a@2"))

    output = await run("jobs", "retry", f"chatcmpl-{dead.id}")

    worker = await Actor(queue, redis, keys, "w2", ["a@2"]).register()
    (claimed,) = await worker.claim()
    assert output == f"chatcmpl-{dead.id}: enqueued as {claimed.job.id}, number 1 of its queue\n"
    assert claimed.suspect
    same = replace(dead, id=claimed.job.id, version="a@2", reply_to=claimed.job.reply_to)
    same = replace(same, fingerprint="fp_1_2")
    assert replace(claimed.job, created_s=0, traceparent=TRACEPARENT) == same
    assert claimed.job.traceparent is None
    assert await run("jobs", "dead") == "there are no dead jobs\n"
    with pytest.raises(JobFailed, match="is dead: it was retried before"):
        await run("jobs", "retry", dead.id)


async def test_a_job_whose_model_was_unloaded_stays_a_dead_letter(
    run: Run, queue: Queue, redis: Redis, keys: Keys
) -> None:
    job = await dead_job(queue, redis, keys)
    with pytest.raises(JobFailed, match="model 'a' is no longer served"):
        await run("jobs", "retry", job.id)
    assert job.id in await run("jobs", "dead")


async def dead_job(queue: Queue, redis: Redis, keys: Keys) -> Job:
    """Enqueue a job and let it kill its worker until it is a dead letter."""
    job = make_job("a@1", tenant="red", traceparent=TRACEPARENT)
    await queue.enqueue(job, LIMITS)
    worker = await Actor(queue, redis, keys, "w1", ["a@1"]).register()
    await worker.die_of(job)
    return job


@pytest.mark.parametrize("command", ["show", "cancel", "retry"])
async def test_an_unknown_job_is_an_error(run: Run, command: str) -> None:
    with pytest.raises(JobFailed, match="no job nothing: it never existed, or is no longer kept"):
        await run("jobs", command, "nothing")


STRAY = JobId("0" * 32)


async def test_a_healthy_pool_passes(run: Run, queue: Queue) -> None:
    await queue.enqueue(make_job(), LIMITS)
    shown = await run("audit")
    assert shown.endswith("keys, each with an owner or a lifetime\n")
    assert int(shown.split()[0]) > 5


async def test_strays_are_listed_and_fail_the_command(run: Run, redis: Redis, keys: Keys) -> None:
    await redis.set(keys.result(STRAY), "x")
    await redis.zadd(keys.due, {STRAY: 1})
    with pytest.raises(StraysFound, match="2 strays among 2 keys"):
        await run("audit", "--settle-s", "0")
    result = await asyncio.to_thread(CliRunner().invoke, cli.app, ["audit", "--settle-s", "0"])
    rows = {line.split()[0]: line for line in result.output.splitlines() if "lk:" in line}
    assert "it never expires" in rows[keys.result(STRAY)]
    assert STRAY in rows[keys.due]
    assert "the job is finished or unknown" in rows[keys.due]


async def test_the_queue_names_the_number_of_strays(
    run: Run, redis: Redis, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running_audit, "LOOK_S", 0.01)
    assert "stray" not in await run("queue")
    await redis.set(keys.result(STRAY), "x")
    audit = running_audit.RunningAudit(redis, keys)
    for _ in range(2):
        await audit.step()
    assert "stray keys: 1; `lorikeet audit` lists them" in await run("queue")


ALL_FLAGS = (
    *("--tenant", "red", "--scopes", "inference", "--scopes", "adapters"),
    *("--adapters", "sql-*", "--adapters", "base"),
    *("--requests-per-minute", "1", "--tokens-per-minute", "2"),
    *("--requests-per-day", "3", "--tokens-per-day", "4", "--expires-days", "5"),
)


@pytest.fixture
def store(redis: Redis, keys: Keys) -> KeyStore:
    return KeyStore(redis, keys)


def secret_in(output: str) -> str:
    (secret,) = (line for line in output.splitlines() if line.startswith("lk-"))
    return secret


async def test_a_key_is_created_with_all_flags_or_for_every_model(
    run: Run, store: KeyStore
) -> None:
    access = await store.find(secret_in(await run("keys", "create", *ALL_FLAGS)))
    assert access is not None
    assert (access.tenant, access.models) == ("red", ("sql-*", "base"))
    assert access.scopes == {Scope.INFERENCE, Scope.ADAPTERS}
    (key,) = await store.all()
    assert key.limits == KeyLimits(
        requests_per_minute=1, tokens_per_minute=2, requests_per_day=3, tokens_per_day=4
    )
    assert key.expires_ms == key.created_ms + 5 * 86_400_000
    access = await store.find(secret_in(await run("keys", "create", "--tenant", "red")))
    assert access is not None
    assert (access.scopes, access.models) == ({Scope.INFERENCE}, ("*",))


async def test_the_list_has_everything_but_secrets(run: Run) -> None:
    assert await run("keys", "list") == "the pool has no stored keys\n"
    secret = secret_in(await run("keys", "create", *ALL_FLAGS))
    listed = await run("keys", "list")
    key_id = secret.split("-")[1]
    for word in (key_id, "red", "adapters inference", "sql-* base", "4 tokens/day", "valid until"):
        assert word in listed
    assert secret.split("-", 2)[2] not in listed


async def test_a_revoked_key_is_refused_and_listed_as_revoked(run: Run, store: KeyStore) -> None:
    secret = secret_in(await run("keys", "create", "--tenant", "red"))
    key_id = secret.split("-")[1]
    with pytest.raises(Exception, match="no key has the id nothing"):
        await run("keys", "revoke", "nothing")
    assert await run("keys", "revoke", key_id) == f"{key_id}: revoked\n"
    assert await store.find(secret) is None
    assert "revoked 2" in await run("keys", "list")


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (("--tenant", "a b"), "--tenant"),
        (("--tenant", "a:b"), "--tenant"),
        (("--tenant", "red", "--adapters", "a b"), "--adapters"),
        (("--tenant", "red", "--scopes", "admin", "--adapters", "a"), "scope admin"),
        (("--tenant", "red", "--scopes", "metrics", "--adapters", "a"), "scope metrics"),
    ],
)
async def test_invalid_flags_store_nothing(
    run: Run, store: KeyStore, flags: tuple[str, ...], named: str
) -> None:
    with pytest.raises(SettingsError, match=named):
        await run("keys", "create", *flags)
    assert not await store.exist()
