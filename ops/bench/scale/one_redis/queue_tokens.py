"""Jobs and tokens that one Redis carries: rates, cost of Redis, and a comparison of checkouts."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from ops.bench.compare.results import Spread, spread
from ops.bench.machine import ROOT
from ops.bench.measurement_process import run_module
from ops.bench.probes.finding import Chart, Finding
from ops.bench.scale.checkouts import benchmarks_of
from ops.bench.scale.one_redis.drive import OneRedis


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A workload for `one_redis`."""

    jobs: int
    tokens_per_job: int
    batch: int

    def __str__(self) -> str:
        tokens = "1 token" if self.tokens_per_job == 1 else f"{self.tokens_per_job} tokens"
        return f"jobs of {tokens}, {self.batch} per worker"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """Sizes of the measurement."""

    cases: tuple[Case, ...]
    rounds: int
    """Number of repetitions of each case. A round measures all checkouts in direct succession."""


FULL = Sizes(
    cases=(
        Case(jobs=2000, tokens_per_job=1, batch=16),
        Case(jobs=50, tokens_per_job=128, batch=1),
        Case(jobs=250, tokens_per_job=128, batch=16),
        Case(jobs=700, tokens_per_job=128, batch=64),
    ),
    rounds=3,
)
QUICK = Sizes(cases=(Case(jobs=32, tokens_per_job=4, batch=2),), rounds=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Carried:
    """What one Redis carries in one case, with the whole of a core for Redis."""

    redis_us_per_job: Spread
    """CPU time of Redis per job, with all of its tokens."""
    jobs_per_s: Spread
    """Rate at which Redis would use its core completely: 1 s / `redis_us_per_job`."""
    tokens_per_s: Spread
    driven_jobs_per_s: Spread
    """Rate that the driving process reached. The process saturates its core before Redis does."""
    bytes_per_running_job: float
    bytes_per_ended_job: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """Results of one case."""

    case: Case
    carried: Carried
    rounds: tuple[OneRedis, ...]
    baseline: Carried | None = None
    baseline_rounds: tuple[OneRedis, ...] = ()
    ratio: Spread | None = None
    """`jobs_per_s` divided by that of the baseline, computed within each round."""


def measure_queue_tokens(
    sizes: Sizes, baseline: Path | None, report: Callable[[str], None] = lambda _: None
) -> list[Row]:
    """Measure all cases on this checkout, and on the checkout `baseline` if it is given.

    Each measurement runs in a process of its own with a Redis of its own. Every second round
    measures the baseline first. `report` is called with the name of each case before it is
    measured.

    Raises:
        SettingsError: `baseline` isn't a checkout.
        MeasurementFailed: a measurement failed.
    """
    with ExitStack() as stack:
        checkouts = [ROOT, *([baseline] if baseline else [])]
        roots = [stack.enter_context(benchmarks_of(checkout)) for checkout in checkouts]
        rows = []
        for case in sizes.cases:
            report(str(case))
            rounds: list[list[OneRedis]] = [[] for _ in roots]
            for number in range(sizes.rounds):
                order = list(range(len(roots)))
                for index in order if number % 2 == 0 else reversed(order):
                    rounds[index].append(_run(case, roots[index]))
            rows.append(row_of(case, *rounds))
        return rows


def row_of(case: Case, rounds: Sequence[OneRedis], baseline_rounds: Sequence[OneRedis] = ()) -> Row:
    """Summarise the rounds of one case."""
    pairs = zip(baseline_rounds, rounds, strict=False)
    ratios = [_us_per_job(before) / _us_per_job(after) for before, after in pairs]
    return Row(
        case=case,
        carried=_carried(rounds),
        rounds=tuple(rounds),
        baseline=_carried(baseline_rounds) if baseline_rounds else None,
        baseline_rounds=tuple(baseline_rounds),
        ratio=spread(ratios) if ratios else None,
    )


def queue_tokens_finding(rows: Sequence[Row]) -> Finding:
    """Return a finding with one line per case."""
    longest = max(row.case.tokens_per_job for row in rows)
    long = [row for row in rows if row.case.tokens_per_job == longest]
    series = {"this checkout": [(row.case.batch, _us_per_token(row, row.carried)) for row in long]}
    if any(row.baseline for row in long):
        series["baseline"] = [
            (row.case.batch, _us_per_token(row, row.baseline)) for row in long if row.baseline
        ]
    return Finding(
        name="queue-tokens",
        figures={"rows": rows},
        says=tuple(map(_line, rows)),
        chart=Chart(
            x="jobs per worker",
            y=f"us of Redis per token, in jobs of {longest}",
            series=series,
        ),
    )


def _run(case: Case, root: Path) -> OneRedis:
    arguments = map(str, (case.jobs, case.tokens_per_job, case.batch))
    return OneRedis(**run_module("scale.one_redis.drive", *arguments, root=root))


def _us_per_job(found: OneRedis) -> float:
    """Return the CPU time per job of the mean length.

    The jobs that run when the measurement ends count with their tokens.
    """
    return 1e6 * found.redis_cpu_s * found.tokens_per_job / found.tokens


def _carried(rounds: Sequence[OneRedis]) -> Carried:
    costs = [_us_per_job(one) for one in rounds]
    first = rounds[0]
    return Carried(
        redis_us_per_job=spread(costs),
        jobs_per_s=spread([1e6 / us for us in costs]),
        tokens_per_s=spread([1e6 / us * first.tokens_per_job for us in costs]),
        driven_jobs_per_s=spread([one.tokens / one.tokens_per_job / one.seconds for one in rounds]),
        bytes_per_running_job=sum(first.bytes_per_running_job.values()),
        bytes_per_ended_job=sum(first.bytes_per_ended_job.values()),
    )


def _us_per_token(row: Row, carried: Carried) -> float:
    return carried.redis_us_per_job.median / row.case.tokens_per_job


def _line(row: Row) -> str:
    now, before = row.carried, row.baseline
    line = (
        f"{row.case}: one Redis carries {now.jobs_per_s.median:,.0f} jobs/s, "
        f"{now.tokens_per_s.median:,.0f} tokens/s ({now.redis_us_per_job.median:,.0f} us a job); "
        f"{now.bytes_per_running_job:,.0f} bytes a running job, "
        f"{now.bytes_per_ended_job:,.0f} an ended one"
    )
    if before is None or row.ratio is None:
        return line
    return (
        f"{line}; before: {before.jobs_per_s.median:,.0f} jobs/s, "
        f"{before.bytes_per_running_job:,.0f} and {before.bytes_per_ended_job:,.0f} bytes; "
        f"{row.ratio.median:.2f} x ({row.ratio.low:.2f} to {row.ratio.high:.2f})"
    )
