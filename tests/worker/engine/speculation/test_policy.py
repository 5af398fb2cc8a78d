"""How many draft tokens a step verifies, by acceptance and by the cost of rows."""

from hypothesis import given
from hypothesis import strategies as st

from worker.engine.speculation.policy import (
    MAX_AGE,
    MAX_SKIPPED,
    Acceptance,
    StepDurations,
    draft_lengths,
)

MAX_ROWS = 16


def durations(**ms_of: float) -> StepDurations:
    """Return durations of steps, such as `rows_1=10.0`."""
    found = StepDurations()
    for name, ms in ms_of.items():
        found.observe(int(name.removeprefix("rows_")), ms)
    return found


def lengths(
    proposals: list[tuple[int, float]], known: StepDurations, num_rows: int | None = None
) -> list[int]:
    rows = len(proposals) if num_rows is None else num_rows
    return draft_lengths(proposals, known, num_rows=rows, max_rows=MAX_ROWS)


def skipped(acceptance: Acceptance) -> int:
    """Return how many opportunities pass until the next draft."""
    return next(number for number in range(1000) if acceptance.may_draft())


def test_the_rate_follows_the_share_of_accepted_tokens() -> None:
    acceptance = Acceptance()
    for _ in range(20):
        acceptance.record(8, 8)
    assert acceptance.rate > 0.95
    high = acceptance.rate
    acceptance.record(8, 0)
    assert acceptance.rate < high
    for _ in range(50):
        acceptance.record(4, 0)
    assert acceptance.rate == Acceptance().rate


def test_tokens_after_a_rejected_one_say_nothing_about_the_rate() -> None:
    short, long = Acceptance(), Acceptance()
    short.record(2, 1)
    long.record(8, 1)
    assert short.rate == long.rate


def test_rejected_drafts_double_the_pause_and_an_accepted_token_ends_it() -> None:
    acceptance, pauses = Acceptance(), []
    for _ in range(9):
        acceptance.record(3, 0)
        pauses.append(skipped(acceptance))
    assert pauses == [0, 1, 2, 4, 8, 16, 32, MAX_SKIPPED, MAX_SKIPPED]
    acceptance.record(3, 1)
    assert skipped(acceptance) == 0
    acceptance.record(3, 0)
    assert skipped(acceptance) == 0


def test_durations_are_interpolated_between_known_numbers_of_rows() -> None:
    known = durations(rows_1=10.0, rows_5=18.0)
    assert [known.estimate(rows) for rows in (1, 2, 3, 5)] == [10.0, 12.0, 14.0, 18.0]
    assert known.estimate(9) > known.estimate(5)


def test_durations_are_forgotten_if_no_step_of_that_size_follows() -> None:
    known = durations(rows_4=1000.0)
    for _ in range(MAX_AGE):
        known.observe(1, 10.0)
    assert known.estimate(4) > 100.0
    known.observe(1, 10.0)
    assert known.estimate(4) < 20.0


def test_likely_tokens_are_drafted_while_rows_are_cheap() -> None:
    cheap = durations(rows_1=10.0, rows_9=11.0)
    assert lengths([(8, 0.95)], cheap) == [8]
    assert 1 <= lengths([(8, 0.3)], cheap)[0] < 8


def test_nothing_is_drafted_if_rows_are_expensive() -> None:
    assert lengths([(8, 0.9)], durations(rows_1=10.0, rows_9=90.0)) == [0]


def test_a_costly_second_row_may_pay_with_many_tokens() -> None:
    known = durations(rows_1=10.0, rows_2=20.0, rows_9=21.0)
    assert lengths([(8, 0.95)], known) == [8]
    assert lengths([(8, 0.4)], known) == [0]


def test_the_likeliest_tokens_of_all_requests_are_drafted() -> None:
    first, second, third = lengths([(8, 0.9), (0, 0.9), (8, 0.3)], durations(rows_3=10.0))
    assert first > third
    assert second == 0


def test_a_full_step_verifies_no_drafts() -> None:
    free = durations(rows_1=10.0, rows_16=10.0)
    assert lengths([(8, 1.0)] * 16, free) == [0] * 16
    assert sum(lengths([(8, 1.0)] * 10, free)) == 6
    assert lengths([(8, 1.0)], free, num_rows=14) == [2]


@given(
    proposals=st.lists(st.tuples(st.integers(0, 8), st.floats(0.3, 1.0)), max_size=20),
    observed=st.lists(st.tuples(st.integers(1, 16), st.floats(0.1, 1000.0)), max_size=12),
)
def test_lengths_never_exceed_the_proposals_or_the_rows(
    proposals: list[tuple[int, float]], observed: list[tuple[int, float]]
) -> None:
    known = StepDurations()
    for num_rows, ms in observed:
        known.observe(num_rows, ms)
    found = lengths(proposals, known)
    assert len(found) == len(proposals)
    for length, (most, _) in zip(found, proposals, strict=True):
        assert 0 <= length <= most
    assert sum(found) <= max(0, MAX_ROWS - len(proposals))
