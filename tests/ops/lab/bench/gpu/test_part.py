"""Parts of the `gpu` benchmark: what ends one, and what is kept of it."""

import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

import pytest

from ops.lab.bench.gpu.part import NotMeasured, OutOfTime, Part, PartResult, run_part, time_limit


@dataclass(frozen=True)
class Row:
    number: int


def run(rows: Iterator[Row], seconds: float = 60.0) -> PartResult:
    return run_part(Part("p", "P", seconds, lambda: rows), seconds, lambda _: None)


def ending_with(error: Exception) -> Iterator[Row]:
    yield Row(1)
    raise error


def hanging() -> Iterator[Row]:
    yield Row(1)
    with suppress(Exception):  # as compilers do
        time.sleep(60)
    yield Row(2)


def test_a_complete_part_has_no_note() -> None:
    result = run(iter([Row(1), Row(2)]))
    assert (result.rows, result.note, result.failure) == ([Row(1), Row(2)], None, None)


def test_rows_before_an_error_are_kept_and_the_error_is_named() -> None:
    result = run(ending_with(RuntimeError("out of memory\nmore")))
    assert result.rows == [Row(1)]
    assert result.note == "failed: RuntimeError: out of memory"
    assert result.failure is not None
    assert "ending_with" in result.failure


def test_what_cannot_be_measured_here_is_no_failure() -> None:
    result = run(ending_with(NotMeasured("it needs a GPU")))
    assert (result.note, result.failure) == ("not measured: it needs a GPU", None)


def test_a_part_is_stopped_at_the_end_of_its_time() -> None:
    result = run(hanging(), seconds=0.05)
    assert result.rows == [Row(1)]
    assert result.note == "stopped after 0 s, the part's share of the time"
    assert result.seconds < 30


def test_after_the_time_of_all_parts_a_part_is_left_out() -> None:
    result = run(iter([Row(1)]), seconds=-1)
    assert (result.rows, result.note) == ([], "left out, because the time is over")


def test_a_time_limit_leaves_other_timers_as_they_were() -> None:
    before = signal.getsignal(signal.SIGALRM), signal.getitimer(signal.ITIMER_REAL)[0] > 0
    with pytest.raises(OutOfTime), time_limit(0.01):
        time.sleep(60)
    after = signal.getsignal(signal.SIGALRM), signal.getitimer(signal.ITIMER_REAL)[0] > 0
    assert after == before
