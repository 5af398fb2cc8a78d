"""Screens that show the state of a pool, as GET /v1/pool returns it."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ops.terminal import table, utc_minutes

Body = dict[str, Any]
MAX_NAMES = 8
MAX_BACKLOGS = 20
MAX_ADAPTERS = 12
MAX_INCIDENTS = 6
ENDS = ("done", "failed", "cancelled", "expired", "dead")
"""States of ended jobs, in the order in which their totals are shown."""


@dataclass(frozen=True, slots=True)
class Sample:
    """State of the pool at one moment."""

    at_s: float
    """Time of the sample on the monotonic clock, in seconds."""
    body: Body


def queue_screen(before: Sample, now: Sample) -> RenderableType:
    """Return a view of the sample `now`. If `before` is earlier, the view also shows rates."""
    parts: list[RenderableType] = [
        _summary(before, now),
        _workers(before, now),
        _residents(now.body),
    ]
    if backlogs := _backlogs(now.body):
        parts.append(_backlog_table(now.body, backlogs))
    return Group(*parts, *_strays(now.body), _totals(now.body["queue"]))


def status_screen(url: str, body: Body) -> RenderableType:
    """Return a view of the server at `url`: its pool, workers, adapters and latest incidents."""
    sample = Sample(0.0, body)
    title = f"{url} · Lorikeet {body['version']} · pool {body['pool']}"
    base = f"base model {body['base'] or '-'}, {body['num_adapters']:,} adapters"
    reason = body["reason"]
    parts = [
        Text(title, style="bold", overflow="fold"),
        Text(f"{base}; ").append(
            f"requests wait: {reason}" if reason else "requests are answered",
            style="red" if reason else "green",
        ),
        _summary(sample, sample),
        _workers(sample, sample),
        *_adapters(body),
        *_strays(body),
        *_incidents(body),
    ]
    return Group(*parts)


def _summary(before: Sample, now: Sample) -> Text:
    workers, backlogs = now.body["workers"], _backlogs(now.body)
    words = [
        "1 worker" if len(workers) == 1 else f"{len(workers)} workers",
        f"{sum(worker['running'] for worker in workers)} running",
        f"{now.body['queue']['waiting']} waiting",
    ]
    if backlogs:
        words[-1] += f", up to {backlogs[0]['oldest_waited_s'] or 0:.1f} s at a queue's head"
    if (passed_s := now.at_s - before.at_s) > 0:
        ended = _num_ended(now.body) - _num_ended(before.body)
        tokens = sum(_tokens_since(before, worker) for worker in workers)
        words += [f"{tokens / passed_s:,.0f} tokens/s", f"{ended / passed_s:.1f} jobs/s"]
    return Text(" · ".join(words), style="bold")


def _workers(before: Sample, now: Sample) -> Table:
    workers = now.body["workers"]
    is_mixed = any(worker.get("serves") for worker in workers)
    columns = ("worker", "device", "running", "KV cache", "tokens/s", "output tokens", "state")
    shown = table(*columns, *(["serves"] if is_mixed else []))
    passed_s = now.at_s - before.at_s
    for worker in workers:
        cells = (
            name_of(worker),
            worker["device"],
            f"{worker['running']} of {worker['max_num_seqs']}",
            f"{worker['kv_used']:.0%}",
            f"{_tokens_since(before, worker) / passed_s:,.0f}" if passed_s > 0 else "-",
            f"{worker['tokens_total']:,}",
        )
        serves = [worker.get("serves") or "everything"] if is_mixed else []
        shown.add_row(*map(Text, cells), _state(worker), *map(Text, serves))
    return shown


def name_of(worker: Body) -> str:
    """Return the short name of a worker. Servers of earlier releases send none."""
    return str(worker.get("name") or worker["id"])


def _state(worker: Body) -> Text:
    if worker["lease_left_s"] <= 0:
        return Text("lease expired", style="red")
    if worker["is_stalled"]:
        return Text("stalled", style="red")
    state = str(worker.get("state", "serving"))
    return Text(state, style="" if state == "serving" else "yellow")


def _residents(body: Body) -> Table:
    shown = table("worker", "resident versions")
    for worker in body["workers"]:
        shown.add_row(*map(Text, (name_of(worker), _shortened(_resident(worker)))))
    return shown


def _resident(worker: Body) -> Iterator[str]:
    return (each["version"] for each in worker["adapters"] if each["state"] == "resident")


def _tokens_since(before: Sample, worker: Body) -> int:
    """Return a worker's output tokens since `before`, or 0 if `before` doesn't have the worker."""
    known = {old["id"]: old["tokens_total"] for old in before.body["workers"]}
    total: int = worker["tokens_total"]
    return total - int(known.get(worker["id"], total))


def _num_ended(body: Body) -> int:
    return sum(body["queue"][state] for state in ENDS)


def _backlogs(body: Body) -> list[Body]:
    """Return the versions with waiting jobs.

    They are sorted by how long their next job has waited, longest wait first.
    """
    waiting = [each for each in body["adapters"] if each["waiting"]]
    return sorted(waiting, key=lambda each: -(each["oldest_waited_s"] or 0))


def _backlog_table(body: Body, backlogs: list[Body]) -> Table:
    shown = table("adapter", "waiting", "next job waits", "held by")
    workers = body["workers"]
    for backlog in backlogs[:MAX_BACKLOGS]:
        version, waited_s = backlog["version"], backlog["oldest_waited_s"] or 0
        holders = sum(version in _resident(worker) for worker in workers)
        held_by = f"{holders} of {len(workers)} workers"
        shown.add_row(Text(version), str(backlog["waiting"]), f"{waited_s:.1f} s", held_by)
    if (more := len(backlogs) - MAX_BACKLOGS) > 0:
        shown.add_row(f"and {more} more")
    return shown


def _adapters(body: Body) -> Iterator[RenderableType]:
    """Yield a table of the adapters, if there are any.

    Those with jobs come first, then those with candidates, then the others by name.
    """
    adapters = sorted(_by_name(body), key=_order)
    if not adapters:
        return
    fields = "waiting", "running", "requests", "tokens"
    titles = (*fields[:-1], "all tokens")
    shown = table("adapter", "version", *titles, whole=titles)
    for first, *others in adapters[:MAX_ADAPTERS]:
        name = f"{first['name']} (paused)" if first.get("is_paused") else first["name"]
        for label, each in ((name, first), *((_trial(each), each) for each in others)):
            version = each["version"].removeprefix(f"{each['name']}@")
            numbers = (f"{each[field]:,}" for field in fields)
            style = "" if each["is_current"] or each.get("candidate") else "dim"
            shown.add_row(*map(Text, (label, version, *numbers)), style=style)
    yield shown
    if (more := len(adapters) - MAX_ADAPTERS) > 0:
        yield Text(f"and {more:,} more; `lorikeet adapters list` shows all", style="dim")


def _by_name(body: Body) -> Iterable[list[Body]]:
    """Return the versions of each adapter: the current one, the candidate, then any others."""
    found: dict[str, list[Body]] = {}
    for each in body["adapters"]:
        if not each["is_base"]:
            found.setdefault(each["name"], []).append(each)
    for versions in found.values():
        versions.sort(key=lambda each: (not each["is_current"], not each.get("candidate")))
    return found.values()


def _order(versions: list[Body]) -> tuple[bool, bool]:
    has_jobs = any(each["waiting"] or each["running"] for each in versions)
    has_candidate = any(each.get("candidate") for each in versions)
    return not has_jobs, not has_candidate


def _trial(each: Body) -> str:
    """Return the indented mode and share of a candidate, or nothing for other versions."""
    candidate = each.get("candidate")  # older servers send none
    return f"  {candidate['mode']} {candidate['percent']:g} %" if candidate else ""


def _incidents(body: Body) -> Iterator[RenderableType]:
    incidents = body["incidents"][:MAX_INCIDENTS]
    if not incidents:
        yield Text("no incidents", style="dim")
        return
    shown = table("time (UTC)", "incident", whole=("time (UTC)",))
    for each in incidents:
        at = utc_minutes(int(each["time"] * 1000)).removesuffix("+00:00")
        shown.add_row(*map(Text, (at, each["text"])))
    yield shown


def _strays(body: Body) -> Iterator[Text]:
    if strays := body.get("num_strays"):
        yield Text(f"stray keys: {strays:,}; `lorikeet audit` lists them", style="yellow")


def _totals(queue: Body) -> Text:
    ended = ", ".join(f"{queue[state]:,} {state}" for state in ENDS)
    return Text(f"ended: {ended}; retried: {queue['retried']:,}", style="dim")


def _shortened(names: Iterable[str]) -> str:
    shown = list(names)
    more = [f"and {len(shown) - MAX_NAMES} more"] if len(shown) > MAX_NAMES else []
    return " ".join([*shown[:MAX_NAMES], *more])
