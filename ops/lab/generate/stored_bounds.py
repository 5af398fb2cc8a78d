"""Bounds of what each kind of key holds. `SECURITY.md` lists them.

A kind is the word after the pool's prefix, as in `shared.store.audit.rules`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from shared.store.adapters.audit_log import MAX_CHANGES
from shared.store.adapters.pins import MAX_PINS
from shared.store.adapters.shadows import MAX_PENDING
from shared.store.batches.batches import MAX_OPEN
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
