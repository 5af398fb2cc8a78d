"""`lorikeet adapters | queue | jobs`: looks at a pool, and cancels, through Redis."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from typing import Annotated, Any, TypeVar

import typer
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table

from ops.commands.flags import read_settings, settings_flags
from shared.answer_ids import job_id_of
from shared.connection import check_redis, connect
from shared.errors import ErrorCode, JobError, JobFailed
from shared.keys import Keys
from shared.queue import Queue
from shared.registry import Adapter, Registry
from shared.settings import PoolSettings
from shared.views import JobView, QueueCounts, WorkerView

REFRESH_S = 1.0

T = TypeVar("T")
jobs_app = typer.Typer(help="Look at one job, or cancel it.", no_args_is_help=True)
JobArgument = Annotated[str, typer.Argument(metavar="ID", help="the id of the answer")]


@settings_flags(PoolSettings)
def adapters(**given: Any) -> None:
    """List the adapters that can be named as `model`."""

    async def read(queue: Queue, registry: Registry) -> Table:
        return _adapter_table(await registry.adapters(), await queue.workers())

    Console().print(_on_pool(given, read))


@settings_flags(PoolSettings)
def queue(
    watch: Annotated[bool, typer.Option("--watch", help="refresh until Ctrl-C")] = False,
    **given: Any,
) -> None:
    """Show the workers, what they hold, and what waits."""

    async def read(queue: Queue, _: Registry) -> Group:
        return _queue_view(await queue.workers(), await queue.counts())

    async def follow(queue: Queue, registry: Registry) -> None:
        with Live(await read(queue, registry), screen=True) as live:
            while True:
                await asyncio.sleep(REFRESH_S)
                live.update(await read(queue, registry))

    if watch:
        with suppress(KeyboardInterrupt):
            _on_pool(given, follow)
    else:
        Console().print(_on_pool(given, read))


@jobs_app.command("show")
@settings_flags(PoolSettings)
def show_job(job_id: JobArgument, **given: Any) -> None:
    """Show the state of a job."""

    async def read(queue: Queue, _: Registry) -> JobView:
        view = await queue.job_view(job_id_of(job_id))
        if view is None:
            raise _no_such_job(job_id)
        return view

    Console().print(_job_table(_on_pool(given, read)))


@jobs_app.command("cancel")
@settings_flags(PoolSettings)
def cancel_job(job_id: JobArgument, **given: Any) -> None:
    """Cancel a waiting job, or tell its worker to stop a running one."""

    async def cancel(queue: Queue, _: Registry) -> str:
        state = await queue.cancel(job_id_of(job_id))
        if state is None:
            raise _no_such_job(job_id)
        return "cancelling: its worker is told" if state == "running" else state.value

    Console().print(f"{job_id}: {_on_pool(given, cancel)}", highlight=False)


def _on_pool(given: dict[str, Any], use: Callable[[Queue, Registry], Awaitable[T]]) -> T:
    settings = read_settings(PoolSettings, given)

    async def connected() -> T:
        redis, keys = connect(settings.redis_url), Keys(settings.pool)
        try:
            await check_redis(redis, settings.redis_url)
            return await use(Queue(redis, keys), Registry(redis, keys))
        finally:
            await redis.aclose()

    return asyncio.run(connected())


def _no_such_job(job_id: str) -> JobFailed:
    message = f"no job {job_id}: it never was, or it is no longer kept"
    return JobFailed(JobError(code=ErrorCode.JOB_NOT_FOUND, message=message))


def _adapter_table(found: list[Adapter], workers: list[WorkerView]) -> Table:
    table = Table("name", "version", "rank", "MB", "source", "state", "on workers")
    for adapter in found:
        holders = sum(adapter.version in worker.residents for worker in workers)
        table.add_row(
            adapter.name,
            adapter.version,
            str(adapter.rank),
            f"{adapter.num_bytes / 1e6:.1f}",
            adapter.source,
            adapter.state,
            f"{holders} of {len(workers)}",
        )
    return table


def _queue_view(workers: list[WorkerView], counts: QueueCounts) -> Group:
    actors = Table("worker", "device", "running", "KV cache", "tokens", "lease", "holds")
    for worker in workers:
        actors.add_row(worker.id, worker.info.device, *_load(worker), "\n".join(worker.residents))
    backlog = Table("adapter", "waiting")
    for version, number in sorted(counts.waiting_by_version.items(), key=lambda item: -item[1]):
        backlog.add_row(version, str(number))
    ended = ", ".join(f"{number} {state.value}" for state, number in counts.totals.items())
    summary = f"{counts.waiting} waiting; ended so far: {ended}"
    return Group(actors, *([backlog] if backlog.rows else []), summary)


def _load(worker: WorkerView) -> Iterator[str]:
    info = worker.info
    used = info.kv_blocks - info.kv_blocks_free
    yield f"{worker.running} of {info.max_num_seqs}"
    yield f"{used / info.kv_blocks:.0%}" if info.kv_blocks else "-"
    yield f"{info.tokens_total:,}"
    yield f"{worker.lease_left_ms / 1000:.1f} s" if worker.lease_left_ms > 0 else "[red]over[/]"


def _job_table(view: JobView) -> Table:
    table = Table(show_header=False)
    rows = {
        "id": view.id,
        "state": view.state.value,
        "model": view.model,
        "version": view.version,
        "tenant": view.tenant,
        "position": view.position,
        "tries": view.try_,
        "worker": view.worker,
        "accepted": _time(view.enqueued_ms),
        "started": _time(view.started_ms),
        "ended": _time(view.ended_ms),
        "tokens": view.usage
        and f"{view.usage.prompt_tokens} in, {view.usage.completion_tokens} out",
        "error": view.error and f"{view.error.code}: {view.error.message}",
    }
    for name, value in rows.items():
        if value not in (None, ""):
            table.add_row(name, str(value))
    return table


def _time(ms: int | None) -> str | None:
    return None if ms is None else datetime.fromtimestamp(ms / 1000, UTC).isoformat(" ", "seconds")
