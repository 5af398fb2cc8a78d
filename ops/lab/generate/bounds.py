"""Bounds of what Redis stores, and of what a control process does. `SECURITY.md` lists them.

A kind of key is the word after the pool's prefix, as in `shared.store.audit.rules`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ops.control.batches.file_sweep import PAGE
from ops.control.batches.lines import MAX_LINES
from ops.control.batches.sending import TURN_S
from ops.control.batches.turn import MAX_TRIES
from ops.control.batches.webhook import MAX_CALLS, MAX_HANDED_OVER, TIMEOUT_S
from ops.control.shadow_comparison import MAX_COMPARED
from shared.store.adapters.audit_log import MAX_CHANGES
from shared.store.adapters.pins import MAX_PINS
from shared.store.adapters.shadows import MAX_PENDING
from shared.store.audit.running_audit import MAX_KEPT, MAX_SCAN_S
from shared.store.batches.batches import MAX_OPEN
from shared.store.jobs.dead_letters import MAX_SUMMARIZED, MAX_TRIMS
from shared.store.views.history import MAX_SAMPLES

_POOL = "the pool"


@dataclass(frozen=True, slots=True)
class StoredBound:
    """Bound of some kinds of keys, in words for operators."""

    kinds: Sequence[str]
    bound: str
    account: str
    """What counts the data, and against whom."""


STORED: Sequence[StoredBound] = (
    StoredBound(
        ("job", "q", "featured", "ready", "cold", "due", "jobs", "followers", "abandoned"),
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
    StoredBound(("lookup",), "half a minute", "the tenant that asked for the name"),
    StoredBound(
        ("calls", "reply"),
        "half a minute, and as many as front ends make at a time",
        "the tenant: its calls at a time",
    ),
    StoredBound(
        ("keys", "key", "rate"), "one record for each key", "operators, who create the keys"
    ),
    StoredBound(
        ("t", "ledger", "ledgers"),
        "one record for each tenant, and for each of `--usage-days`",
        "operators, who create the keys",
    ),
    StoredBound(
        ("w", "workers", "has", "on", "idle", "wake", "load", "missing", "lost", "charged"),
        "one record for each worker and each adapter that it holds",
        _POOL,
    ),
    StoredBound(("capacity", "classes", "doomed", "apis"), "one entry for each process", _POOL),
    StoredBound(
        ("cnt", "served", "history", "incidents", "audit", "base", "barrier", "control", "arq"),
        f"one record each; {MAX_SAMPLES} samples, 200 incidents",
        _POOL,
    ),
)


@dataclass(frozen=True, slots=True)
class WorkBound:
    """Bound of one task or arq function, in words for operators."""

    items: str
    end: str
    """What ends it."""


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
