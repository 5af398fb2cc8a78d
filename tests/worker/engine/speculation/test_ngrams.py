"""The index of n-grams finds what a search of the whole text finds."""

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from worker.engine.speculation.lookup import SIZES, NgramIndex, PromptLookup
from worker.engine.speculation.policy import MAX_SKIPPED


def searched(tokens: Sequence[int]) -> tuple[int, int] | None:
    """Return what `NgramIndex.find` must return for a text."""
    for size in SIZES:
        end = tokens[len(tokens) - size :]
        for position in range(len(tokens) - 1, size - 1, -1):
            if len(tokens) > size and tokens[position - size : position] == end:
                return size, position
    return None


def index_of(*parts: Sequence[int]) -> NgramIndex:
    index = NgramIndex()
    for part in parts:
        index.extend(part)
    return index


@given(st.lists(st.lists(st.integers(0, 3), max_size=12), max_size=12))
def test_the_latest_occurrence_of_the_longest_ngram_is_found(parts: list[list[int]]) -> None:
    tokens: list[int] = []
    index = NgramIndex()
    for part in parts:
        index.extend(part)
        tokens += part
        assert len(index) == len(tokens)
        assert index.find() == searched(tokens)


def test_a_copy_beyond_the_end_repeats_its_period() -> None:
    assert index_of([9, 1, 2, 3]).copy(1, 7) == [1, 2, 3, 1, 2, 3, 1]
    assert index_of([9, 7]).copy(1, 3) == [7, 7, 7]


def lookup_of(tokens: Sequence[int]) -> PromptLookup:
    lookup = PromptLookup()
    lookup.extend(tokens)
    return lookup


def test_a_proposal_continues_the_latest_occurrence() -> None:
    assert lookup_of([1, 2, 3, 4, 5, 9, 1, 2, 3]).propose(2) == [4, 5]
    assert lookup_of([1, 2, 3]).propose(2) == []
    assert lookup_of([1, 2, 1, 2]).propose(0) == []


def test_ngrams_of_other_sizes_go_on_while_one_size_backs_off() -> None:
    lookup = lookup_of([1, 2, 3, 4])
    for number in range(25):
        lookup.extend([100 + number, 1])
        if lookup.propose(1):
            lookup.record(1, 0)
    assert lookup.propose(1) == []  # one token in common
    lookup.extend([2, 3])
    assert lookup.propose(1) == [4]  # three tokens in common


def test_proposals_return_after_a_long_pause() -> None:
    lookup = lookup_of([1, 1])
    for _ in range(20):
        while not lookup.propose(1):
            pass
        lookup.record(1, 0)
    skipped = next(n for n in range(100) if lookup.propose(1))
    assert skipped == MAX_SKIPPED
