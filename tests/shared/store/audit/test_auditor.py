"""Strays of each kind are found, also by an audit in short steps. Each kind of key has a bound."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pytest
from queue_support import API, LIMITS, make_job

from ops.lab.generate.bounds import STORED
from shared.protocol.ids import AdapterVersion, JobId, WorkerId
from shared.store.audit import key_reader, running_audit
from shared.store.audit.auditor import Auditor
from shared.store.audit.facts import Stray
from shared.store.audit.rules import RULES
from shared.store.audit.running_audit import RunningAudit
from shared.store.jobs.queue import Queue
from shared.store.redis.connection import Redis
from shared.store.redis.keys import Keys
from shared.store.views.key_memory import key_kinds
from shared.store.views.pool_views import PoolViews

A = AdapterVersion("a@1")
JOB = JobId("0" * 32)
GONE = WorkerId("gone")
NOW_SCORE = 1
ENDED = f"{JOB} 100 red"
RECORD = f"{JOB}\tfailed\ta\t{A}\tinternal_error\t100\tred"


@pytest.fixture
def auditor(redis: Redis, keys: Keys) -> Auditor:
    return Auditor(redis, keys)


async def first_look(auditor: Auditor) -> list[Stray]:
    return list((await auditor.audit(settle_s=0)).strays)


@dataclass(frozen=True, slots=True)
class Put:
    """A value that is put into the key of a pool."""

    name: str
    put: Callable[[Any, str], Awaitable[Any]]
    expires: bool = False

    async def make(self, redis: Redis, keys: Keys) -> None:
        await self.put(redis, keys.prefix + self.name)
        if self.expires:
            await redis.expire(keys.prefix + self.name, 60)


def zset(name: str, member: str = JOB) -> Put:
    return Put(name, lambda redis, key: redis.zadd(key, {member: NOW_SCORE}))


def set_(name: str, member: str = JOB, *, expires: bool = False) -> Put:
    return Put(name, lambda redis, key: redis.sadd(key, member), expires)


def hash_(name: str, /, *, expires: bool = False, **fields: str | int) -> Put:
    return Put(name, lambda redis, key: redis.hset(key, mapping=fields), expires)


def record(**fields: str) -> Put:
    return hash_(f"job:{JOB}", **fields)


def ends() -> Put:
    return hash_(f"job:{JOB}", expires=True, state="done")


def string(name: str) -> Put:
    return Put(name, lambda redis, key: redis.set(key, "x"))


def list_(name: str) -> Put:
    return Put(name, lambda redis, key: redis.rpush(key, "x"))


def stream(name: str) -> Put:
    return Put(name, lambda redis, key: redis.xadd(key, {"e": "x"}))


@dataclass(frozen=True, slots=True)
class Case:
    """A stray of one kind: the last key, or a member of it."""

    puts: tuple[Put, ...]
    member: str

    @property
    def name(self) -> str:
        return self.puts[-1].name


def case(*puts: Put, member: str = "") -> Case:
    return Case(puts, member)


CASES = {
    "a record without a state": case(record(body="x")),
    "an ended job that never expires": case(record(state="done")),
    "a queued job without a queue": case(zset("due"), record(state="queued", version=A)),
    "a running job without an owner": case(
        zset("due"), record(state="running", version=A, owner=GONE)
    ),
    "an unfinished job without a deadline": case(
        zset(f"q:{A}"), zset("ready", A), record(state="queued", version=A)
    ),
    "progress that never expires": case(string("staging:sql")),
    "a start that never expires": case(string("starting")),
    "a lookup that never expires": case(string("lookup:sql")),
    "an answer that never expires": case(string(f"res:{JOB}")),
    "an ended job in a queue": case(ends(), zset(f"q:{A}"), member=JOB),
    "a queue that no worker looks at": case(zset(f"q:{A}")),
    "features of an ended job": case(
        ends(), hash_(f"featured:{A}", **{JOB: "embeddings"}), member=JOB
    ),
    "a ready version without jobs": case(zset("ready", A), member=A),
    "a cold version without jobs": case(zset("cold", A), member=A),
    "a cold version that a worker holds": case(
        zset(f"q:{A}"), zset("ready", A), set_(f"on:{A}", GONE), zset("cold", A), member=A
    ),
    "jobs of a worker that left": case(zset(f"own:{GONE}")),
    "a job that its owner no longer runs": case(ends(), zset(f"own:{GONE}"), member=JOB),
    "a cancellation of an ended job": case(
        ends(), set_(f"cancelled:{GONE}", expires=True), member=JOB
    ),
    "publications of a worker that left": case(list_(f"sent:{GONE}")),
    "an ended job that runs": case(ends(), set_(f"run:{A}"), member=JOB),
    "followers of an ended job": case(ends(), hash_("followers", **{JOB: API}), member=JOB),
    "an abandoned job that ended": case(ends(), zset("abandoned"), member=JOB),
    "an index entry of a deleted answer": case(zset("ended", ENDED), member=ENDED),
    "bytes that are kept of a tenant without jobs": case(zset("kept", "red"), member="red"),
    "a record of an unanswered job for ever": case(string(f"record:{JOB}")),
    "an index entry of an expired record": case(zset("unanswered", RECORD), member=RECORD),
    "bytes of records of a tenant without any": case(zset("unansweredbytes", "red"), member="red"),
    "sequences of an ended job": case(ends(), hash_("wide", **{JOB: 2}), member=JOB),
    "a held version without jobs": case(zset("held", A), member=A),
    "a pause of an unknown adapter": case(hash_("pausedadapters", a=1), member="a"),
    "a failed load for ever": case(string(f"failedload:{A}")),
    "bytes of no records": case(hash_("cnt", unanswered=5)),
    "a listed job that was deleted": case(zset("jobs:red"), member=JOB),
    "an idempotency key for ever": case(string("idem:red:d")),
    "a deadline of an ended job": case(ends(), zset("due"), member=JOB),
    "a missing worker outside the pool": case(zset("missing", GONE), member=GONE),
    "a lost worker with jobs": case(zset("lost", GONE), member=GONE),
    "charges for ever": case(hash_(f"charged:{GONE}", **{JOB: "deaths 1"})),
    "the capacity of a worker that left": case(zset("capacity", GONE), member=GONE),
    "the capacity of a limited worker that left": case(zset("capacity:;;16", GONE), member=GONE),
    "a class without workers": case(set_("classes", ";;16"), member=";;16"),
    "a doomed version without jobs": case(set_("doomed", A), member=A),
    "a worker that no process reaps": case(zset("workers", GONE), member=GONE),
    "a worker's card for ever": case(hash_(f"w:{GONE}", info="{}")),
    "versions of a worker that left": case(set_(f"has:{GONE}", A)),
    "a holder that left": case(set_(f"on:{A}", GONE), member=GONE),
    "a parked worker that left": case(zset("idle", GONE), member=GONE),
    "mail for ever": case(list_(f"wake:{GONE}")),
    "a load for ever": case(string(f"load:{A}")),
    "an idle tenant for ever": case(hash_("t:red", waiting=0)),
    "a tenant that counts jobs that don't wait": case(hash_("t:red", waiting=2)),
    "a pool that counts jobs that don't wait": case(hash_("cnt", waiting=2)),
    "fewer than no waiting jobs": case(hash_("cnt", waiting=-1)),
    "bytes of no jobs": case(hash_("cnt", bytes=5)),
    "bytes of no answers": case(hash_("cnt", kept=5)),
    "a reply stream for ever": case(stream("out:api")),
    "checkpoints of an ended job for ever": case(ends(), stream(f"tok:{JOB}")),
    "a health report for ever": case(string("control:h")),
    "an audit for ever": case(hash_("audit", cursor=0)),
    "a report for ever": case(string("reported")),
    "a name without an entry": case(set_("adapters", "a"), member="a"),
    "an unlisted name": case(hash_("adapter:a", version=A)),
    "an unloaded name for ever": case(hash_("adapter:a", version="")),
    "previous versions of no name": case(list_("previous:a")),
    "a version without a name": case(hash_(f"version:{A}", name="a")),
    "a pin of an unknown name": case(hash_("pins", a="1"), member="a"),
    "a load of a pinned version for ever": case(string(f"pinload:{A}")),
    "a comparison without a candidate": case(hash_(f"compared:{A}", pairs=1)),
    "differing pairs without a candidate": case(list_(f"differing:{A}")),
    "needs of a version without an entry": case(hash_("needs", **{A: ";;8"}), member=A),
    "a retired version without an entry": case(zset("retired", A), member=A),
    "a quarantined version without an entry": case(zset("quarantined", A), member=A),
    "an upload for ever": case(hash_(f"upload:{'0' * 32}", size=1)),
    "an inspection for ever": case(string("inspect:i")),
    "a report of an inspection for ever": case(list_("found:i")),
    "calls for ever": case(list_("calls")),
    "calls with images for ever": case(list_("imagecalls")),
    "a reply to a call for ever": case(list_("reply:c")),
    "a history for ever": case(list_("history")),
    "a file that is never deleted": case(hash_("file:f", tenant="red")),
    "a file without a record": case(zset("files", "f"), member="f"),
    "a listed file that doesn't exist": case(zset("files:red", "f"), member="f"),
    "a file with a purpose that doesn't exist": case(zset("purpose:batch:red", "f"), member="f"),
    "an account without files": case(hash_("stored:red", files=1, bytes=9)),
    "an account below 0": case(
        hash_("file:f", tenant="red"), zset("files", "f"), hash_("stored:red", files=1, bytes=-1)
    ),
    "an open batch that no process runs": case(hash_("batch:b", status="in_progress")),
    "an ended batch for ever": case(hash_("batch:b", status="completed")),
    "an open batch without a record": case(zset("batches", "b"), member="b"),
    "batches of a tenant for ever": case(zset("batches:red")),
    "a lease of a batch for ever": case(string("batchlease:b")),
    "a turn of an ended batch": case(zset("turns:red", "b"), member="b"),
    "lines of an ended batch": case(string("batchdone:b")),
    "results of an ended batch": case(list_("batchparts:b")),
    "a barrier for ever": case(string("barrier")),
    "a listed API key without a record": case(zset("keys", "k"), member="k"),
    "an API key that is not listed": case(hash_("key:k", tenant="red")),
    "rates for ever": case(hash_("rate:k", day=1)),
    "a ledger for ever": case(hash_("ledger:1:red", a="1 1 1 1")),
    "tenants of a ledger for ever": case(set_("ledgers:1", "red")),
    "an unknown kind": case(string("unheard-of:1")),
    "a key of another type": case(string("ready")),
}


@pytest.mark.parametrize("name", CASES)
async def test_a_stray_is_found(auditor: Auditor, redis: Redis, keys: Keys, name: str) -> None:
    stray = CASES[name]
    for put in stray.puts:
        await put.make(redis, keys)
    found = {(each.key, each.member) for each in await first_look(auditor)}
    assert (keys.prefix + stray.name, stray.member) in found


def test_the_cases_cover_every_kind_that_can_be_a_stray() -> None:
    covered = {stray.name.partition(":")[0] for stray in CASES.values()}
    always = {
        *("apis", "arq", "base", "changes", "dead", "incidents", "served", "shadows"),
        *("endedbatches", "keysopen", "paused", "processes", "uploads", "turning", "webhooks"),
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


def test_each_documented_kind_of_key_has_a_rule_and_exactly_one_bound() -> None:
    kinds = [kind for each in STORED for kind in each.kinds]
    assert sorted(kinds) == sorted(RULES) == sorted(key_kinds())


JOBS = [JobId(f"{number:032x}") for number in range(300)]


@pytest.fixture(autouse=True)
def quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running_audit, "LOOK_S", 0.01)


@pytest.fixture
def audit(redis: Redis, keys: Keys) -> RunningAudit:
    return RunningAudit(redis, keys)


async def test_a_stray_is_reported_once_by_the_second_step_that_sees_it(
    audit: RunningAudit, redis: Redis, keys: Keys
) -> None:
    await redis.set(keys.result(JOBS[0]), "x")
    found = [await audit.step() for _ in range(3)]
    assert [len(strays) for strays in found] == [0, 1, 0]
    assert found[1][0].key == keys.result(JOBS[0])
    status = await audit.status()
    assert status is not None
    assert status.strays == found[1]


async def test_the_number_of_strays_is_shown_until_they_are_gone(
    audit: RunningAudit, views: PoolViews, redis: Redis, keys: Keys
) -> None:
    assert await views.num_strays() is None
    await redis.mset({keys.result(job): "x" for job in JOBS[:3]})
    found = []
    for _ in range(2):
        await audit.step()
        found.append(await views.num_strays())
    assert found == [0, 3]
    await redis.delete(*map(keys.result, JOBS[:3]))
    await audit.step()
    assert await views.num_strays() == 0


async def test_a_suspect_that_is_in_order_again_is_not_reported(
    audit: RunningAudit, redis: Redis, keys: Keys
) -> None:
    await redis.set(keys.result(JOBS[0]), "x")
    await audit.step()
    await redis.expire(keys.result(JOBS[0]), 60)
    assert await audit.step() == ()


async def test_steps_continue_where_the_last_one_stopped(
    own_server, open_client, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running_audit, "MAX_SCANS", 1)
    redis = open_client(own_server.url)
    for job in JOBS:
        await redis.set(keys.result(job), "x")
    audit = RunningAudit(redis, keys)
    strays = set()
    for _ in range(4):
        strays |= set(await audit.step())
    assert {stray.key for stray in strays} == {keys.result(job) for job in JOBS}
    status = await audit.status()
    assert status is not None
    assert status.num_keys >= len(JOBS)


async def test_a_healthy_pool_has_an_empty_status(audit: RunningAudit, queue: Queue) -> None:
    assert await audit.status() is None
    await queue.enqueue(make_job(), LIMITS)
    assert await audit.step() == ()
    assert await audit.step() == ()
    status = await audit.status()
    assert status is not None
    assert (status.strays, status.num_keys > 5, status.checked_ms > 0) == ((), True, True)
