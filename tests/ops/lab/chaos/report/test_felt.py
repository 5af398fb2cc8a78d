"""A stream feels a fault for its longest gap, minus its usual gap."""

import math

import pytest
from chaos_findings import fault, record

from ops.lab.chaos.report.felt import Felt, FeltTimes, percentile


def with_gap(start_ms: int, length_ms: int, **changes: object) -> object:
    """Record of a stream with a part each 100 ms, and one longer gap."""
    before = list(range(100, start_ms + 1, 100))
    after = [start_ms + length_ms + 100 * i for i in range(10)]
    times = [*before, *after]
    fields = {"arrivals_ms": times, "num_chars": [8] * len(times), "ended_s": 120.0}
    return record(sent_s=105.0, **{**fields, **changes})


def felt(*records: object, next_s: float = math.inf) -> Felt:
    return FeltTimes(records).of(fault(), next_s)  # type: ignore[arg-type]


def test_a_gap_during_a_fault_counts_without_the_usual_gap() -> None:
    found = felt(with_gap(4900, 3100))  # from 109.9 s on; the fault is injected at 110.0 s
    assert found.active == 1
    assert found.affected_s == (pytest.approx(3.0),)


@pytest.mark.parametrize(
    "stream",
    [
        with_gap(4900, 400),  # too short
        with_gap(2000, 3000),  # it began long before the fault
        with_gap(4900, 3100, manner="pause"),  # the client caused it
        with_gap(4900, 3100, is_stream=False),
    ],
)
def test_other_gaps_do_not_count(stream: object) -> None:
    assert felt(stream).affected_s == ()


def test_a_gap_that_begins_after_the_next_fault_belongs_to_that_fault() -> None:
    stream = with_gap(6500, 3000)  # from 111.5 s on
    assert felt(stream).affected_s != ()
    assert felt(stream, next_s=111.0).affected_s == ()


def test_the_wait_for_the_first_part_counts_as_a_gap() -> None:
    others = [record() for _ in range(5)]
    late = record(sent_s=110.0, ended_s=120.0, arrivals_ms=[5000, 5100], num_chars=[8, 8])
    assert felt(*others, late).affected_s == (pytest.approx(4.9),)


def test_percentiles_are_values_that_occurred() -> None:
    values = [float(value) for value in range(1, 101)]
    assert [percentile(values, share) for share in (0.5, 0.99, 1.0)] == [50.0, 99.0, 100.0]
    assert percentile([3.0], 0.5) == 3.0
    assert percentile([], 0.5) is None
