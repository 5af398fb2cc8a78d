"""`lorikeet queue`: shows workers, resident adapter versions, waiting jobs and rates."""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated, Any

import typer
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ops.commands.flags import settings_flags
from ops.commands.pool import Pool, on_pool
from ops.terminal import table
from shared.protocol.capabilities import Capabilities
from shared.protocol.ids import WorkerId
from shared.settings import PoolSettings
from shared.store.views.pool_views import Backlog, QueueCounts, WorkerView

REFRESH_S = 1.0
RATE_WINDOW_S = 10.0
"""Seconds over which rates are averaged.

Rates over a shorter time would be unsteady, because workers report token counts only every two
seconds.
"""
MAX_NAMES = 8
MAX_BACKLOGS = 20


@dataclass(frozen=True, slots=True)
class Sample:
    """State of the pool at one moment."""

    at_s: float
    """Time of the sample on the monotonic clock, in seconds."""
    workers: Sequence[WorkerView]
    counts: QueueCounts
    backlogs: Sequence[Backlog]
    num_strays: int = 0
    """Number of keys that have neither owner nor lifetime, as reported by the running audit."""


@settings_flags(PoolSettings)
def queue(
    watch: Annotated[
        bool, typer.Option("--watch", help="Refresh every second until Ctrl-C.")
    ] = False,
    **given: Any,
) -> None:
    """Show workers, the adapter versions resident on them, and waiting jobs. --watch adds rates."""

    async def follow(pool: Pool) -> None:
        with Live(screen=True, auto_refresh=False) as live:
            async for view in views(pool):
                live.update(view, refresh=True)

    if watch:
        with suppress(KeyboardInterrupt):
            on_pool(given, follow)
    else:
        sample = on_pool(given, take_sample)
        Console().print(render(sample, sample))


async def views(pool: Pool) -> AsyncIterator[RenderableType]:
    """Yield a view of the pool every second."""
    samples: deque[Sample] = deque()
    while True:
        samples.append(await take_sample(pool))
        while samples[-1].at_s - samples[0].at_s > RATE_WINDOW_S:
            samples.popleft()
        yield render(samples[0], samples[-1])
        await asyncio.sleep(REFRESH_S)


async def take_sample(pool: Pool) -> Sample:
    """Read the state of the pool."""
    audit = await pool.audit.status()
    return Sample(
        time.monotonic(),
        await pool.views.workers(),
        await pool.views.counts(),
        await pool.views.backlogs(),
        len(audit.strays) if audit else 0,
    )


def render(before: Sample, now: Sample) -> RenderableType:
    """Return a view of the sample `now`. If `before` is earlier, the view also shows rates."""
    parts: list[RenderableType] = [_summary(before, now), _workers(before, now), _residents(now)]
    if now.backlogs:
        parts.append(_backlogs(now))
    if now.num_strays:
        strays = f"stray keys: {now.num_strays:,}; `lorikeet audit` lists them"
        parts.append(Text(strays, style="yellow"))
    return Group(*parts, _totals(now.counts))


def _summary(before: Sample, now: Sample) -> Text:
    words = [
        "1 worker" if len(now.workers) == 1 else f"{len(now.workers)} workers",
        f"{sum(worker.running for worker in now.workers)} running",
        f"{now.counts.waiting} waiting",
    ]
    if now.backlogs:
        words[-1] += f", up to {now.backlogs[0].next_waited_ms / 1000:.1f} s at a queue's head"
    if (passed_s := now.at_s - before.at_s) > 0:
        ended = sum(now.counts.totals.values()) - sum(before.counts.totals.values())
        tokens = sum(_tokens_since(before, worker) for worker in now.workers)
        words += [f"{tokens / passed_s:,.0f} tokens/s", f"{ended / passed_s:.1f} jobs/s"]
    return Text(" · ".join(words), style="bold")


def _workers(before: Sample, now: Sample) -> Table:
    is_mixed = not all(worker.info.serves.is_everything for worker in now.workers)
    columns = ("worker", "device", "running", "KV cache", "tokens/s", "tokens", "lease")
    shown = table(*columns, *(["serves"] if is_mixed else []))
    for worker in now.workers:
        info, passed_s = worker.info, now.at_s - before.at_s
        used = info.kv_blocks - info.kv_blocks_free
        shown.add_row(
            _short(worker.id),
            info.device,
            f"{worker.running} of {info.max_num_seqs}",
            f"{used / info.kv_blocks:.0%}" if info.kv_blocks else "-",
            f"{_tokens_since(before, worker) / passed_s:,.0f}" if passed_s > 0 else "-",
            f"{info.tokens_total:,}",
            f"{worker.lease_left_ms / 1000:.1f} s"
            if worker.lease_left_ms > 0
            else "[red]expired[/]",
            *([_served(info.serves)] if is_mixed else []),
        )
    return shown


def _served(serves: Capabilities) -> str:
    if serves.is_everything:
        return "everything"
    limit = "" if serves.max_rank is None else f" up to rank {serves.max_rank}"
    return ", ".join([f"plain LoRA{limit}", *sorted(serves.kinds), *sorted(serves.features)])


def _residents(now: Sample) -> Table:
    shown = table("worker", "resident versions")
    for worker in now.workers:
        shown.add_row(_short(worker.id), _shortened(worker.residents))
    return shown


def _tokens_since(before: Sample, worker: WorkerView) -> int:
    """Return a worker's output tokens since `before`, or 0 if `before` doesn't have the worker."""
    known = {old.id: old.info.tokens_total for old in before.workers}
    return worker.info.tokens_total - known.get(worker.id, worker.info.tokens_total)


def _backlogs(now: Sample) -> Table:
    shown = table("adapter", "waiting", "next job waits", "held by")
    for backlog in now.backlogs[:MAX_BACKLOGS]:
        holders = sum(backlog.version in worker.residents for worker in now.workers)
        waited = f"{backlog.next_waited_ms / 1000:.1f} s"
        held_by = f"{holders} of {len(now.workers)} workers"
        shown.add_row(backlog.version, str(backlog.waiting), waited, held_by)
    if (more := len(now.backlogs) - MAX_BACKLOGS) > 0:
        shown.add_row(f"and {more} more")
    return shown


def _totals(counts: QueueCounts) -> Text:
    ended = ", ".join(f"{number:,} {state.value}" for state, number in counts.totals.items())
    return Text(f"ended: {ended}; retried: {counts.retried:,}", style="dim")


def _short(worker: WorkerId) -> str:
    """Return a short worker id: host, process and the first characters of the boot id."""
    host, _, boot = worker.rpartition(":")
    return f"{host}:{boot[:6]}" if host else worker


def _shortened(names: Iterable[str]) -> str:
    shown = list(names)
    more = [f"and {len(shown) - MAX_NAMES} more"] if len(shown) > MAX_NAMES else []
    return " ".join([*shown[:MAX_NAMES], *more])
