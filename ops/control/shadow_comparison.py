"""Compares the answers of shadows with those of current versions, for the control process.

A shadow is an adapter version that gets copies of jobs of the current version.
"""

from collections import Counter
from itertools import zip_longest

from shared.protocol.jobs import UNFINISHED, JobState
from shared.protocol.results import Result
from shared.store.adapters.shadows import PairReport, ShadowPair, Shadows
from shared.store.redis.connection import Redis
from shared.store.redis.keys import Keys
from shared.store.views.pool_views import PoolViews

MAX_COMPARED = 256
"""Maximum number of pairs of an original job and its copy that one step compares."""
CHARS_PER_WORD = 20
"""If the words of a text are longer on average, the text counts as written without spaces."""
ALMOST = 0.999
"""Largest similarity of two texts that aren't equal."""
NO_ANSWER = JobState.CANCELLED, JobState.EXPIRED
"""States of copies that aren't compared, because the pool had no time for the copies."""


class ShadowComparison:
    """Compares the answers of copied jobs with those of the originals, once both have ended."""

    def __init__(self, redis: Redis, keys: Keys) -> None:
        self._shadows = Shadows(redis, keys)
        self._views = PoolViews(redis, keys)

    async def step(self) -> int:
        """Compare some pairs of jobs whose answers are ready, and return the number of reports.

        Several processes may call this method at once.
        """
        num_compared, useless = 0, list[ShadowPair]()
        for pair, states in await self._shadows.pending():
            if None not in states and any(state in UNFINISHED for state in states):
                continue
            if states[0] is not JobState.DONE or states[1] in (None, *NO_ANSWER):
                useless.append(pair)
                continue
            num_compared += await self._compare(pair)
            if num_compared == MAX_COMPARED:
                break
        await self._shadows.discard(useless)
        return num_compared

    async def _compare(self, pair: ShadowPair) -> int:
        _, original = await self._views.job_and_result(pair.original)
        view, copy = await self._views.job_and_result(pair.copy)
        if view is None or original is None or copy is None:  # a tenant has just erased an answer
            await self._shadows.discard([pair])
            return 0
        name = view.version.rpartition("@")[0]
        return await self._shadows.record(name, view.version, compare(pair, original, copy))


def compare(pair: ShadowPair, original: Result, copy: Result) -> PairReport:
    """Return a report on how similar two answers are, or on the error with which the copy ended."""
    tokens = original.usage.completion_tokens if original.usage else 0
    if copy.state is not JobState.DONE:
        error = copy.error.message if copy.error else copy.state.value
        return PairReport(
            original=pair.original, copy=pair.copy, similarity=0.0, error=error, tokens=tokens
        )
    texts = zip_longest(
        (choice.text for choice in original.choices),
        (choice.text for choice in copy.choices),
        fillvalue="",
    )
    similarities = [similarity(one, two) for one, two in texts]
    return PairReport(
        original=pair.original,
        copy=pair.copy,
        similarity=sum(similarities) / len(similarities) if similarities else 1.0,
        tokens=tokens,
        candidate_tokens=copy.usage.completion_tokens if copy.usage else 0,
    )


def similarity(one: str, two: str) -> float:
    """Return the similarity of two texts: 1 if they are equal, else the share of common words.

    This is the Dice coefficient, whose time grows only with the length of the texts. Texts without
    spaces, such as Chinese ones, are compared by characters.
    """
    if one == two:
        return 1.0
    first, second = Counter(_units(one)), Counter(_units(two))
    total = first.total() + second.total()
    return min(2 * (first & second).total() / total, ALMOST) if total else ALMOST


def _units(text: str) -> list[str]:
    words = text.split()
    is_spaced = len(words) * CHARS_PER_WORD >= len(text)
    return words if is_spaced else list(text)
