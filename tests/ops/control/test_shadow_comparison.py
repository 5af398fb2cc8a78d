"""Comparison of a shadow's answers: what equals, what differs, and which pairs say nothing."""

import pytest
from adapter_versions import BASE, version_of
from hypothesis import given
from hypothesis import strategies as st
from queue_support import LIMITS, Actor, make_job

from ops.control.shadow_comparison import ShadowComparison, compare, similarity
from shared.errors import ErrorCode, JobError
from shared.protocol.ids import JobId
from shared.protocol.jobs import JobState
from shared.protocol.results import Choice, FinishReason, Result, Usage
from shared.store.adapters.candidates import CandidateMode, Candidates
from shared.store.adapters.registry import Registry
from shared.store.adapters.shadows import ShadowPair, Shadows
from shared.store.jobs.queue import Queue
from shared.store.redis.connection import Redis
from shared.store.redis.keys import Keys

PAIR = ShadowPair(original=JobId("o"), copy=JobId("c"))
ONE, TWO = version_of("1").version, version_of("2").version


def result(*texts: str, state: JobState = JobState.DONE, error: str | None = None) -> Result:
    choices = tuple(Choice(text=text, finish=FinishReason.STOP, ids=()) for text in texts)
    failure = JobError(code=ErrorCode.INTERNAL, message=error) if error else None
    usage = Usage(prompt_tokens=1, completion_tokens=len(texts))
    return Result(job=PAIR.original, state=state, choices=choices, usage=usage, error=failure)


@given(st.text(), st.text())
def test_only_equal_texts_have_the_similarity_1(one: str, two: str) -> None:
    found = similarity(one, two)
    assert 0 <= found <= 1
    assert (found == 1) == (one == two)
    assert found == similarity(two, one)


@pytest.mark.parametrize(
    ("one", "two", "expected"),
    [
        ("a b c d", "a b c x", 0.75),
        ("a b", "c d", 0.0),
        ("", "a", 0.0),
        ("a b", "b a", 0.999),
        (
            "今天天气很好我们去公园散步吧朋友们大家一起",
            "今天天气很差我们去公园散步吧朋友们大家一起",
            20 / 21,
        ),
    ],
)
def test_the_share_of_common_words_counts(one: str, two: str, expected: float) -> None:
    assert similarity(one, two) == pytest.approx(expected)


def test_a_pair_is_equal_if_all_choices_are() -> None:
    assert compare(PAIR, result("a", "b"), result("a", "b")).is_equal
    found = compare(PAIR, result("a", "b"), result("a", "c"))
    assert (found.is_equal, found.similarity) == (False, 0.5)
    assert not compare(PAIR, result("a"), result("a", "b")).is_equal


@pytest.fixture
async def shadow(redis: Redis, keys: Keys) -> Candidates:
    """The version `a@2` is a shadow of `a@1`."""
    registry, candidates = Registry(redis, keys), Candidates(redis, keys)
    await registry.set_base(BASE)
    await registry.load_adapter(version_of("1"), replace=False)
    await registry.add_candidate(version_of("2"), keep_versions=4, by="")
    await candidates.set("a", TWO, mode=CandidateMode.SHADOW, percent=100, by="")
    return candidates


@pytest.fixture
async def worker(shadow: Candidates, queue: Queue, redis: Redis, keys: Keys) -> Actor:
    """A worker that holds both versions, in a pool where one pair of jobs waits."""
    jobs = [make_job(version) for version in (ONE, TWO)]
    for job in jobs:
        await queue.enqueue(job, LIMITS)
    await Shadows(redis, keys).add(ShadowPair(original=jobs[0].id, copy=jobs[1].id))
    return await Actor(queue, redis, keys, "w1", [ONE, TWO]).register()


async def test_a_pair_is_counted_once_when_both_jobs_have_ended(
    worker: Actor, redis: Redis, keys: Keys
) -> None:
    comparison, shadows = ShadowComparison(redis, keys), Shadows(redis, keys)
    assert await comparison.step() == 0
    first, second = await worker.claim()
    await worker.finish(first)
    assert await comparison.step() == 0, "the copy hasn't ended"
    await worker.finish(second)
    assert [await comparison.step() for _ in range(3)] == [1, 0, 0]
    assert (await shadows.comparison(TWO)).pairs == 1


async def test_copies_that_were_too_late_are_not_compared(
    worker: Actor, redis: Redis, keys: Keys
) -> None:
    original, copy = await worker.claim()
    await worker.finish(original)
    await worker.finish(copy, JobState.CANCELLED)
    assert await ShadowComparison(redis, keys).step() == 0
    assert await redis.zcard(keys.shadows) == 0


async def test_failed_copies_count_against_the_candidate(
    worker: Actor, redis: Redis, keys: Keys
) -> None:
    original, copy = await worker.claim()
    await worker.finish(original)
    await worker.fail(copy, ErrorCode.INTERNAL)
    assert await ShadowComparison(redis, keys).step() == 1
    found = await Shadows(redis, keys).comparison(TWO)
    assert (found.pairs, found.equal, found.failed) == (1, 0, 1)
    (report,) = await Shadows(redis, keys).differing(TWO, 5)
    assert report.error == "it failed"


async def test_pairs_of_a_dropped_candidate_leave_nothing_behind(
    worker: Actor, shadow: Candidates, redis: Redis, keys: Keys
) -> None:
    for claimed in await worker.claim():
        await worker.finish(claimed)
    await shadow.drop("a", by="")
    await ShadowComparison(redis, keys).step()
    assert not await redis.exists(keys.compared(TWO), keys.differing(TWO), keys.shadows)
