"""Requests of a batch that wait to be sent."""

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from ops.control.batches.lines import Line
from ops.control.batches.pending_lines import MAX_WAIT_S, PendingLines


def lines(*models: str) -> list[Line]:
    return [Line(number, 0, 1, model) for number, model in enumerate(models)]


def popped(pending: PendingLines, now: float = 0) -> list[int]:
    found = []
    while line := pending.pop(now):
        found.append(line.number)
    return found


def refuse(pending: PendingLines, now: float, wait_s: float, *, of_all: bool = False) -> float:
    """Pop a line and put it back, as after a refusal; return the wait for the next one."""
    line = pending.pop(now)
    assert line
    pending.put_back(line, now, wait_s, of_all=of_all)
    return pending.wait_s(now)


def test_lines_are_grouped_by_model_in_the_order_of_the_file() -> None:
    assert popped(PendingLines(lines("a", "b", "a", "c", "b"))) == [0, 2, 1, 4, 3]


def test_a_model_that_is_away_leaves_its_place_to_others() -> None:
    pending = PendingLines(lines("a", "a", "b"))
    refuse(pending, 0, 5)
    assert popped(pending) == [2]
    assert (bool(pending), pending.wait_s(1)) == (True, 4)
    assert popped(pending, now=5) == [0, 1]
    assert not pending


def test_a_limit_holds_for_all_models() -> None:
    pending = PendingLines(lines("a", "b"))
    refuse(pending, 0, 60, of_all=True)
    assert (popped(pending, now=59), pending.wait_s(59)) == ([], 1)
    assert popped(pending, now=60) == [0, 1]


def test_waits_for_a_model_become_longer_until_it_is_back() -> None:
    pending, now, waits = PendingLines(lines("a")), 0.0, []
    for _ in range(7):
        waits.append(refuse(pending, now, 1))
        now += waits[-1]
    assert waits == [1, 2, 4, 8, 16, 30, MAX_WAIT_S]
    pending.succeeded("a")
    assert refuse(pending, now, 1) == 1


def test_requests_that_were_sent_together_count_as_one_attempt() -> None:
    pending = PendingLines(lines("a", "a", "a"))
    for line in [pending.pop(0) for _ in range(3)]:
        assert line
        pending.put_back(line, 0.5, 1, of_all=False)
    assert pending.wait_s(0.5) == 1


@given(st.lists(st.sampled_from("abc"), max_size=20), st.integers())
def test_no_line_is_lost_or_doubled(models: list[str], seed: int) -> None:
    pending, now, served, random = PendingLines(lines(*models)), 0.0, [], Random(seed)
    while pending:
        line = pending.pop(now)
        if line is None:
            now += pending.wait_s(now)
        elif random.random() < 0.4:
            pending.put_back(line, now, 1, of_all=random.random() < 0.5)
        else:
            served.append(line.number)
    assert sorted(served) == list(range(len(models)))
