"""Candidates, the audit log of changes, and pinned names, in a registry with the version `a@1`."""

from collections.abc import Awaitable, Callable

import pytest
from adapter_versions import BASE, version_of
from hypothesis import given
from hypothesis import strategies as st
from queue_support import INFO, Actor

from shared.errors import JobFailed
from shared.protocol.access.rights import Access, KeyLimits, Scope
from shared.protocol.capabilities import Needs
from shared.protocol.ids import AdapterVersion, WorkerId
from shared.protocol.jobs import Job, JobState
from shared.store.access.key_store import KeyStore
from shared.store.adapters import pins as pins_module
from shared.store.adapters.adapter_views import AdapterViews
from shared.store.adapters.audit_log import Change, Changes
from shared.store.adapters.candidates import CandidateMode, Candidates, Share
from shared.store.adapters.pins import PinnedVersion, Pins
from shared.store.adapters.registry import Registry
from shared.store.jobs.queue import Queue
from shared.store.redis.connection import Redis
from shared.store.redis.keys import Keys
from shared.store.views.incidents import IncidentsView

Enqueue = Callable[..., Awaitable[Job]]
StartActor = Callable[..., Awaitable[Actor]]
ONE, TWO, THREE = (AdapterVersion(f"a@{digest}") for digest in "123")
CANARY, SHADOW = CandidateMode.CANARY, CandidateMode.SHADOW


@pytest.fixture
async def registry(registry: Registry) -> Registry:
    await registry.load_adapter(version_of("1"), replace=False, by="red")
    return registry


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
    registry: Registry, canary: AdapterVersion, redis: Redis, keys: Keys
) -> None:
    await redis.hset(keys.version(canary), "state", "quarantined")  # type: ignore[misc]
    assert await served(registry) == {ONE: 400}


Row = tuple[str, str, str, str]


@pytest.fixture
def changes(redis: Redis, keys: Keys) -> Changes:
    return Changes(redis, keys)


async def rows(changes: Changes) -> list[Row]:
    """Return action, author, state before and state after of each change, oldest first."""
    found = await changes.newest(100, before=None, wanted=lambda _: True)
    return [(each.action, each.by, each.before, each.after) for each in reversed(found)]


async def test_keys_are_logged_without_their_secrets(
    changes: Changes, redis: Redis, keys: Keys
) -> None:
    store = KeyStore(redis, keys)
    key, secret = await store.create(
        Access(tenant="red", scopes=frozenset(Scope)), KeyLimits(tokens_per_day=1)
    )
    for _ in range(2):
        assert await store.revoke(key.id)
    assert await rows(changes) == [
        ("key_created", ".operator", "", f"red/{key.id}"),
        ("key_revoked", ".operator", f"red/{key.id}", ""),
    ]
    assert secret not in str(await redis.xrange(keys.changes))


async def test_pages_have_every_wanted_change_once(
    registry: Registry, changes: Changes, redis: Redis, keys: Keys
) -> None:
    pins = Pins(redis, keys)
    for replicas in range(1, 451):
        await pins.set("a", replicas, by="red")

    def is_even(change: Change) -> bool:
        return change.action == "pinned" and int(change.after) % 2 == 0

    found: list[int] = []
    before = None
    while page := await changes.newest(30, before=before, wanted=is_even):
        found += [int(change.after) for change in page]
        before = page[-1].id
    assert found == list(range(450, 0, -2))
    assert page == []


WORKER, OTHER = WorkerId("w1"), WorkerId("w2")


@pytest.fixture
def pins(redis: Redis, keys: Keys) -> Pins:
    return Pins(redis, keys)


async def test_a_worker_learns_of_the_current_version_and_its_holders(
    registry: Registry, pins: Pins, queue: Queue
) -> None:
    assert list(await pins.versions(WORKER)) == []
    assert await pins.set("a", 2, by="red")
    await queue.register(OTHER, lease_ms=60_000, info=INFO, residents=[ONE])
    for worker, is_held in ((WORKER, False), (OTHER, True)):
        assert list(await pins.versions(worker)) == [
            PinnedVersion(
                version=ONE,
                replicas=2,
                num_holders=1,
                is_held=is_held,
                needs=Needs(kinds=frozenset(), rank=8),
            )
        ]
    await registry.load_adapter(version_of("2"), replace=True)
    (pinned,) = await pins.versions(OTHER)
    assert (pinned.version, pinned.num_holders) == (TWO, 0)


async def test_a_quarantined_version_is_loaded_by_nobody(
    registry: Registry, pins: Pins, redis: Redis, keys: Keys
) -> None:
    await pins.set("a", 1, by="red")
    await redis.hset(keys.version(ONE), "state", "quarantined")  # type: ignore[misc]
    assert list(await pins.versions(WORKER)) == []


async def test_one_worker_at_a_time_loads_a_pinned_version(
    registry: Registry, pins: Pins, redis: Redis, keys: Keys
) -> None:
    await pins.set("a", 1, by="red")
    (pinned,) = await pins.versions(WORKER)
    assert [await pins.begin_load(pinned) for _ in range(2)] == [True, False]
    assert 0 < await redis.pttl(keys.pin_load(ONE)) <= 30_000
    await pins.end_load(ONE)
    assert await pins.begin_load(pinned)


async def test_a_version_that_others_have_loaded_meanwhile_is_not_loaded(
    registry: Registry, pins: Pins, queue: Queue
) -> None:
    await pins.set("a", 1, by="red")
    (pinned,) = await pins.versions(WORKER)
    await queue.register(OTHER, lease_ms=60_000, info=INFO, residents=[ONE])
    assert not await pins.begin_load(pinned)
    await pins.set("a", 2, by="red")
    (pinned,) = await pins.versions(WORKER)
    assert await pins.begin_load(pinned)


async def test_too_many_pins_are_refused(
    registry: Registry, pins: Pins, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pins_module, "MAX_PINS", 1)
    await registry.load_adapter(version_of("1", name="b"), replace=False)
    assert await pins.set("a", 1, by="red")
    with pytest.raises(JobFailed, match="pinned already; unpin one"):
        await pins.set("b", 1, by="red")
    assert await pins.set("a", 5, by="red"), "a pinned name can be changed"


async def test_failures_and_times_are_counted_for_each_version(
    canary: AdapterVersion, enqueue: Enqueue, actor: StartActor, redis: Redis, keys: Keys
) -> None:
    worker = await actor("w1", holds=[ONE, TWO])
    states = {ONE: [JobState.DONE], TWO: [JobState.FAILED, JobState.DONE, JobState.CANCELLED]}
    for version, ends in states.items():
        for state in ends:
            job = await enqueue(version)
            (claimed,) = await worker.claim()
            before_ms = int(await redis.hget(keys.job(job.id), "claim"))  # type: ignore[misc]
            await redis.hset(keys.job(job.id), "claim", before_ms - 3000)  # type: ignore[misc]
            await worker.finish(claimed, state)
    view = await AdapterViews(redis, keys).adapter("a")
    assert view is not None
    assert view.candidate is not None
    current, candidate = view.current.usage, view.candidate.usage
    assert (current.requests, current.failed) == (1, 0)
    assert (candidate.requests, candidate.failed) == (3, 1)
    assert candidate.mean_answer_s is not None
    assert 3.0 <= candidate.mean_answer_s < 60.0


async def test_a_comparison_counts_since_the_candidate_was_set(
    registry: Registry,
    candidates: Candidates,
    enqueue: Enqueue,
    actor: StartActor,
    redis: Redis,
    keys: Keys,
) -> None:
    worker = await actor("w1", holds=[ONE, TWO, THREE])

    async def run(version: AdapterVersion, *states: JobState, tokens: int = 0) -> None:
        for state in states:
            await enqueue(version)
            (claimed,) = await worker.claim()
            await worker.finish(claimed, state, used=tokens)

    async def compared() -> list[tuple[str, int, int, int, bool]]:
        view = await AdapterViews(redis, keys).adapter("a")
        assert view is not None
        assert view.candidate is not None
        return [
            (
                each.adapter.version,
                (used := each.compared_usage).requests,
                used.failed,
                used.tokens,
                used.mean_answer_s is None,
            )
            for each in (view.candidate, view.current)
        ]

    await registry.load_adapter(version_of("2"), replace=True)
    await run(ONE, JobState.FAILED, JobState.DONE, tokens=3)
    await run(TWO, JobState.DONE, JobState.FAILED, tokens=5)
    await candidates.set("a", ONE, mode=CANARY, percent=50, by="red")
    assert await compared() == [(ONE, 0, 0, 0, True), (TWO, 0, 0, 0, True)]
    await run(ONE, JobState.FAILED, tokens=4)
    await run(TWO, JobState.DONE, tokens=7)
    await candidates.set("a", None, mode=CANARY, percent=60, by="red")
    assert await compared() == [(ONE, 1, 1, 4, True), (TWO, 1, 0, 7, False)]
    await registry.load_adapter(version_of("3"), replace=True)
    await run(THREE, JobState.DONE, tokens=1)
    assert await compared() == [(ONE, 1, 1, 4, True), (THREE, 1, 0, 1, False)]
    await registry.roll_back_adapter("a", TWO)
    assert await compared() == [(ONE, 1, 1, 4, True), (TWO, 0, 0, 0, True)]
    await registry.load_adapter(version_of("3"), replace=True)
    assert await compared() == [(ONE, 1, 1, 4, True), (THREE, 0, 0, 0, True)]


async def test_a_candidate_with_a_share_is_one_change_and_one_incident(
    registry: Registry, candidates: Candidates, changes: Changes, redis: Redis, keys: Keys
) -> None:
    for percent in (10.0, 2.5, None):  # None keeps the share
        await registry.add_candidate(
            version_of("2"), keep_versions=4, by="red", mode=SHADOW, percent=percent
        )
    await candidates.drop("a", by="red")
    assert (await rows(changes))[1:] == [
        ("candidate_set", "red", "", "a@2 shadow 10%"),
        ("candidate_set", "red", "a@2 shadow 10%", "a@2 shadow 2.5%"),
        ("candidate_dropped", "red", "a@2", ""),
    ]
    incidents = (await IncidentsView(redis, keys).newest(10))[::-1]
    assert [(each.kind, each.reason) for each in incidents[1:]] == [
        ("adapter_candidate_set", "shadow of 10 % of the requests"),
        ("adapter_candidate_set", "shadow of 2.5 % of the requests"),
        ("adapter_candidate_dropped", None),
    ]
