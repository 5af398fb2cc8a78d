"""Renders a report as one HTML page that needs no other file."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape

from ops.chaos.report.plots import felt_times, timeline
from ops.chaos.report.run_report import RunReport

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1f2937; background: #fff;
  max-width: 1080px; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; margin-bottom: .2rem } h2 { font-size: 1.1rem; margin-top: 2rem }
table { border-collapse: collapse; font-size: 14px; margin: .5rem 0 }
th, td { text-align: left; padding: .2rem .9rem .2rem 0; border-bottom: 1px solid #e5e7eb }
td.number, th.number { text-align: right } code { background: #f3f4f6; padding: .1rem .3rem }
svg { max-width: 100%; height: auto } .passed { color: #15803d } .failed { color: #b91c1c }
p.note { color: #4b5563; max-width: 75ch }
""".strip()

Cell = str | int | float | None


def render(report: RunReport) -> str:
    """Return the page."""
    parts = [
        *_head(report),
        *_failures(report),
        "<h2>Requests</h2>",
        *_requests(report),
        "<h2>Load and faults</h2>",
        timeline(report),
        "<h2>What each kind of fault cost</h2>",
        *_costs(report),
        "<h2>What was left</h2>",
        *_aftermath(report),
        f"<h2>All {len(report.faults)} faults</h2>",
        *_faults(report),
    ]
    title = "Chaos run"
    head = f"<meta charset='utf-8'><title>{title}</title><style>{STYLE}</style>"
    body = "\n".join(parts)
    return f"<!doctype html>\n<html lang='en'><head>{head}</head><body>\n{body}\n</body></html>\n"


def _head(report: RunReport) -> Iterable[str]:
    options, machine = report.options, report.machine
    verdict = "failed" if report.failures else "passed"
    yield f"<h1>Chaos run: <span class='{verdict}'>{verdict}</span></h1>"
    yield f"<p><code>{escape(report.command)}</code></p>"
    yield _table(
        ("", ""),
        [
            ("began", report.began),
            ("load", f"{report.duration_s / 60:.1f} min, {options.streams} concurrent clients"),
            ("pool", _pool(report)),
            ("seed", options.seed),
            ("machine", f"{machine.cores} cores of {machine.cpu}, {machine.memory_gib} GiB"),
            ("commit", machine.commit),
        ],
    )


def _pool(report: RunReport) -> str:
    options = report.options
    return (
        f"{options.workers} workers with the {options.engine.value} engine, {options.apis} front "
        f"ends, {options.adapters} adapters, Redis with two replicas and three Sentinels, "
        f"--durability {options.durability}"
    )


def _failures(report: RunReport) -> Iterable[str]:
    if report.failures:
        items = "".join(f"<li>{escape(reason)}</li>" for reason in report.failures)
        yield f"<h2 class='failed'>Why it failed</h2><ul>{items}</ul>"


def _requests(report: RunReport) -> Iterable[str]:
    yield _table(
        (
            *("answered", "cancelled by the client", "lost", "refused at first", "resumed"),
            *("replayed", "broken"),
        ),
        [
            (
                *(report.outcomes.get(name, 0) for name in ("answered", "cancelled", "lost")),
                *(report.refusals, report.resumes, report.replays, report.breaks),
            )
        ],
    )
    manners, clients = _counted(report.manners), _counted(report.clients)
    yield (
        "<p class='note'>Every answer was checked token by token, and compared with the one that "
        f"the pool had stored. Streams had {report.tokens:,} tokens. How clients behaved: "
        f"{escape(manners)}. What read their answers: {escape(clients)}. Official clients don't "
        "continue a stream. Theirs may only break if a fault hits a front end or its network.</p>"
    )


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in sorted(counts.items()))


def _costs(report: RunReport) -> Iterable[str]:
    yield (
        "<p class='note'>A stream felt a fault for the longest gap between two of its parts during "
        "the fault, minus its usual gap. It is affected from half a second on. The time before "
        "the first part counts as a gap, too.</p>"
    )
    yield felt_times(report.kinds)
    yield _table(
        ("kind", "times", "streams", "affected", "p50 s", "p99 s", "max s", "recovered after s"),
        [
            (
                *(kind.kind, kind.took_place, kind.active, kind.affected),
                *(kind.felt_p50_s, kind.felt_p99_s, kind.felt_max_s, kind.recovery_s),
            )
            for kind in report.kinds
        ],
    )


def _aftermath(report: RunReport) -> Iterable[str]:
    aftermath = report.aftermath
    yield _table(
        ("", ""),
        [
            *((f"jobs {state}", count) for state, count in aftermath.totals.items()),
            ("dead letters", len(aftermath.dead)),
            ("jobs queued again after the loss of a worker", aftermath.retried),
            ("jobs released by live workers", aftermath.released),
            ("workers given up", aftermath.workers_lost),
            ("answers continued with other tokens", report.num_diverged),
            ("keys without owner or lifetime", len(aftermath.stray_keys)),
            ("keys of jobs after the retention", len(aftermath.stuck_keys)),
            ("requests in the ledger of usage", aftermath.ledger.requests),
            ("their prompt tokens", aftermath.ledger.prompt_tokens),
            ("their completion tokens", aftermath.ledger.completion_tokens),
            *((f"ended: {name}", count) for name, count in sorted(report.process_ends.items())),
        ],
    )


def _faults(report: RunReport) -> Iterable[str]:
    yield _table(
        ("at s", "kind", "target", "evidence", "healed at s", "recovered at s", "error"),
        [
            (
                *(fault.injected_s, fault.kind, fault.target, fault.evidence),
                *(fault.healed_s, fault.recovered_s, fault.error),
            )
            for fault in report.faults
        ],
    )


def _table(names: Sequence[str], rows: Iterable[Sequence[Cell]]) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in names)
    body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows)
    return f"<table>{f'<tr>{head}</tr>' if any(names) else ''}{body}</table>"


def _cell(value: Cell) -> str:
    if value is None:
        return "<td></td>"
    if isinstance(value, str):
        return f"<td>{escape(value)}</td>"
    text = f"{value:,.2f}" if isinstance(value, float) else f"{value:,}"
    return f"<td class='number'>{text}</td>"
