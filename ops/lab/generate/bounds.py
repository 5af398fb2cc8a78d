"""Bounds of requests' work, of data in Redis and of control tasks, for `SECURITY.md`.

Each piece of work of a request has a bound in bytes, items and CPU time. It is charged to its
tenant in advance, and it can be ended while it runs. Routes declare their kind of work with
`guarded`, and `tests/api/test_bounds.py` checks all routes. A kind of key is the word after the
pool's prefix, as in `shared.store.audit.rules`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from api.access import usage_query
from api.adapters.comparisons import MAX_PAIRS
from api.answers.many_jobs import MAX_JOBS
from api.answers.tokenization import LIMIT_S, MAX_CALLS_OF_TENANT
from api.assembly import MAX_INSPECTIONS_OF_TENANT
from api.files.upload import MAX_UPLOADS_TENANT
from api.http.guards import Work
from api.http.lists import MAX_LIMIT
from api.images.fetcher import FETCH_S, MAX_FETCHES_OF_TENANT
from api.pool_state.state import MAX_INCIDENTS
from api.requests.score_pairs import MAX_SIZE
from api.requests.translate import MAX_ANSWERS
from api.routes import audit_log
from api.schema.embeddings import MAX_INPUTS
from ops.control.batches.file_sweep import PAGE
from ops.control.batches.lines import MAX_LINES
from ops.control.batches.sending import TURN_S
from ops.control.batches.turn import MAX_TRIES
from ops.control.batches.webhook import MAX_CALLS, MAX_HANDED_OVER, TIMEOUT_S
from ops.control.shadow_comparison import MAX_COMPARED
from shared.json_budget import MAX_DEPTH, MAX_NODES, MAX_VALUES
from shared.protocol.images import MAX_IMAGES, MAX_PIXELS, MAX_SIDE
from shared.store.access.key_store import MAX_KEYS
from shared.store.adapters.adapter_pauses import MAX_PAUSED
from shared.store.adapters.audit_log import MAX_CHANGES
from shared.store.adapters.pins import MAX_PINS
from shared.store.adapters.shadows import MAX_PENDING
from shared.store.audit.running_audit import MAX_KEPT, MAX_SCAN_S
from shared.store.batches.batches import MAX_OPEN
from shared.store.jobs.dead_letters import MAX_SUMMARIZED, MAX_TRIMS
from shared.store.views.history import MAX_BYTES, MAX_SAMPLES

_JSON = "`--max-body-bytes`, compressed or not"
_VALUES = f"{MAX_NODES:,} arrays, objects and strings, {MAX_VALUES:,} values, {MAX_DEPTH} levels"
_CHECK = "check of a body: 0.5 s, one large body at a time, in turn for the tenants"
_FETCHED = "fetched images: `--max-body-bytes` in base64"
_IMAGES = f"{MAX_IMAGES} images with {MAX_PIXELS:,} pixels in all, {MAX_SIDE:,} on a side"
_FETCH = f"fetching images: {FETCH_S:g} s"
_REDIS = "a few calls of Redis, each with a time limit"
_REQUESTS = "its requests at a time: half of `--max-connections`"
_MANAGED = f"{_REQUESTS}; the scope `adapters`"
_NONE = "no body is read"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """Bounds of one kind of work, in words for operators."""

    num_bytes: str
    items: str
    time: str
    """Bound of the work's CPU time, and the limit that ends the work."""
    account: str
    """Limits that apply to the tenant, who is charged for the work before it is done."""


BOUNDS: Mapping[Work, Bounds] = {
    Work.ANSWER: Bounds(
        num_bytes=f"{_JSON}; {_FETCHED}; `--max-model-len` tokens",
        items=f"{_VALUES}; {MAX_ANSWERS} answers; {MAX_INPUTS:,} inputs or pairs, {MAX_SIZE:,} "
        f"characters in all pairs; {_IMAGES}",
        time=f"{_CHECK}; {_FETCH}; the answer: `--deadline-s`, a cancellation, or its client "
        "leaves",
        account="`--max-waiting-tenant`, `--max-waiting-tenant-mb`, limits of its keys; "
        f"{MAX_FETCHES_OF_TENANT} requests at a time whose images are fetched",
    ),
    Work.TOKENIZATION: Bounds(
        num_bytes=f"{_JSON}; {_FETCHED}",
        items=f"{_VALUES}; {_IMAGES}",
        time=f"{_CHECK}; {_FETCH}; {LIMIT_S:g} s in all",
        account=f"{MAX_CALLS_OF_TENANT} calls at a time, in turn for the tenants; "
        f"{MAX_FETCHES_OF_TENANT} whose images are fetched",
    ),
    Work.INSPECTION: Bounds(
        num_bytes=f"{_JSON}; files as under [adapter sources]"
        "(ops/docs/adapter-sources.md#what-is-allowed)",
        items=_VALUES,
        time="checks of config and header: 0.5 s each; `--deadline-s` in all",
        account=f"{MAX_INSPECTIONS_OF_TENANT} checks at a time, in turn for the tenants; "
        "the scope `adapters`",
    ),
    Work.CHANGE: Bounds(num_bytes=_JSON, items=_VALUES, time=_REDIS, account=_MANAGED),
    Work.KEY: Bounds(
        num_bytes=_JSON,
        items=f"{_VALUES}; the pool's keys",
        time=_REDIS,
        account=f"{_REQUESTS}; the scope `admin`",
    ),
    Work.JOBS: Bounds(
        num_bytes=_JSON,
        items=f"{MAX_JOBS:,} jobs; the index of the tenant's records and of unfinished jobs",
        time=f"{_REDIS} for each job",
        account=f"{_REQUESTS}; as for an answer for each retried job",
    ),
    Work.CONTROL: Bounds(
        num_bytes=_JSON,
        items="the tenant's unfinished requests",
        time=f"{_REDIS}, and one for each ended request",
        account=f"{_REQUESTS}; `--max-waiting-tenant`",
    ),
    Work.ADAPTER_UPLOAD: Bounds(
        num_bytes="`--max-adapter-mb`, compressed or not",
        items="one adapter",
        time="`--body-timeout-s`; then as a check of an adapter",
        account=f"{MAX_INSPECTIONS_OF_TENANT} checks at a time; the scope `adapters`",
    ),
    Work.FILE_UPLOAD: Bounds(
        num_bytes="`--max-file-mb`",
        items="one file",
        time="`--body-timeout-s`; the file is streamed to the file store",
        account=f"`--max-files-tenant`, `--max-files-tenant-mb`, {MAX_UPLOADS_TENANT} at a time",
    ),
    Work.BATCH: Bounds(
        num_bytes=_JSON,
        items=f"{MAX_OPEN:,} open batches of the pool",
        time=f"{_REDIS}; the run: its completion window",
        account="`--max-batches-tenant`; lines as answers",
    ),
    Work.RECORD: Bounds(num_bytes=_NONE, items="one record", time=_REDIS, account=_REQUESTS),
    Work.LIST: Bounds(
        num_bytes=_NONE,
        items=f"{MAX_LIMIT} jobs, {MAX_LIMIT} files or batches, {audit_log.MAX_LIMIT} changes, "
        f"{usage_query.MAX_LIMIT:,} rows of usage",
        time=_REDIS,
        account=_REQUESTS,
    ),
    Work.READ: Bounds(
        num_bytes=_NONE,
        items=f"one record; {MAX_PAIRS} compared answers",
        time=_REDIS,
        account=_REQUESTS,
    ),
    Work.LOOKUP: Bounds(
        num_bytes=_JSON,
        items=f"{_VALUES}; one model",
        time=f"{_CHECK}; {_REDIS}",
        account=f"{_REQUESTS}; look-ups at `--adapter-source` in turn for the tenants",
    ),
    Work.CONTENT: Bounds(
        num_bytes="one file, in pieces",
        items="one file",
        time="`--send-timeout-s`",
        account=_REQUESTS,
    ),
    Work.STREAM: Bounds(
        num_bytes=_NONE,
        items="one job, or the pool",
        time="the end of the job, or its client leaves; `--send-timeout-s`",
        account=_REQUESTS,
    ),
    Work.SUMMARY: Bounds(
        num_bytes=_NONE,
        items=f"the pool's workers and adapters, {MAX_INCIDENTS} incidents, {MAX_KEYS:,} API keys",
        time="one read of the registry, or a state that is read once a second for all clients",
        account=_REQUESTS,
    ),
    Work.CONSTANT: Bounds(
        num_bytes=_NONE, items="one page or file", time="no call of Redis", account=_REQUESTS
    ),
}

_POOL = "the pool"


@dataclass(frozen=True, slots=True)
class StoredBound:
    """Bound of some kinds of keys, in words for operators."""

    kinds: Sequence[str]
    bound: str
    account: str
    """Owner to whom the data is charged, and the limits that apply."""


STORED: Sequence[StoredBound] = (
    StoredBound(
        (
            *("job", "q", "featured", "ready", "cold", "held", "due", "jobs", "wide"),
            *("followers", "abandoned"),
        ),
        "`--max-waiting`, `--max-waiting-adapter`, `--max-waiting-mb`",
        "the tenant, before a job is queued: `--max-waiting-tenant`, `--max-waiting-tenant-mb`",
    ),
    StoredBound(
        ("own", "run", "cancelled", "tok", "sent", "out"),
        "sequences of the workers; tokens of their answers, unread events of at most a minute",
        "the tenant, by the job",
    ),
    StoredBound(
        ("res", "ended", "kept", "idem"),
        "`--retain-s`, `--retain-mb`, and half of Redis' memory",
        "the tenant: beyond the limit, the oldest answers of the one that keeps most are deleted",
    ),
    StoredBound(
        ("record", "unanswered", "unansweredbytes"),
        "`--unanswered-days`, `--unanswered-mb`, and an eighth of Redis' memory",
        "the tenant: beyond the limit, the oldest records of the one that has most are deleted",
    ),
    StoredBound(
        ("dead", "reported"), "10,000 letters, `--dead-letters-mb`", "the tenant, by the job"
    ),
    StoredBound(
        ("file", "files", "purpose", "stored"),
        "a record of at most 1 KiB for each file",
        "the tenant, before a byte is written: `--max-files-tenant`, `--max-files-tenant-mb`",
    ),
    StoredBound(
        (
            "batch",
            "batches",
            "batchlease",
            "batchdone",
            "batchparts",
            "endedbatches",
            "webhooks",
            "turns",
            "turning",
        ),
        f"{MAX_OPEN:,} open batches; metadata of at most 16 values of 512 characters each",
        "the tenant, ended batches too: `--max-batches-tenant`",
    ),
    StoredBound(
        ("adapters", "adapter", "previous", "version", "needs", "retired", "quarantined"),
        "`--keep-versions` and the current version of each name; 255 characters for a name",
        "keys with the scope `adapters`, and the audit log",
    ),
    StoredBound(("pins", "pinload"), f"{MAX_PINS} pins", "keys with the scope `adapters`"),
    StoredBound(
        ("pausedadapters",), f"{MAX_PAUSED} paused adapters", "keys with the scope `adapters`"
    ),
    StoredBound(
        ("shadows", "compared", "differing"),
        f"{MAX_PENDING:,} pairs that wait, 100 reports for each candidate",
        "keys with the scope `adapters`",
    ),
    StoredBound(("changes",), f"{MAX_CHANGES:,} changes", _POOL),
    StoredBound(
        ("upload", "uploads"),
        "`--max-adapter-mb` for each adapter; all uploads end at 70 % of Redis' memory",
        "the tenant, before a piece is written: half of Redis' memory, 5,000 uploads",
    ),
    StoredBound(
        ("inspect", "found", "staging"),
        "a minute, and as many as front ends check at a time",
        "the tenant: its checks at a time",
    ),
    StoredBound(("starting",), "one for the pool, for ten seconds", "the operator"),
    StoredBound(("lookup",), "half a minute", "the tenant that asked for the name"),
    StoredBound(
        ("calls", "imagecalls", "reply"),
        "half a minute, and as many as front ends make at a time",
        "the tenant: its calls at a time",
    ),
    StoredBound(
        ("keys", "keysopen", "key", "rate"),
        f"{MAX_KEYS:,} keys, one record for each",
        "keys with the scope `admin`",
    ),
    StoredBound(
        ("t", "ledger", "ledgers"),
        "one record for each tenant, and for each of `--usage-days`",
        "operators, who create the keys",
    ),
    StoredBound(
        (
            *("w", "workers", "has", "on", "idle", "wake", "load", "failedload"),
            *("missing", "lost", "charged"),
        ),
        "one record for each worker and each adapter that it holds",
        _POOL,
    ),
    StoredBound(
        ("capacity", "classes", "doomed", "apis", "processes"), "one entry for each process", _POOL
    ),
    StoredBound(
        (
            *("cnt", "served", "history", "incidents", "audit", "base", "barrier"),
            *("control", "arq", "paused"),
        ),
        f"one record each; {MAX_SAMPLES} samples of minutes, an hour and a day, at most "
        f"{MAX_BYTES // 1024} KiB; 200 incidents",
        _POOL,
    ),
)


@dataclass(frozen=True, slots=True)
class WorkBound:
    """Bound of one task or arq function, in words for operators."""

    items: str
    end: str
    """Limit that ends the work."""


def _within(seconds: float) -> str:
    return f"a time limit of {seconds:g} s"


WORK: Mapping[str, WorkBound] = {
    "reap": WorkBound("50 workers and 24 jobs in a call of Redis", _within(10)),
    "release_quarantined": WorkBound("the quarantined versions", _within(10)),
    "compare_shadows": WorkBound(f"{MAX_COMPARED} pairs of answers", _within(10)),
    "forget_unused": WorkBound("128 retired versions", _within(10)),
    "report_dead_letters": WorkBound(f"{MAX_SUMMARIZED:,} letters", _within(10)),
    "trim_dead_letters": WorkBound(f"{MAX_TRIMS} steps", _within(20)),
    "audit": WorkBound(f"{MAX_SCAN_S:g} s of scans, {MAX_KEPT} suspects", _within(40)),
    "start_batches": WorkBound(
        "the turns of batches that are free, fairly to tenants", _within(10)
    ),
    "sweep_files": WorkBound(
        f"{PAGE} files in a page; one that can't be deleted waits", _within(60)
    ),
    "call_webhook": WorkBound(
        f"{MAX_HANDED_OVER} ends in a call, {MAX_CALLS} calls at a time", _within(2 * TIMEOUT_S)
    ),
    "run_batch": WorkBound(
        f"a file of `--max-file-mb` and {MAX_LINES:,} lines, each checked like a request's body",
        f"the turn, after {TURN_S:g} s while other batches wait; the batch, at the end of its "
        f"window, or when {MAX_TRIES} turns in a row have failed",
    ),
}
"""Bound of each task and each arq function by its name."""
