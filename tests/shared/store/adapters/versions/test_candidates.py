"""Candidates: which requests they take, and what changes of the name do to them."""

import pytest
from adapter_versions import BASE, version_of
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import ErrorCode, JobFailed
from shared.protocol.ids import AdapterVersion
from shared.store.adapters.candidates import Candidates
from shared.store.adapters.registry import Registry
from shared.store.adapters.share import CandidateMode, Share
from shared.store.redis.connection import Redis
from shared.store.redis.keys import Keys

ONE, TWO = AdapterVersion("a@1"), AdapterVersion("a@2")
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
