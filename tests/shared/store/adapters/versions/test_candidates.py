"""Candidates: which requests they take, and what changes of the name do to them."""

from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest
from adapter_versions import BASE, version_of
from hypothesis import given
from hypothesis import strategies as st
from queue_support import LIMITS, Actor, eventually, make_job

from shared.errors import ErrorCode, JobFailed, RegistryChanged
from shared.protocol.adapters import AdapterState
from shared.protocol.ids import AdapterVersion
from shared.protocol.jobs import Job
from shared.store.adapters.adapter_views import AdapterViews
from shared.store.adapters.candidates import Candidates
from shared.store.adapters.registry import Registry
from shared.store.adapters.share import CandidateMode, Share
from shared.store.audit.auditor import Auditor
from shared.store.jobs.queue import Queue
from shared.store.redis.connection import Redis
from shared.store.redis.keys import Keys

ONE, TWO, THREE = (AdapterVersion(f"a@{digest}") for digest in "123")
CANARY, SHADOW = CandidateMode.CANARY, CandidateMode.SHADOW


@pytest.fixture
def candidates(redis: Redis, keys: Keys) -> Candidates:
    return Candidates(redis, keys)


@pytest.fixture
async def canary(registry: Registry, candidates: Candidates) -> AdapterVersion:
    """The version `a@2`, which answers half of the requests."""
    assert await registry.add_candidate(version_of("2"), keep_versions=4, by="red")
    found = await candidates.set("a", None, mode=CANARY, percent=50, by="red")
    assert found == TWO
    return found


async def served(registry: Registry, name: str = "a", num: int = 400) -> dict[str | None, int]:
    """Return how many of some users each version serves."""
    found = await registry.find(name)
    counts: dict[str | None, int] = {}
    for user in range(num):
        version = found.canary_for(f"user-{user}").version
        counts[version] = counts.get(version, 0) + 1
    return counts


async def test_a_new_candidate_takes_no_requests(registry: Registry) -> None:
    assert await registry.add_candidate(version_of("2"), keep_versions=4, by="red")
    assert await served(registry) == {ONE: 400}
    assert (await registry.find("a@2")).version == TWO, "it can be tested by its version"


async def test_a_canary_takes_its_share(
    registry: Registry, candidates: Candidates, canary: AdapterVersion
) -> None:
    assert (await served(registry))[canary] == pytest.approx(200, abs=50)
    assert await served(registry, "base:a") == await served(registry)
    assert await served(registry, "a@1") == {ONE: 400}, "a request for a version gets it"
    assert await served(registry, "base") == {BASE.version: 400}
    for percent, expected in ((0, {ONE: 400}), (100, {TWO: 400})):
        await candidates.set("a", None, mode=CANARY, percent=percent, by="red")
        assert await served(registry) == expected


async def test_a_shadow_answers_nothing_but_takes_copies(
    registry: Registry, candidates: Candidates, canary: AdapterVersion
) -> None:
    await candidates.set("a", None, mode=SHADOW, percent=50, by="red")
    assert await served(registry) == {ONE: 400}
    found = await registry.find("a")
    copies = [found.shadow_for(f"user-{user}") for user in range(400)]
    assert {copy.version for copy in copies if copy} == {canary}
    assert sum(copy is not None for copy in copies) == pytest.approx(200, abs=50)


@given(st.text(max_size=40), st.floats(0, 100), st.floats(0, 100))
def test_who_is_with_the_candidate_stays_while_its_share_grows(
    key: str, one: float, other: float
) -> None:
    small, large = sorted((one, other))

    def takes(percent: float) -> bool:
        return Share(version=TWO, mode=CANARY, percent=percent, since_ms=0).takes(key)

    assert not takes(0)
    assert takes(100)
    assert takes(large) or not takes(small)


async def test_every_change_gives_the_registry_another_revision(
    registry: Registry, candidates: Candidates
) -> None:
    async def revision() -> str:
        return (await registry.find("a")).revision

    seen = [await revision()]
    await registry.add_candidate(version_of("2"), keep_versions=4, by="red")
    seen.append(await revision())
    await candidates.set("a", None, mode=CANARY, percent=1, by="red")
    seen.append(await revision())
    await candidates.drop("a", by="red")
    seen.append(await revision())
    assert len(set(seen)) == len(seen)


async def test_a_job_for_a_dropped_candidate_is_made_again(
    registry: Registry, candidates: Candidates, canary: AdapterVersion, queue: Queue
) -> None:
    revision = (await registry.find("a")).revision
    await candidates.drop("a", by="red")
    with pytest.raises(RegistryChanged):
        await queue.enqueue(make_job(canary), LIMITS, registry_revision=revision)


async def test_a_promoted_candidate_is_current_and_can_be_rolled_back(
    registry: Registry, candidates: Candidates, canary: AdapterVersion, redis: Redis, keys: Keys
) -> None:
    assert await candidates.promote("a", by="red") == canary
    assert await served(registry) == {canary: 400}
    view = await AdapterViews(redis, keys).adapter("a")
    assert view is not None
    assert (view.candidate, view.share) == (None, None)
    assert await registry.roll_back_adapter("a") == ONE
    with pytest.raises(JobFailed, match="has no candidate"):
        await candidates.promote("a", by="red")


async def test_a_dropped_candidate_ends_its_jobs_and_is_forgotten(
    registry: Registry,
    candidates: Candidates,
    canary: AdapterVersion,
    enqueue: Callable[..., Awaitable[Job]],
    actor: Callable[..., Awaitable[Actor]],
    redis: Redis,
    keys: Keys,
) -> None:
    job = await enqueue(canary)
    worker = await actor(holds=[canary])
    (claimed,) = await worker.claim()
    assert await candidates.drop("a", by="red") == canary
    assert await served(registry) == {ONE: 400}
    await worker.finish(claimed)
    assert (await worker.views.job(job.id)) is not None

    async def is_forgotten() -> bool:
        await registry.forget_unused()
        return await registry.adapter_by_version(canary) is None

    await eventually(is_forgotten)
    assert list((await Auditor(redis, keys).audit(settle_s=0)).strays) == []


async def test_a_candidate_that_is_also_a_previous_version_stays_one(
    registry: Registry, candidates: Candidates
) -> None:
    await registry.load_adapter(version_of("2"), replace=True)
    assert await candidates.set("a", ONE, mode=CANARY, percent=50, by="red") == ONE
    assert (await served(registry))[ONE] == pytest.approx(200, abs=50)
    await candidates.drop("a", by="red")
    assert await registry.roll_back_adapter("a") == ONE


async def test_a_candidate_outlives_the_limit_of_previous_versions(
    registry: Registry, candidates: Candidates
) -> None:
    await registry.load_adapter(version_of("2"), replace=True, keep_versions=1)
    await candidates.set("a", ONE, mode=CANARY, percent=100, by="red")
    await registry.load_adapter(version_of("3"), replace=True, keep_versions=1)
    assert await served(registry) == {ONE: 400}
    entry = await registry.adapter_by_version(ONE)
    assert entry is not None
    assert entry.state is AdapterState.READY
    await candidates.drop("a", by="red")
    entry = await registry.adapter_by_version(ONE)
    assert entry is None or entry.state is AdapterState.RETIRED


async def test_another_candidate_replaces_the_first(
    registry: Registry, candidates: Candidates, canary: AdapterVersion
) -> None:
    await registry.add_candidate(version_of("3"), keep_versions=4, by="red")
    assert await served(registry) == {ONE: 400}
    await candidates.set("a", None, mode=CANARY, percent=100, by="red")
    assert await served(registry) == {THREE: 400}
    entry = await registry.adapter_by_version(canary)
    assert entry is None or entry.state is AdapterState.RETIRED


@pytest.mark.parametrize("how", ["load", "roll back"])
async def test_a_candidate_that_becomes_current_by_another_way_is_no_candidate_any_more(
    how: str, registry: Registry, candidates: Candidates, canary: AdapterVersion
) -> None:
    if how == "load":
        await registry.load_adapter(version_of("2"), replace=True)
    else:
        await candidates.promote("a", by="red")
        await candidates.set("a", ONE, mode=CANARY, percent=50, by="red")
        await registry.roll_back_adapter("a", ONE)
    assert len(await served(registry)) == 1
    with pytest.raises(JobFailed, match="has no candidate"):
        await candidates.drop("a", by="red")


async def test_a_worker_that_starts_with_the_candidate_does_not_promote_it(
    registry: Registry, canary: AdapterVersion
) -> None:
    assert await registry.add_adapter(version_of("2", created_s=99)) == ONE
    assert (await served(registry))[canary] == pytest.approx(200, abs=50)


async def test_unloading_a_name_ends_its_candidate(
    registry: Registry, candidates: Candidates, canary: AdapterVersion, redis: Redis, keys: Keys
) -> None:
    assert await registry.unload_adapter("a")
    for name in ("a", canary):
        assert (await registry.find(name)).version is None
    assert await candidates.set("a", None, mode=CANARY, percent=5, by="red") is None
    await registry.load_adapter(version_of("1"), replace=False)
    assert await served(registry) == {ONE: 400}


async def test_another_base_model_deletes_candidates(
    registry: Registry, canary: AdapterVersion, redis: Redis, keys: Keys
) -> None:
    await registry.set_base(replace(BASE, version=AdapterVersion("base@2")))
    assert await registry.adapter_by_version(canary) is None
    assert list((await Auditor(redis, keys).audit(settle_s=0)).strays) == []


async def test_a_quarantined_candidate_takes_no_requests(
    registry: Registry, candidates: Candidates, canary: AdapterVersion, redis: Redis, keys: Keys
) -> None:
    await redis.hset(keys.version(canary), "state", "quarantined")  # type: ignore[misc]
    assert await served(registry) == {ONE: 400}
    for change in (
        lambda: candidates.promote("a", by="red"),
        lambda: candidates.set("a", None, mode=CANARY, percent=5, by="red"),
    ):
        with pytest.raises(JobFailed, match="is quarantined") as refusal:
            await change()
        assert refusal.value.error.code is ErrorCode.ADAPTER_CONFLICT


async def test_changes_that_make_no_sense_are_refused(
    registry: Registry, candidates: Candidates
) -> None:
    async def set_to(version: AdapterVersion | None) -> AdapterVersion | None:
        return await candidates.set("a", version, mode=CANARY, percent=5, by="red")

    with pytest.raises(JobFailed, match="has no candidate"):
        await set_to(None)
    with pytest.raises(JobFailed, match="is the current version of a already"):
        await set_to(ONE)
    with pytest.raises(JobFailed, match=r"keeps no version a@7; choose one of: a@1 \(current\)"):
        await set_to(AdapterVersion("a@7"))
    with pytest.raises(JobFailed, match="is the current version of a already"):
        await registry.add_candidate(version_of("1"), keep_versions=4, by="red")
    unknown = version_of("1", name="b")
    assert not await registry.add_candidate(unknown, keep_versions=4, by="red")
    assert await candidates.set("b", None, mode=CANARY, percent=5, by="red") is None
    assert await candidates.drop("b", by="red") is None
