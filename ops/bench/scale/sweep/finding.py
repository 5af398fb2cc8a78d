"""Summarises a sweep: the saturating load, costs per job and token, and memory."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ops.bench.probes.finding import Chart, Finding, Points
from ops.bench.scale.key_bytes import KindBytes
from ops.bench.scale.sweep.costs import Costs, Use, split_costs
from ops.bench.scale.sweep.results import Measured, Sweep

KEPT_UP = 0.9
"""Share of the ceiling below which a load counts as saturated. Between two jobs, a stream waits for
up to two steps, which its ceiling doesn't include."""
OF_RUNNING = ("job", "tok", "own", "run", "due", "jobs", "followers")
"""Kinds of keys that belong to jobs, of which those in `OF_ENDED` remain after the end."""
OF_ENDED = ("job", "res", "ended", "jobs")
OF_WORKERS = ("w", "has", "sent", "wake", "workers", "capacity", "idle")
OF_ADAPTERS = ("adapter", "version", "previous", "adapters", "on")


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """Bytes of Redis by owner."""

    per_running_job: float
    """Includes the kept jobs' share of the same kinds of keys."""
    per_ended_job: float
    per_worker: float
    per_adapter: float
    total: int


def sweep_finding(sweep: Sweep) -> Finding:
    """Return a finding with the costs of all parts."""
    costs = costs_of(sweep.small.results)
    loads = [found for found in sweep.large.results if found.load.streams]
    rates: dict[str, Points] = {
        "served": [(found.load.streams, found.tokens_per_s) for found in loads],
        "the engines' ceiling": [
            (found.load.streams, found.ceiling_tokens_per_s) for found in loads
        ],
    }
    delays: dict[str, Points] = {
        "p50": [(found.load.streams, found.delay_p50_ms) for found in loads],
        "p99": [(found.load.streams, found.delay_p99_ms) for found in loads],
    }
    cores: dict[str, Points] = {
        name: [(found.load.streams, found.cores[name]) for found in loads]
        for name in ("redis", "workers", "front ends")
    }
    cores["the machine"] = [(found.load.streams, found.busy_cores) for found in loads]
    return Finding(
        name="scale",
        figures={"sweep": sweep, "costs": costs, "memory": memory_of(sweep)},
        says=(*_rate_lines(sweep, loads), *_cost_lines(costs, sweep), _memory_line(sweep)),
        chart=Chart(x="streams", y="tokens per second", series=rates),
        further_charts=(
            Chart(x="streams", y="delay of a token, ms", series=delays),
            Chart(x="streams", y="cores in use", series=cores),
        ),
    )


def costs_of(results: Sequence[Measured]) -> dict[str, Costs]:
    """Return the costs of each part in the small pool. The API process is measured over HTTP."""
    inside = [found for found in results if not found.load.over_http]
    idle = min(inside, key=lambda found: found.load.streams)
    costs = {
        part: split_costs([_use(found, part) for found in inside])
        for part in ("redis", "workers", "front ends")
    }
    over_http = [_use(found, "API process") for found in results if found.load.over_http]
    costs["API process"] = split_costs(over_http, idle_cores=idle.cores["API process"])
    return costs


def memory_of(sweep: Sweep) -> Memory:
    """Divide the memory of Redis in the large pool among jobs, workers and adapters."""
    running, ended, pool = (
        sweep.large.running_bytes,
        sweep.large.ended_bytes,
        sweep.shape.large.pool,
    )
    num_ended = _num_keys(ended, "res")
    per_ended = _num_bytes(ended, OF_ENDED) / max(1, num_ended)
    of_jobs = _num_bytes(running, {*OF_RUNNING, *OF_ENDED})
    of_kept = per_ended * _num_keys(running, "res")
    return Memory(
        per_running_job=(of_jobs - of_kept) / max(1, sweep.large.num_running),
        per_ended_job=per_ended,
        per_worker=_num_bytes(running, OF_WORKERS) / pool.workers,
        per_adapter=_num_bytes(running, OF_ADAPTERS) / pool.adapters,
        total=sum(kind.num_bytes for kind in running.values()),
    )


def _use(found: Measured, part: str) -> Use:
    return Use(
        seconds=found.seconds,
        jobs=found.jobs_per_s * found.seconds,
        tokens=found.tokens_per_s * found.seconds,
        cpu_s=found.cores[part] * found.seconds,
    )


def _num_bytes(kinds: Mapping[str, KindBytes], names: "set[str] | tuple[str, ...]") -> int:
    return sum(kinds[name].num_bytes for name in names if name in kinds)


def _num_keys(kinds: Mapping[str, KindBytes], name: str) -> int:
    return kinds[name].num_keys if name in kinds else 0


def _rate_lines(sweep: Sweep, loads: Sequence[Measured]) -> list[str]:
    pool = sweep.shape.large.pool
    best = max(loads, key=lambda found: found.tokens_per_s)
    saturated = [f for f in loads if f.tokens_per_s < KEPT_UP * f.ceiling_tokens_per_s]
    head = (
        f"{pool.workers:,} workers, {pool.adapters:,} adapters, {pool.front_ends} front ends: "
        f"{best.tokens_per_s:,.0f} tokens/s at {best.load.streams} streams, delay p50 "
        f"{best.delay_p50_ms:.1f} ms, p99 {best.delay_p99_ms:.1f} ms"
    )
    if not saturated:
        return [f"{head}; not saturated"]
    first = saturated[0]
    return [
        f"{head}; saturated from {first.load.streams} streams on, with {first.busy_cores:.1f} "
        f"cores of this machine and {first.cores['redis']:.2f} of Redis in use"
    ]


def _cost_lines(costs: Mapping[str, Costs], sweep: Sweep) -> list[str]:
    small, large = sweep.shape.small.pool, sweep.shape.large.pool
    batch = max(found.tokens_per_step for found in sweep.small.results if found.tokens_per_s)
    lines = [
        f"{part}: {cost.us_per_job:,.0f} us per job, {cost.us_per_token:,.0f} us per token"
        for part, cost in costs.items()
    ]
    lines[0] += f" ({small.workers} workers, {batch:.1f} tokens per publication)"
    idle = sweep.large.results[0].cores
    return [
        *lines,
        f"{large.workers:,} workers without load: {idle['redis']:.2f} cores of Redis, "
        f"{1000 * idle['workers'] / large.workers:.2f} ms of CPU per second and worker",
    ]


def _memory_line(sweep: Sweep) -> str:
    memory = memory_of(sweep)
    return (
        f"memory of Redis: {memory.per_running_job:,.0f} bytes per running job, "
        f"{memory.per_ended_job:,.0f} per ended job, {memory.per_worker:,.0f} per worker, "
        f"{memory.per_adapter:,.0f} per adapter; {memory.total / 1e6:,.0f} MB in all"
    )
