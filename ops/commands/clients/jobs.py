"""`lorikeet jobs`: lists and shows jobs, and cancels or retries one or many."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ops.commands.clients.client_options import ChosenServer, YesOption, confirm
from ops.commands.clients.on_server import on_server, remember_options
from ops.help_pages import App
from ops.terminal import facts_table, print_error_line, print_line, table
from shared.errors import LorikeetError, SettingsError

if TYPE_CHECKING:
    from ops.pool_client import JobClient

jobs_app = App(help="List, show, cancel and retry jobs.", no_args_is_help=True)
jobs_app.callback()(remember_options)
FILTERS = "Filters"
MAX_PREVIEWED = 5
EVERYBODY = "*"
JobArgument = Annotated[str, typer.Argument(metavar="ID", help="Id of the answer or of the job.")]
JobsArgument = Annotated[
    list[str] | None,
    typer.Argument(metavar="ID", help="Ids of answers or jobs.", show_default=False),
]


def _filter(flag: str, metavar: str, text: str) -> Any:
    return typer.Option(
        flag, metavar=metavar, help=text, show_default=False, rich_help_panel=FILTERS
    )


StateOption = Annotated[
    list[str] | None,
    _filter(
        "--state",
        "STATE",
        "queued, running, done, failed, cancelled, expired or dead; may be repeated.",
    ),
]
ModelOption = Annotated[str | None, _filter("--model", "NAME", "Base model or adapter.")]
TenantOption = Annotated[
    str | None,
    _filter("--tenant", "NAME", "Tenant, or '*' for all; others need an administrator's key."),
]
CodeOption = Annotated[
    str | None, _filter("--error-code", "CODE", "Error code, such as internal_error.")
]
MinAgeOption = Annotated[
    str | None, _filter("--min-age", "TIME", "Accepted at least 90s, 1h, 2d ago.")
]
MaxAgeOption = Annotated[
    str | None, _filter("--max-age", "TIME", "Accepted at most 90s, 1h, 2d ago.")
]


class JobsLeft(LorikeetError):
    """Some of the jobs weren't cancelled or retried."""


def _client(server: ChosenServer) -> "JobClient":
    from ops.pool_client import JobClient  # httpx takes long to import

    return JobClient(server.url, server.api_key)


@jobs_app.command("list")
@on_server(_client)
def list_jobs(
    client: "JobClient",
    state: StateOption = None,
    model: ModelOption = None,
    tenant: TenantOption = None,
    error_code: CodeOption = None,
    min_age: MinAgeOption = None,
    max_age: MaxAgeOption = None,
    limit: Annotated[
        int, typer.Option(min=1, max=10_000, metavar="N", help="Most jobs to list, newest first.")
    ] = 20,
) -> None:
    """List the newest jobs, by default those of the key's tenant."""
    filters = _filters(state, model, tenant, error_code, min_age, max_age)
    jobs = list(client.jobs(filters, limit))
    if jobs:
        Console().print(_job_table(jobs, shows_tenant=tenant == EVERYBODY))
    else:
        print_line("there are no such jobs" if filters else "there are no jobs")


@jobs_app.command("dead")
@on_server(_client)
def dead_jobs(
    client: "JobClient",
    limit: Annotated[
        int, typer.Option("--most", min=1, max=10_000, metavar="N", help="Most jobs to list.")
    ] = 20,
    tenant: TenantOption = None,
) -> None:
    """List dead jobs, which are no longer tried because they killed their workers."""
    filters = _filters(["dead"], None, tenant, None, None, None)
    jobs = list(client.jobs(filters, limit))
    if jobs:
        Console().print(_job_table(jobs, shows_tenant=tenant == EVERYBODY))
    else:
        print_line("there are no dead jobs")


@jobs_app.command("show")
@on_server(_client)
def show_job(client: "JobClient", job_id: JobArgument) -> None:
    """Show the state of a job and its events."""
    job = client.job(job_id)
    Console().print(_facts(job))
    if events := job.get("timeline"):  # servers of earlier releases have none
        Console().print(_timeline(events))
    if num_left_out := job.get("timeline_left_out"):
        print_line(f"{num_left_out} events in the middle are left out")


@jobs_app.command("cancel")
@on_server(_client, changes=True)
def cancel_jobs(
    client: "JobClient",
    job_ids: JobsArgument = None,
    state: StateOption = None,
    model: ModelOption = None,
    tenant: TenantOption = None,
    min_age: MinAgeOption = None,
    max_age: MaxAgeOption = None,
    yes: YesOption = False,
) -> None:
    """Cancel jobs by their ids or by a filter. If they run, their workers are asked to stop.

    With a filter, the command first shows how many jobs match, and asks.
    """
    filters = _filters(state, model, tenant, None, min_age, max_age)
    if not _has_ids(job_ids, filters):
        _act_on_many(client, "cancel", filters, yes=yes)
        return
    for job_id in job_ids or ():
        found = client.cancel(job_id)["state"]
        shown = "cancelling: its worker will stop it" if found == "running" else found
        print_line(f"{job_id}: {shown}")


@jobs_app.command("retry")
@on_server(_client, changes=True)
def retry_jobs(
    client: "JobClient",
    job_ids: JobsArgument = None,
    state: StateOption = None,
    model: ModelOption = None,
    tenant: TenantOption = None,
    error_code: CodeOption = None,
    min_age: MinAgeOption = None,
    max_age: MaxAgeOption = None,
    yes: YesOption = False,
) -> None:
    """Enqueue dead or failed jobs again under new ids, with their models' current weights.

    A failed job can be retried only if a server error ended it. While a worker runs a dead job
    again, it runs no other job, because the dead job may kill the worker. With a filter, the
    command first shows how many jobs match, and asks.
    """
    filters = _filters(state, model, tenant, error_code, min_age, max_age)
    if not _has_ids(job_ids, filters):
        _act_on_many(client, "retry", filters, yes=yes)
        return
    for job_id in job_ids or ():
        new = client.retry(job_id)
        print_line(f"{job_id}: enqueued as {new['id']}, number {new['position']} of its queue")


def _filters(
    state: Sequence[str] | None,
    model: str | None,
    tenant: str | None,
    error_code: str | None,
    min_age: str | None,
    max_age: str | None,
) -> dict[str, object]:
    """Return the filters that were given, by their names in the API."""
    given = {
        "state": list(state or ()) or None,
        "model": model,
        "tenant": tenant,
        "error_code": error_code,
        "min_age_s": _seconds("--min-age", min_age),
        "max_age_s": _seconds("--max-age", max_age),
    }
    return {name: value for name, value in given.items() if value is not None}


def _seconds(flag: str, text: str | None) -> int | None:
    if text is None:
        return None
    found = re.fullmatch(r"([0-9]{1,9})([smhd]?)", text)
    if found is None:
        raise SettingsError(f"{flag}: {text!r} isn't a time such as 90s, 10m, 1h or 2d")
    return int(found[1]) * {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}[found[2]]


def _has_ids(job_ids: Sequence[str] | None, filters: dict[str, object]) -> bool:
    """Return whether jobs are named by their ids, and not by filters."""
    if bool(job_ids) == bool(filters):
        raise SettingsError("give either ids of jobs, or a filter such as --state or --model")
    return bool(job_ids)


def _act_on_many(
    client: "JobClient",
    action: Literal["cancel", "retry"],
    filters: dict[str, object],
    *,
    yes: bool,
) -> None:
    """Show how many jobs match, ask, and act on them, in several requests if there are many."""
    preview = client.act_on_many(action, filters, dry_run=True)
    if not preview["matched"]:
        print_line(f"no job to {action} matches")
        return
    more = "or more " if preview.get("has_more") else ""
    print_error_line(f"{preview['matched']:,} {more}jobs match, for example:")
    for job in preview["jobs"][:MAX_PREVIEWED]:
        print_error_line(f"  {job['id']}")
    confirm(f"{action.capitalize()} them?", yes=yes)
    done, skipped, outcome = 0, 0, preview
    while True:
        outcome = client.act_on_many(action, filters, dry_run=False)
        done, skipped = done + outcome["done"], skipped + outcome["skipped"]
        if not (outcome.get("has_more") and outcome["done"]) or outcome.get("reason"):
            break
    print_line(f"{done:,} {'cancelled' if action == 'cancel' else 'enqueued again'}")
    if skipped or outcome.get("reason"):
        reason = outcome.get("reason") or _first_error(outcome) or f"they can't be {action}ed"
        raise JobsLeft(f"{skipped:,} jobs were left as they are: {reason}")


def _first_error(outcome: dict[str, Any]) -> str | None:
    return next((job["error"] for job in outcome["jobs"] if job.get("error")), None)


def _job_table(jobs: Sequence[dict[str, Any]], *, shows_tenant: bool) -> Table:
    columns = ["id", "state", "model", *(["tenant"] if shows_tenant else []), "accepted", "error"]
    shown = table(*columns, whole=("id", "state"))
    for job in jobs:
        error = job["error"]["code"] if job["error"] else ""
        tenant = [job["tenant"]] if shows_tenant else []
        cells = [job["id"], job["state"], job["model"], *tenant, _clock(job["created_ms"]), error]
        shown.add_row(*map(Text, cells))
    return shown


def _facts(job: dict[str, Any]) -> Table:
    usage, error = job["usage"], job["error"]
    position, tries = job["position"], job["tries"]
    return facts_table(
        {
            "id": job["id"],
            "state": job["state"],
            "model": job["model"],
            "version": job["version"],
            "tenant": job.get("tenant"),
            "position": None if position is None else str(position),
            "tries": str(tries),
            "worker": job["worker"],
            "accepted": _clock(job["created_ms"]),
            "started": _clock(job["started_ms"]),
            "ended": _clock(job["ended_ms"]),
            "tokens": usage and f"{usage['prompt_tokens']} in, {usage['completion_tokens']} out",
            "error": error and f"{error['code']}: {error['message']}",
        }
    )


def _timeline(events: Sequence[dict[str, Any]]) -> Table:
    shown = table("after", "event", "worker", "reason", whole=("after", "event"))
    start = events[0]["at"]
    for event in events:
        after = f"{event['at'] - start:,.3f} s"
        cells = (after, event["event"], event["worker"] or "", event["reason"] or "")
        shown.add_row(*map(Text, cells))
    return shown


def _clock(ms: int | None) -> str:
    """Return a Unix time in milliseconds as a time in UTC, with the date if it isn't today."""
    if ms is None:
        return ""
    at = datetime.fromtimestamp(ms / 1000, UTC)
    is_today = at.date() == datetime.now(UTC).date()
    return f"{at:%H:%M:%S}" if is_today else f"{at:%Y-%m-%d %H:%M:%S}"
