"""Bounds of what a control process does at a time. `SECURITY.md` lists them."""

from collections.abc import Mapping
from dataclasses import dataclass

from ops.control.batches.file_sweep import PAGE
from ops.control.batches.lines import MAX_LINES
from ops.control.batches.sending import TURN_S
from ops.control.batches.turn import MAX_TRIES
from ops.control.batches.webhook import MAX_CALLS, MAX_HANDED_OVER, TIMEOUT_S
from ops.control.shadow_comparison import MAX_COMPARED
from shared.store.audit.running_audit import MAX_KEPT, MAX_SCAN_S
from shared.store.jobs.dead_letters import MAX_SUMMARIZED, MAX_TRIMS


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
