"""Inspects the pool after the load."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from ops.lab.chaos.checks.ledger import ledger_sum
from ops.lab.chaos.cluster.pool import Pool
from ops.lab.chaos.polling import NotInTime, until
from shared.store.access.ledger import Used
from shared.store.audit.auditor import Auditor
from shared.store.jobs.dead_letters import DeadLetters

IDLE_S = 60.0
"""Maximum seconds from the last answer until all jobs have ended."""
LONGEST_LIFETIME_S = 700
"""Maximum seconds for which a key of an ended job may exist after the retention."""
FORGET_S = 90.0
"""Maximum seconds that the pool may take to remove expired keys, some of them in small steps."""
JOB_KINDS = frozenset(
    (
        *("job", "res", "tok", "idem", "jobs", "ended", "followers", "abandoned", "due"),
        *("q", "ready", "run", "own", "cancelled"),
    )
)
"""Kinds of keys that belong to jobs. The kind is the word after the pool's prefix."""
MAX_DEAD = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Aftermath:
    """State of the pool after the load."""

    is_idle: bool
    """Whether all jobs ended soon after the clients had their answers."""
    totals: Mapping[str, int]
    """Number of ended jobs, by state."""
    retried: int
    """Number of times that a job was queued again because its worker was lost."""
    released: int
    """Number of times that a live worker released a job."""
    workers_lost: int
    dead: tuple[str, ...]
    """Dead letters: their ids and reasons."""
    stray_keys: tuple[str, ...]
    """Keys without owner or lifetime, directly after the load."""
    stuck_keys: tuple[str, ...]
    """Keys of jobs that still existed after the retention."""
    ledger: Used
    """Total usage in the pool's ledger, over all tenants and models."""


async def inspect(pool: Pool) -> Aftermath:
    """Inspect the pool when it is idle, and look for its keys again after the retention.

    The clocks of Redis are moved beyond the retention, so the function doesn't wait for it.
    """
    is_idle = await _is_met(lambda: _is_idle(pool), "no job is unfinished", IDLE_S)
    audit = await Auditor(pool.redis, pool.keys).audit()
    ledger = await ledger_sum(pool.redis, pool.keys)
    counts = await pool.views.counts()
    letters = await DeadLetters(pool.redis, pool.keys).dead(MAX_DEAD)
    for clock in pool.servers.clocks.values():
        clock.set(pool.options.retain_s + LONGEST_LIFETIME_S)
    await _is_met(lambda: _has_forgotten(pool), "no key of a job is left", FORGET_S)
    return Aftermath(
        is_idle=is_idle,
        totals={state.value: count for state, count in counts.totals.items()},
        retried=counts.retried,
        released=counts.released,
        workers_lost=counts.workers_lost,
        dead=tuple(f"{letter.id}: {letter.reason}" for letter in letters),
        stray_keys=tuple(f"{s.key} {s.member}: {s.reason}" for s in audit.strays),
        stuck_keys=tuple(await _job_keys(pool)),
        ledger=ledger,
    )


async def _is_met(condition: Callable[[], Awaitable[bool]], subject: str, within_s: float) -> bool:
    try:
        await until(condition, subject, within_s=within_s)
    except NotInTime:
        return False
    return True


async def _is_idle(pool: Pool) -> bool:
    running = sum(view.running for view in await pool.views.workers())
    counts = await pool.views.counts()
    return running == 0 and counts.waiting == 0 and not await pool.redis.zcard(pool.keys.due)


async def _has_forgotten(pool: Pool) -> bool:
    return not await _job_keys(pool)


async def _job_keys(pool: Pool) -> list[str]:
    prefix = pool.keys.prefix
    found = []
    async for raw in pool.redis.scan_iter(match=f"{prefix}*", count=1000):
        name = raw.decode()
        if name.removeprefix(prefix).partition(":")[0] in JOB_KINDS:
            found.append(name)
    return sorted(found)
