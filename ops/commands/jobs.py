"""`lorikeet jobs`: shows, cancels and retries single jobs."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from ops.commands.flags import read_settings, settings_flags
from ops.commands.pool import Pool, on_pool
from ops.help_pages import App
from ops.terminal import print_line
from shared.errors import ErrorCode, JobFailed, failed
from shared.protocol.enqueue import QueueLimits
from shared.protocol.ids import JobId, job_id_of
from shared.settings import ApiSettings, PoolSettings
from shared.store.jobs.dead_letters import DeadLetter, DeadLetterSummary
from shared.store.jobs.retried_jobs import enqueue_again, not_retryable
from shared.store.views.job_view import JobView

jobs_app = App(help="Show, cancel and retry jobs.", no_args_is_help=True)
JobArgument = Annotated[str, typer.Argument(metavar="ID", help="Id of the answer or of the job.")]


@jobs_app.command("show")
@settings_flags(PoolSettings)
def show_job(job_id: JobArgument, **given: Any) -> None:
    """Show the state of a job."""
    Console().print(_job_table(on_pool(given, lambda pool: _view(pool, job_id))))


@jobs_app.command("cancel")
@settings_flags(PoolSettings)
def cancel_job(job_id: JobArgument, **given: Any) -> None:
    """Cancel a job. If it is running, its worker is asked to stop it."""

    async def cancel(pool: Pool) -> str:
        state = await pool.queue.cancel(job_id_of(job_id))
        if state is None:
            raise _no_such_job(job_id)
        return "cancelling: its worker will stop it" if state == "running" else state.value

    print_line(f"{job_id}: {on_pool(given, cancel)}")


@jobs_app.command("dead")
@settings_flags(PoolSettings)
def dead_jobs(
    most: Annotated[
        int, typer.Option(min=1, metavar="N", help="Most jobs to list, newest first.")
    ] = 20,
    **given: Any,
) -> None:
    """List dead jobs, which are no longer tried because they killed their workers."""

    async def read(pool: Pool) -> tuple[list[DeadLetter], int]:
        return await pool.letters.dead(most), await pool.letters.count()

    letters, count = on_pool(given, read)
    if letters:
        Console().print(_letter_table(letters))
        print_line(_summary(letters, count))
    else:
        print_line("there are no dead jobs")


@jobs_app.command("retry")
@settings_flags(PoolSettings)
def retry_job(job_id: JobArgument, **given: Any) -> None:
    """Enqueue a dead or failed job again under a new id, with its model's current weights.

    A failed job can be retried only if a server error ended it. While a worker
    runs a dead job again, it runs no other job, because the dead job may kill the worker.
    """
    limits = read_settings(ApiSettings, given).queue_limits
    new_id, position = on_pool(given, lambda pool: _retry(pool, job_id, limits))
    print_line(f"{job_id}: enqueued as {new_id}, number {position} of its queue")


async def _retry(pool: Pool, job_id: str, limits: QueueLimits) -> tuple[JobId, int]:
    old = await pool.letters.find(job_id_of(job_id))
    if old is None:
        raise JobFailed(not_retryable(job_id, await _view(pool, job_id)))
    enqueued = await enqueue_again(old, pool.queue, pool.registry, pool.letters, limits)
    return enqueued.id, enqueued.position


async def _view(pool: Pool, job_id: str) -> JobView:
    view = await pool.views.job(job_id_of(job_id))
    if view is None:
        raise _no_such_job(job_id)
    return view


def _no_such_job(job_id: str) -> JobFailed:
    message = f"no job {job_id}: it never existed, or is no longer kept; check the id"
    return failed(ErrorCode.JOB_NOT_FOUND, message)


def _letter_table(letters: list[DeadLetter]) -> Table:
    table = Table()
    for column in ("died", "id", "adapter", "tenant", "tries", "last worker", "reason"):
        table.add_column(column, no_wrap=column == "id", overflow="fold")
    for letter in letters:
        died = _time(letter.died_ms)
        names = (letter.id, letter.version, letter.tenant, str(letter.tries), letter.worker)
        table.add_row(died, *names, letter.reason)
    return table


def _summary(letters: list[DeadLetter], count: int) -> str:
    """Return a one-line summary of `letters`, which are the newest of `count` dead letters."""
    summary = DeadLetterSummary.of(letters)
    shown = "all" if summary.num_letters == count else f"the newest {summary.num_letters:,}"
    return "; ".join(
        (
            f"dead jobs: {count:,}, {shown} listed",
            f"adapters: {_listed(summary.by_version)}",
            f"workers: {_listed(summary.by_worker)}",
            f"errors: {_listed(summary.by_code)}",
        )
    )


def _listed(counts: Mapping[Any, int]) -> str:
    return ", ".join(f"{name} ({number:,})" for name, number in counts.items())


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
