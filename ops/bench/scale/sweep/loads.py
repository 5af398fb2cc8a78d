"""Pools and loads of the sweep."""

from dataclasses import dataclass

from ops.bench.scale.hosts.scale_pool import PoolSize


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """A closed loop of streams."""

    streams: int
    tokens_per_job: int
    over_http: bool = False
    """Whether the API process serves the load, instead of the front ends without HTTP."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolLoads:
    """A pool and its loads, which are measured one after another."""

    pool: PoolSize
    loads: tuple[Load, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """Sizes of the sweep."""

    large: PoolLoads
    """Pool whose load is raised until it saturates."""
    small: PoolLoads
    """Pool that leaves the machine idle time, so that its CPU times can be split.

    Its loads are one without streams, one of short jobs and one of long jobs, and the last two
    again over HTTP.
    """
    warm_up_s: float
    window_s: float
    """Duration of a measurement."""


IDLE = Load(streams=0, tokens_per_job=1)
FULL = Shape(
    large=PoolLoads(
        pool=PoolSize(
            workers=1000,
            worker_processes=4,
            front_ends=16,
            front_end_processes=2,
            adapters=10_000,
            step_ms=100,
            sequences=8,
        ),
        loads=(IDLE, *(Load(streams=n, tokens_per_job=32) for n in (25, 50, 100, 200, 400))),
    ),
    small=PoolLoads(
        pool=PoolSize(
            workers=16,
            worker_processes=1,
            front_ends=16,
            front_end_processes=1,
            adapters=100,
            step_ms=100,
            sequences=16,
        ),
        loads=(
            IDLE,
            Load(streams=16, tokens_per_job=1),
            Load(streams=64, tokens_per_job=32),
            Load(streams=16, tokens_per_job=1, over_http=True),
            Load(streams=64, tokens_per_job=32, over_http=True),
        ),
    ),
    warm_up_s=4,  # more than the duration of a job
    window_s=8,
)
_QUICK_POOL = PoolSize(
    workers=4,
    worker_processes=2,
    front_ends=2,
    front_end_processes=1,
    adapters=8,
    step_ms=10,
    sequences=4,
)
QUICK = Shape(
    large=PoolLoads(pool=_QUICK_POOL, loads=(IDLE, Load(streams=4, tokens_per_job=16))),
    small=PoolLoads(
        pool=_QUICK_POOL,
        loads=(
            IDLE,
            Load(streams=2, tokens_per_job=1),
            Load(streams=4, tokens_per_job=16),
            Load(streams=2, tokens_per_job=1, over_http=True),
            Load(streams=4, tokens_per_job=16, over_http=True),
        ),
    ),
    warm_up_s=0.2,
    window_s=0.5,
)
