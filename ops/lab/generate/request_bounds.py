"""Bounds of each kind of work that a request can ask for. `SECURITY.md` lists them.

Each piece of work has a bound in bytes, items and CPU time, is counted against its tenant before it
is done, and runs where it can be ended. Routes declare their kind of work with `guarded`. The test
`tests/api/test_bounds.py` checks all routes.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from api.access import usage_query
from api.adapters.comparisons import MAX_PAIRS
from api.answers.tokenization import LIMIT_S, MAX_CALLS_OF_TENANT
from api.assembly import MAX_INSPECTIONS_OF_TENANT
from api.files.upload import MAX_UPLOADS_TENANT
from api.http.guards import Work
from api.http.lists import MAX_LIMIT
from api.pool_state.state import MAX_INCIDENTS
from api.requests.translate import MAX_ANSWERS
from api.routes import audit_log
from shared.json_budget import MAX_DEPTH, MAX_NODES, MAX_VALUES
from shared.store.batches.batches import MAX_OPEN

_JSON = "`--max-body-bytes`, compressed or not"
_VALUES = f"{MAX_NODES:,} arrays, objects and strings, {MAX_VALUES:,} values, {MAX_DEPTH} levels"
_CHECK = "check of a body: 0.5 s, one large body at a time, in turn for the tenants"
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
    """Bound of its CPU time, and what ends it."""
    account: str
    """What counts the work against its tenant before it is done."""


BOUNDS: Mapping[Work, Bounds] = {
    Work.ANSWER: Bounds(
        num_bytes=f"{_JSON}; `--max-model-len` tokens",
        items=f"{_VALUES}; {MAX_ANSWERS} answers",
        time=f"{_CHECK}; the answer: `--deadline-s`, a cancellation, or its client leaves",
        account="`--max-waiting-tenant`, `--max-waiting-tenant-mb`, limits of its keys",
    ),
    Work.TOKENIZATION: Bounds(
        num_bytes=_JSON,
        items=_VALUES,
        time=f"{_CHECK}; {LIMIT_S:g} s in all",
        account=f"{MAX_CALLS_OF_TENANT} calls at a time, in turn for the tenants",
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
        items=f"the pool's workers and adapters, {MAX_INCIDENTS} incidents",
        time="one read of the registry, or a state that is read once a second for all clients",
        account=_REQUESTS,
    ),
    Work.CONSTANT: Bounds(
        num_bytes=_NONE, items="one page or file", time="no call of Redis", account=_REQUESTS
    ),
}
