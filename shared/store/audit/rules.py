"""Rules of the audit: the type, owner and lifetime that each kind of key must have. Pure.

`shared/store/redis/keys.py` documents the keys. A key whose kind has no rule is a stray. Each
function below yields the doubts about one key, or about one member of a key, and the facts that
would clear each doubt.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from shared.protocol.adapter_files import upload_source
from shared.protocol.ids import AdapterVersion, BatchId, FileId, JobId, UploadId, WorkerId
from shared.protocol.jobs import UNFINISHED, JobState
from shared.store.audit.facts import Doubt, Facts
from shared.store.batches.records import OPEN
from shared.store.redis.keys import Keys

LATE_S = 60
"""Seconds after the end of a worker's lease by which a sweep must have removed the worker."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One key, as an audit has read it."""

    key: str
    kind: str
    """Kind of the key: the word after the pool's prefix."""
    name: str
    """Part of the key after its kind: id of a job or worker, version, or name of a tenant."""
    has_expiry: bool
    now_ms: int
    """Time at which the key was read, on Redis' clock."""
    fields: Mapping[str, str] = field(default_factory=dict)
    """If the key is a hash: the fields that the rule of its kind reads."""
    members: Sequence[str] = ()
    """Members to check."""


OfKey = Callable[[Facts, Entry], Iterable[Doubt]]
OfMember = Callable[[Facts, Entry, str], Iterable[Doubt]]


def _expires(_: Facts, entry: Entry) -> Iterable[Doubt]:
    if not entry.has_expiry:
        yield Doubt("it never expires")


def _lasts(_: Facts, __: Entry) -> Iterable[Doubt]:
    return ()


def _no_member(_: Facts, __: Entry, ___: str) -> Iterable[Doubt]:
    return ()


@dataclass(frozen=True, slots=True)
class Rule:
    """Requirements that keys of one kind must meet."""

    type: str
    """Type of the keys, as Redis names it."""
    of_key: OfKey = _lasts
    """Doubts about the key itself."""
    of_member: OfMember = _no_member
    """Doubts about one member of a set or sorted set, or one field of a hash."""
    fields: Sequence[str] = ()
    """If the keys are hashes: the fields that `of_key` needs."""

    @property
    def has_members(self) -> bool:
        """Whether this rule also checks the members of a Redis key."""
        return self.of_member is not _no_member


def _job(facts: Facts, entry: Entry) -> Iterable[Doubt]:
    state, version = entry.fields.get("state"), entry.fields.get("version", "")
    if state is None:
        yield Doubt("the record has no state")
    elif state not in UNFINISHED:
        yield from _expires(facts, entry)
    else:
        if entry.has_expiry:
            yield Doubt("the job isn't finished, but its record expires")
        yield Doubt("the job has no deadline", (facts.is_in_zset(facts.keys.due, entry.name),))
    if state == JobState.QUEUED:
        queue = facts.keys.queue(AdapterVersion(version))
        yield Doubt("the job is in no queue", (facts.is_in_zset(queue, entry.name),))
    elif state == JobState.RUNNING:
        owned = facts.keys.owned(WorkerId(entry.fields.get("owner", "")))
        yield Doubt("no worker owns the running job", (facts.is_in_zset(owned, entry.name),))


def _if_exists(key: Callable[[Keys], Callable[..., str]], otherwise: str) -> OfMember:
    """Return a check that a member's own Redis key exists. If not, `otherwise` is the fault."""

    def of_member(facts: Facts, _: Entry, member: str) -> Iterable[Doubt]:
        yield Doubt(otherwise, (facts.exists(key(facts.keys)(member)),))

    return of_member


_with_record = _if_exists(lambda keys: keys.job, "the job's record was deleted")
_with_queue = _if_exists(lambda keys: keys.queue, "the queue of the version is empty")
_with_entry = _if_exists(lambda keys: keys.version, "the version has no entry")
_with_key = _if_exists(lambda keys: keys.access_key, "the API key has no record")
_adapter_name = _if_exists(lambda keys: keys.adapter, "the name has no entry")
_keeper_of_records = _if_exists(lambda keys: keys.unanswered_of, "the tenant has no records")
_keeper = _if_exists(lambda keys: keys.jobs, "the tenant has no jobs")


def _if_listed(index: Callable[[Keys], str], otherwise: str) -> OfKey:
    """Return a check that a key's name is in the zset `index`. If not, `otherwise` is the fault."""

    def of_key(facts: Facts, entry: Entry) -> Iterable[Doubt]:
        yield Doubt(otherwise, (facts.is_in_zset(index(facts.keys), entry.name),))

    return of_key


_file = _if_listed(lambda keys: keys.files, "the file isn't in `files`")
_access_key = _if_listed(lambda keys: keys.access_keys, "the API key isn't in `keys`")
_of_open_batch = _if_listed(lambda keys: keys.batches, "the batch isn't open")


def _waiting(facts: Facts, entry: Entry, job: str) -> Iterable[Doubt]:
    is_queued = facts.job_is(job, [JobState.QUEUED], version=entry.name)
    yield Doubt("it isn't a waiting job of this version", (is_queued,))


def _queue(facts: Facts, entry: Entry) -> Iterable[Doubt]:
    is_ready = facts.is_in_zset(facts.keys.ready, entry.name)
    is_doomed = facts.is_in_set(facts.keys.doomed, entry.name)
    is_held = facts.is_in_zset(facts.keys.held, entry.name)
    yield Doubt("no worker looks for jobs in this queue", (is_ready, is_doomed, is_held))


def _class(facts: Facts, _: Entry, name: str) -> Iterable[Doubt]:
    workers = facts.exists(f"{facts.keys.capacity}:{name}")
    yield Doubt("no live worker belongs to the class", (workers,))


def _cold(facts: Facts, entry: Entry, version: str) -> Iterable[Doubt]:
    yield from _with_queue(facts, entry, version)
    holders = facts.keys.holders(AdapterVersion(version))
    yield Doubt("a worker holds the version", (facts.is_missing(holders),))


def _owner(facts: Facts, entry: Entry) -> Iterable[Doubt]:
    yield Doubt("its worker has left the pool", facts.is_known_worker(entry.name))


def _owned(facts: Facts, entry: Entry, job: str) -> Iterable[Doubt]:
    is_running = facts.job_is(job, [JobState.RUNNING], owner=entry.name)
    yield Doubt("it isn't a running job of this worker", (is_running,))


def _running(facts: Facts, entry: Entry, job: str) -> Iterable[Doubt]:
    is_running = facts.job_is(job, [JobState.RUNNING], version=entry.name)
    yield Doubt("it isn't a running job of this version", (is_running,))


def _unfinished(facts: Facts, _: Entry, job: str) -> Iterable[Doubt]:
    yield Doubt("the job is finished or unknown", (facts.job_is(job, UNFINISHED),))


def _ended(facts: Facts, entry: Entry, member: str) -> Iterable[Doubt]:
    return _with_record(facts, entry, member.partition(" ")[0])


def _unanswered(facts: Facts, entry: Entry, member: str) -> Iterable[Doubt]:
    record = facts.exists(facts.keys.record(JobId(member.partition("\t")[0])))
    yield Doubt("the record has expired", (record,))


def _paused(facts: Facts, _: Entry, name: str) -> Iterable[Doubt]:
    is_listed = facts.is_in_set(facts.keys.adapters, name)
    yield Doubt("the paused name isn't registered", (is_listed,))


def _live_worker(facts: Facts, _: Entry, worker: str) -> Iterable[Doubt]:
    yield Doubt("the worker isn't in the pool", (facts.is_live_worker(worker),))


def _lost(_: Facts, __: Entry, ___: str) -> Iterable[Doubt]:
    yield Doubt("the jobs of the worker weren't handed over")


def _leased(facts: Facts, entry: Entry, worker: str) -> Iterable[Doubt]:
    reason = f"its lease ended over {LATE_S} s ago, and no process sweeps the pool"
    yield Doubt(reason, (facts.has_lease_after(worker, entry.now_ms - LATE_S * 1000),))


def _doomed(facts: Facts, _: Entry, version: str) -> Iterable[Doubt]:
    jobs = facts.keys.queue(AdapterVersion(version)), facts.keys.running(AdapterVersion(version))
    yield Doubt("the version has no jobs", tuple(map(facts.exists, jobs)))


def _holder(facts: Facts, _: Entry, worker: str) -> Iterable[Doubt]:
    yield Doubt("the worker has left the pool", facts.is_known_worker(worker))


def _checkpoints(facts: Facts, entry: Entry) -> Iterable[Doubt]:
    if not entry.has_expiry:
        yield Doubt("its job is finished or unknown", (facts.job_is(entry.name, UNFINISHED),))


def _tenant(facts: Facts, entry: Entry) -> Iterable[Doubt]:
    yield from _counts_jobs(facts, entry)
    if entry.fields.get("waiting", "0") == "0":
        yield from _expires(facts, entry)


def _counts_jobs(facts: Facts, entry: Entry) -> Iterable[Doubt]:
    waiting, num_bytes = (int(entry.fields.get(name, 0)) for name in ("waiting", "bytes"))
    if waiting < 0:
        yield Doubt("it counts fewer than 0 waiting jobs")
    elif waiting > 0:
        yield Doubt("it counts waiting jobs, but no job waits", facts.some_job_waits())
    if num_bytes != 0:
        reason = "it counts bytes of unfinished jobs, but there are none"
        yield Doubt(reason, (facts.exists(facts.keys.due),))


def _counters(facts: Facts, entry: Entry) -> Iterable[Doubt]:
    yield from _counts_jobs(facts, entry)
    if entry.fields.get("kept", "0") != "0":
        is_kept = facts.exists(facts.keys.ended)
        yield Doubt("it counts bytes of kept answers, but there are none", (is_kept,))
    if entry.fields.get("unanswered", "0") != "0":
        is_kept = facts.exists(facts.keys.unanswered)
        yield Doubt("it counts bytes of records, but there are none", (is_kept,))


def _pin(facts: Facts, _: Entry, name: str) -> Iterable[Doubt]:
    is_listed = facts.is_in_set(facts.keys.adapters, name)
    yield Doubt("the pinned name isn't registered", (is_listed,))


def _of_candidate(facts: Facts, entry: Entry) -> Iterable[Doubt]:
    name = entry.name.rpartition("@")[0]
    is_candidate = facts.has_field(facts.keys.adapter(name), "candidate", entry.name)
    yield Doubt("the version isn't a candidate", (is_candidate,))


def _adapter(facts: Facts, entry: Entry) -> Iterable[Doubt]:
    if entry.fields.get("version"):
        is_listed = facts.is_in_set(facts.keys.adapters, entry.name)
        yield Doubt("the name isn't in `adapters`", (is_listed,))
    elif "at_start" not in entry.fields:
        yield from _expires(facts, entry)


def _previous(facts: Facts, entry: Entry) -> Iterable[Doubt]:
    if not entry.has_expiry:
        yield from _adapter_name(facts, entry, entry.name)


def _version(facts: Facts, entry: Entry) -> Iterable[Doubt]:
    name = entry.name.rpartition("@")[0]
    unless = (
        facts.has_field(facts.keys.adapter(name), "version", entry.name),
        facts.has_field(facts.keys.adapter(name), "candidate", entry.name),
        facts.is_in_list(facts.keys.previous(name), entry.name),
        facts.is_in_zset(facts.keys.retired, entry.name),
    )
    yield Doubt("no name refers to the version, and it isn't retired", unless)


def _upload(facts: Facts, entry: Entry) -> Iterable[Doubt]:
    if not entry.has_expiry:
        version = facts.keys.version(AdapterVersion(entry.fields.get("version", "")))
        is_source = facts.has_field(version, "source", upload_source(UploadId(entry.name)))
        yield Doubt("no version was made from it, and it never expires", (is_source,))


def _file_of(facts: Facts, entry: Entry, file: str) -> Iterable[Doubt]:
    if entry.name or entry.kind == "purpose":  # a list of one tenant
        yield from _file(facts, replace(entry, name=file))
    else:
        yield Doubt("the file has no record", (facts.exists(facts.keys.file(FileId(file))),))


def _stored(facts: Facts, entry: Entry) -> Iterable[Doubt]:
    if min(int(entry.fields.get(name, 0)) for name in ("files", "bytes")) < 0:
        yield Doubt("it counts fewer than 0 files or bytes")
    yield Doubt("it counts files, but there are none", (facts.exists(facts.keys.files),))


def _list_of_tenant(facts: Facts, entry: Entry) -> Iterable[Doubt]:
    if entry.name:
        yield from _expires(facts, entry)


def _batch(facts: Facts, entry: Entry) -> Iterable[Doubt]:
    if entry.fields.get("status") not in OPEN:
        yield from _expires(facts, entry)
    else:
        yield from _of_open_batch(facts, entry)


def _open_batch(facts: Facts, entry: Entry, batch: str) -> Iterable[Doubt]:
    if not entry.name:
        yield Doubt("the batch has no record", (facts.exists(facts.keys.batch(BatchId(batch))),))


def _with_turns(facts: Facts, entry: Entry, batch: str) -> Iterable[Doubt]:
    if entry.name:
        yield from _of_open_batch(facts, replace(entry, name=batch))


RULES: Mapping[str, Rule] = {
    "job": Rule("hash", _job, fields=("state", "version", "owner")),
    "res": Rule("string", _expires),
    "q": Rule("zset", _queue, _waiting),
    "featured": Rule("hash", of_member=_unfinished),
    "ready": Rule("zset", of_member=_with_queue),
    "cold": Rule("zset", of_member=_cold),
    "held": Rule("zset", of_member=_with_queue),
    "pausedadapters": Rule("hash", of_member=_paused),
    "own": Rule("zset", _owner, _owned),
    "cancelled": Rule("set", _expires, _owned),
    "sent": Rule("list", _owner),
    "run": Rule("set", of_member=_running),
    "followers": Rule("hash", of_member=_unfinished),
    "apis": Rule("zset"),
    "processes": Rule("zset"),
    "abandoned": Rule("zset", of_member=_unfinished),
    "ended": Rule("zset", of_member=_ended),
    "kept": Rule("zset", of_member=_keeper),
    "jobs": Rule("zset", of_member=_with_record),
    "record": Rule("string", _expires),
    "unanswered": Rule("zset", of_member=_unanswered),
    "unansweredbytes": Rule("zset", of_member=_keeper_of_records),
    "wide": Rule("hash", of_member=_unfinished),
    "idem": Rule("string", _expires),
    "due": Rule("zset", of_member=_unfinished),
    "missing": Rule("zset", of_member=_live_worker),
    "lost": Rule("zset", of_member=_lost),
    "charged": Rule("hash", _expires),
    "capacity": Rule("zset", of_member=_live_worker),
    "classes": Rule("set", of_member=_class),
    "doomed": Rule("set", of_member=_doomed),
    "workers": Rule("zset", of_member=_leased),
    "w": Rule("hash", _expires),
    "has": Rule("set", _owner),
    "on": Rule("set", of_member=_holder),
    "idle": Rule("zset", of_member=_live_worker),
    "wake": Rule("list", _expires),
    "load": Rule("string", _expires),
    "failedload": Rule("string", _expires),
    "t": Rule("hash", _tenant, fields=("waiting", "bytes")),
    "cnt": Rule("hash", _counters, fields=("waiting", "bytes", "kept", "unanswered")),
    "served": Rule("hash"),
    "history": Rule("list", _expires),
    "incidents": Rule("stream"),
    "out": Rule("stream", _expires),
    "tok": Rule("stream", _checkpoints),
    "control": Rule("string", _expires),
    "arq": Rule("zset"),
    "audit": Rule("hash", _expires),
    "dead": Rule("stream"),
    "reported": Rule("string", _expires),
    "adapters": Rule("set", of_member=_adapter_name),
    "adapter": Rule("hash", _adapter, fields=("version", "at_start")),
    "previous": Rule("list", _previous),
    "pins": Rule("hash", of_member=_pin),
    "pinload": Rule("string", _expires),
    "changes": Rule("stream"),
    "paused": Rule("hash"),
    "shadows": Rule("zset"),
    "compared": Rule("hash", _of_candidate),
    "differing": Rule("list", _of_candidate),
    "version": Rule("hash", _version),
    "needs": Rule("hash", of_member=_with_entry),
    "retired": Rule("zset", of_member=_with_entry),
    "quarantined": Rule("zset", of_member=_with_entry),
    "inspect": Rule("string", _expires),
    "found": Rule("list", _expires),
    "starting": Rule("string", _expires),
    "staging": Rule("string", _expires),
    "lookup": Rule("string", _expires),
    "calls": Rule("list", _expires),
    "imagecalls": Rule("list", _expires),
    "reply": Rule("list", _expires),
    "upload": Rule("hash", _upload, fields=("version",)),
    "uploads": Rule("zset"),
    "file": Rule("hash", _file),
    "files": Rule("zset", of_member=_file_of),
    "purpose": Rule("zset", of_member=_file_of),
    "stored": Rule("hash", _stored, fields=("files", "bytes")),
    "batch": Rule("hash", _batch, fields=("status",)),
    "batches": Rule("zset", _list_of_tenant, _open_batch),
    "endedbatches": Rule("zset"),
    "turns": Rule("zset", of_member=_with_turns),
    "turning": Rule("zset"),
    "batchlease": Rule("string", _expires),
    "batchdone": Rule("string", _of_open_batch),
    "batchparts": Rule("list", _of_open_batch),
    "webhooks": Rule("zset"),
    "barrier": Rule("string", _expires),
    "base": Rule("hash"),
    "keys": Rule("zset", of_member=_with_key),
    "keysopen": Rule("string"),
    "key": Rule("hash", _access_key),
    "rate": Rule("hash", _expires),
    "ledger": Rule("hash", _expires),
    "ledgers": Rule("set", _expires),
}
"""Rule of each kind of key."""
