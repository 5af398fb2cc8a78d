"""Situations of the scripts that try out and pin versions of adapters."""

from job_cases import CALLS
from large_pool import LargePool, adapter
from pool_cases import FIRST_IDLE, PREVIOUS

from shared.protocol.ids import JobId
from shared.store.adapters.candidates import Candidates
from shared.store.adapters.pins import Pins
from shared.store.adapters.shadows import PairReport, ShadowPair, Shadows
from shared.store.adapters.share import CandidateMode

NUMBER = 3 * FIRST_IDLE
"""Number of the adapter whose versions change."""
BY = "operator"


async def versions(pool: LargePool) -> None:
    """Measure the trial of a candidate from its first request to its promotion, and a pin."""
    registry, name = pool.registry, adapter(NUMBER).name
    candidates, shadows = Candidates(pool.meter, pool.keys), Shadows(pool.meter, pool.keys)
    pins = Pins(pool.meter, pool.keys)
    for generation in range(PREVIOUS + 1):
        await registry.load_adapter(adapter(NUMBER, generation), replace=True)
    for call in range(CALLS):
        tried = adapter(NUMBER, PREVIOUS + 1 + call)
        await registry.add_candidate(tried, keep_versions=PREVIOUS, by=BY)
        with pool.meter.measuring("one"):
            await candidates.set(name, None, mode=CandidateMode.SHADOW, percent=5, by=BY)
            await pins.set(name, 1 + call % 2, by=BY)
        pair = ShadowPair(original=JobId(f"o{call}"), copy=JobId(f"c{call}"))
        await shadows.add(pair)
        report = PairReport(original=pair.original, copy=pair.copy, similarity=0.5)
        with pool.meter.measuring("one pair"):
            await shadows.record(name, tried.version, report)
        with pool.meter.measuring(f"{PREVIOUS} previous versions"):
            await candidates.promote(name, by=BY)
    await registry.unload_adapter(name)
