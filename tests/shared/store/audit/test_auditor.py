"""Strays of each kind are found, and a busy pool has none."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pytest
from queue_support import API

from shared.protocol.files import Purpose
from shared.protocol.ids import (
    AdapterVersion,
    ApiId,
    BatchId,
    CallId,
    FileId,
    InspectionId,
    JobId,
    UploadId,
    WorkerId,
)
from shared.store.audit import key_reader
from shared.store.audit.auditor import Auditor
from shared.store.audit.facts import Stray
from shared.store.audit.rules import RULES
from shared.store.redis.connection import Redis
from shared.store.redis.keys import Keys
from shared.store.views.key_memory import key_kinds

A = AdapterVersion("a@1")
JOB = JobId("0" * 32)
GONE = WorkerId("gone")
UPLOAD = UploadId("0" * 32)
BATCH = BatchId("b")
NOW_SCORE = 1
ENDED = f"{JOB} 100 red"
Make = Callable[[Any, Keys], Awaitable[Any]]


@pytest.fixture
def auditor(redis: Redis, keys: Keys) -> Auditor:
    return Auditor(redis, keys)


async def first_look(auditor: Auditor) -> list[Stray]:
    return list((await auditor.audit(settle_s=0)).strays)


def test_every_documented_kind_of_key_has_a_rule() -> None:
    assert set(RULES) == set(key_kinds())


@dataclass
class Case:
    """A stray of one kind."""

    make: Make
    key: Callable[[Keys], str]
    member: str = ""


def record(**fields: str) -> Make:
    async def make(redis: Redis, keys: Keys) -> None:
        await redis.hset(keys.job(JOB), mapping=fields)  # type: ignore[misc]

    return make


def ends(job: str = JOB) -> Make:
    """Make the record of an ended job."""

    async def make(redis: Redis, keys: Keys) -> None:
        await redis.hset(keys.job(JobId(job)), mapping={"state": "done"})  # type: ignore[misc]
        await redis.expire(keys.job(JobId(job)), 60)

    return make


def zset(name: str, member: str = JOB, score: float = NOW_SCORE) -> Make:
    return lambda redis, keys: redis.zadd(keys.prefix + name, {member: score})


def set_(name: str, member: str = JOB, *, expires: bool = False) -> Make:
    async def make(redis: Redis, keys: Keys) -> None:
        await redis.sadd(keys.prefix + name, member)  # type: ignore[misc]
        if expires:
            await redis.expire(keys.prefix + name, 60)

    return make


def hash_(name: str, /, **fields: str | int) -> Make:
    return lambda redis, keys: redis.hset(keys.prefix + name, mapping=fields)


def string(name: str) -> Make:
    return lambda redis, keys: redis.set(keys.prefix + name, "x")


def list_(name: str) -> Make:
    return lambda redis, keys: redis.rpush(keys.prefix + name, "x")


def stream(name: str) -> Make:
    return lambda redis, keys: redis.xadd(keys.prefix + name, {"e": "x"})


def all_of(*makes: Make) -> Make:
    async def make(redis: Redis, keys: Keys) -> None:
        for each in makes:
            await each(redis, keys)

    return make


def named(name: str) -> Callable[[Keys], str]:
    return lambda keys: keys.prefix + name


CASES = {
    "a record without a state": Case(record(body="x"), lambda k: k.job(JOB)),
    "an ended job that never expires": Case(record(state="done"), lambda k: k.job(JOB)),
    "a queued job without a queue": Case(
        all_of(record(state="queued", version=A), zset("due")), lambda k: k.job(JOB)
    ),
    "a running job without an owner": Case(
        all_of(record(state="running", version=A, owner=GONE), zset("due")), lambda k: k.job(JOB)
    ),
    "an unfinished job without a deadline": Case(
        all_of(record(state="queued", version=A), zset(f"q:{A}"), zset("ready", A)),
        lambda k: k.job(JOB),
    ),
    "progress that never expires": Case(string("staging:sql"), lambda k: k.staging("sql")),
    "a lookup that never expires": Case(string("lookup:sql"), lambda k: k.lookup("sql")),
    "an answer that never expires": Case(string(f"res:{JOB}"), lambda k: k.result(JOB)),
    "an ended job in a queue": Case(all_of(ends(), zset(f"q:{A}")), lambda k: k.queue(A), JOB),
    "a queue that no worker looks at": Case(zset(f"q:{A}"), lambda k: k.queue(A)),
    "features of an ended job": Case(
        all_of(ends(), hash_(f"featured:{A}", **{JOB: "embeddings"})), lambda k: k.featured(A), JOB
    ),
    "a ready version without jobs": Case(zset("ready", A), lambda k: k.ready, A),
    "a cold version without jobs": Case(zset("cold", A), lambda k: k.cold, A),
    "a cold version that a worker holds": Case(
        all_of(zset(f"q:{A}"), zset("ready", A), zset("cold", A), set_(f"on:{A}", GONE)),
        lambda k: k.cold,
        A,
    ),
    "jobs of a worker that left": Case(zset(f"own:{GONE}"), lambda k: k.owned(GONE)),
    "a job that its owner no longer runs": Case(
        all_of(ends(), zset(f"own:{GONE}")), lambda k: k.owned(GONE), JOB
    ),
    "a cancellation of an ended job": Case(
        all_of(ends(), set_(f"cancelled:{GONE}", expires=True)), lambda k: k.cancelled(GONE), JOB
    ),
    "publications of a worker that left": Case(list_(f"sent:{GONE}"), lambda k: k.sent(GONE)),
    "an ended job that runs": Case(all_of(ends(), set_(f"run:{A}")), lambda k: k.running(A), JOB),
    "followers of an ended job": Case(
        all_of(ends(), hash_("followers", **{JOB: API})), lambda k: k.followers, JOB
    ),
    "an abandoned job that ended": Case(
        all_of(ends(), zset("abandoned")), lambda k: k.abandoned, JOB
    ),
    "an index entry of a deleted answer": Case(zset("ended", ENDED), lambda k: k.ended, ENDED),
    "bytes that are kept of a tenant without jobs": Case(
        zset("kept", "red"), lambda k: k.kept, "red"
    ),
    "a listed job that was deleted": Case(zset("jobs:red"), lambda k: k.jobs("red"), JOB),
    "an idempotency key for ever": Case(string("idem:red:d"), lambda k: k.idempotency("red", "d")),
    "a deadline of an ended job": Case(all_of(ends(), zset("due")), lambda k: k.due, JOB),
    "a missing worker outside the pool": Case(zset("missing", GONE), lambda k: k.missing, GONE),
    "a lost worker with jobs": Case(zset("lost", GONE), lambda k: k.lost, GONE),
    "charges for ever": Case(
        hash_(f"charged:{GONE}", **{JOB: "deaths 1"}), lambda k: k.charged(GONE)
    ),
    "the capacity of a worker that left": Case(zset("capacity", GONE), lambda k: k.capacity, GONE),
    "the capacity of a limited worker that left": Case(
        zset("capacity:;;16", GONE), lambda k: f"{k.capacity}:;;16", GONE
    ),
    "a class without workers": Case(set_("classes", ";;16"), lambda k: k.classes, ";;16"),
    "a doomed version without jobs": Case(set_("doomed", A), lambda k: k.doomed, A),
    "a worker that no process reaps": Case(zset("workers", GONE), lambda k: k.workers, GONE),
    "a worker's card for ever": Case(hash_(f"w:{GONE}", info="{}"), lambda k: k.worker(GONE)),
    "versions of a worker that left": Case(set_(f"has:{GONE}", A), lambda k: k.residents(GONE)),
    "a holder that left": Case(set_(f"on:{A}", GONE), lambda k: k.holders(A), GONE),
    "a parked worker that left": Case(zset("idle", GONE), lambda k: k.idle, GONE),
    "mail for ever": Case(list_(f"wake:{GONE}"), lambda k: k.mailbox(GONE)),
    "a load for ever": Case(string(f"load:{A}"), lambda k: k.loading(A)),
    "an idle tenant for ever": Case(hash_("t:red", waiting=0), lambda k: k.tenant("red")),
    "a tenant that counts jobs that don't wait": Case(
        hash_("t:red", waiting=2), lambda k: k.tenant("red")
    ),
    "a pool that counts jobs that don't wait": Case(hash_("cnt", waiting=2), lambda k: k.counters),
    "fewer than no waiting jobs": Case(hash_("cnt", waiting=-1), lambda k: k.counters),
    "bytes of no jobs": Case(hash_("cnt", bytes=5), lambda k: k.counters),
    "bytes of no answers": Case(hash_("cnt", kept=5), lambda k: k.counters),
    "a reply stream for ever": Case(stream("out:api"), lambda k: k.replies(ApiId("api"))),
    "checkpoints of an ended job for ever": Case(
        all_of(ends(), stream(f"tok:{JOB}")), lambda k: k.checkpoints(JOB)
    ),
    "a health report for ever": Case(string("control:h"), lambda k: k.control("h")),
    "an audit for ever": Case(hash_("audit", cursor=0), lambda k: k.audit),
    "a report for ever": Case(string("reported"), lambda k: k.reported),
    "a name without an entry": Case(set_("adapters", "a"), lambda k: k.adapters, "a"),
    "an unlisted name": Case(hash_("adapter:a", version=A), lambda k: k.adapter("a")),
    "an unloaded name for ever": Case(hash_("adapter:a", version=""), lambda k: k.adapter("a")),
    "previous versions of no name": Case(list_("previous:a"), lambda k: k.previous("a")),
    "a version without a name": Case(hash_(f"version:{A}", name="a"), lambda k: k.version(A)),
    "a pin of an unknown name": Case(hash_("pins", a="1"), lambda k: k.pins, "a"),
    "a load of a pinned version for ever": Case(string(f"pinload:{A}"), lambda k: k.pin_load(A)),
    "a comparison without a candidate": Case(
        hash_(f"compared:{A}", pairs=1), lambda k: k.compared(A)
    ),
    "differing pairs without a candidate": Case(list_(f"differing:{A}"), lambda k: k.differing(A)),
    "needs of a version without an entry": Case(hash_("needs", **{A: ";;8"}), lambda k: k.needs, A),
    "a retired version without an entry": Case(zset("retired", A), lambda k: k.retired, A),
    "a quarantined version without an entry": Case(
        zset("quarantined", A), lambda k: k.quarantined, A
    ),
    "an upload for ever": Case(hash_(f"upload:{'0' * 32}", size=1), lambda k: k.upload(UPLOAD)),
    "an inspection for ever": Case(string("inspect:i"), lambda k: k.inspection(InspectionId("i"))),
    "a report of an inspection for ever": Case(
        list_("found:i"), lambda k: k.findings(InspectionId("i"))
    ),
    "calls for ever": Case(list_("calls"), lambda k: k.calls),
    "a reply to a call for ever": Case(list_("reply:c"), lambda k: k.reply(CallId("c"))),
    "a history for ever": Case(list_("history"), lambda k: k.history),
    "a file that is never deleted": Case(
        hash_("file:f", tenant="red"), lambda k: k.file(FileId("f"))
    ),
    "a file without a record": Case(zset("files", "f"), lambda k: k.files, "f"),
    "a listed file that doesn't exist": Case(
        zset("files:red", "f"), lambda k: k.files_of("red"), "f"
    ),
    "a file with a purpose that doesn't exist": Case(
        zset("purpose:batch:red", "f"), lambda k: k.files_with(Purpose.BATCH, "red"), "f"
    ),
    "an account without files": Case(
        hash_("stored:red", files=1, bytes=9), lambda k: k.stored("red")
    ),
    "an account below 0": Case(
        all_of(
            hash_("stored:red", files=1, bytes=-1),
            hash_("file:f", tenant="red"),
            zset("files", "f"),
        ),
        lambda k: k.stored("red"),
    ),
    "an open batch that no process runs": Case(
        hash_("batch:b", status="in_progress"), lambda k: k.batch(BATCH)
    ),
    "an ended batch for ever": Case(hash_("batch:b", status="completed"), lambda k: k.batch(BATCH)),
    "an open batch without a record": Case(zset("batches", "b"), lambda k: k.batches, "b"),
    "batches of a tenant for ever": Case(zset("batches:red"), lambda k: k.batches_of("red")),
    "a lease of a batch for ever": Case(string("batchlease:b"), lambda k: k.batch_lease(BATCH)),
    "a turn of an ended batch": Case(zset("turns:red", "b"), lambda k: k.turns_of("red"), "b"),
    "lines of an ended batch": Case(string("batchdone:b"), lambda k: k.batch_done(BATCH)),
    "results of an ended batch": Case(list_("batchparts:b"), lambda k: k.batch_parts(BATCH)),
    "a barrier for ever": Case(string("barrier"), lambda k: k.barrier),
    "a listed API key without a record": Case(zset("keys", "k"), lambda k: k.access_keys, "k"),
    "an API key that is not listed": Case(
        hash_("key:k", tenant="red"), lambda k: k.access_key("k")
    ),
    "rates for ever": Case(hash_("rate:k", day=1), lambda k: k.rate("k")),
    "a ledger for ever": Case(hash_("ledger:1:red", a="1 1 1 1"), lambda k: k.ledger(1, "red")),
    "tenants of a ledger for ever": Case(set_("ledgers:1", "red"), lambda k: k.ledger_tenants(1)),
    "an unknown kind": Case(string("unheard-of:1"), named("unheard-of:1")),
    "a key of another type": Case(string("ready"), lambda k: k.ready),
}


@pytest.mark.parametrize("name", CASES)
async def test_a_stray_is_found(auditor: Auditor, redis: Redis, keys: Keys, name: str) -> None:
    case = CASES[name]
    await case.make(redis, keys)
    found = {(stray.key, stray.member) for stray in await first_look(auditor)}
    assert (case.key(keys), case.member) in found


def test_the_cases_cover_every_kind_that_can_be_a_stray(keys: Keys) -> None:
    covered = {
        case.key(keys).removeprefix(keys.prefix).partition(":")[0] for case in CASES.values()
    }
    always = {
        "apis",
        "arq",
        "base",
        "changes",
        "dead",
        "incidents",
        "served",
        "shadows",
        "endedbatches",
        "uploads",
        "turning",
        "webhooks",
    }
    assert set(RULES) - covered == always


async def test_only_suspects_that_stay_are_strays(
    auditor: Auditor, redis: Redis, keys: Keys
) -> None:
    await redis.set(keys.barrier, "")
    await redis.set(keys.result(JOB), "")
    (gone, stays) = sorted(await first_look(auditor))
    await redis.delete(gone.key)
    assert await auditor.check_again([gone, stays]) == [stays]


async def test_a_member_of_a_large_key_is_checked_again(
    auditor: Auditor, redis: Redis, keys: Keys
) -> None:
    members = {f"{number:032x}": 1 for number in range(5 * key_reader.NUM_MEMBERS)}
    await redis.zadd(keys.due, members)
    suspects = await auditor.check([keys.due])
    assert len(suspects) == key_reader.NUM_MEMBERS
    await redis.zrem(keys.due, suspects[0].member)
    assert set(await auditor.check_again(suspects)) == set(suspects[1:])


async def test_other_pools_are_not_checked(auditor: Auditor, redis: Redis, pool: str) -> None:
    other = Keys(f"{pool}-other").result(JOB)
    await redis.set(other, "")
    assert (await auditor.audit()).num_keys == 0
    await redis.delete(other)
