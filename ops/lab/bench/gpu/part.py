"""Runs the parts of the `gpu` benchmark, each within its share of the time."""

import signal
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from shared.errors import LorikeetError


class NotMeasured(LorikeetError):
    """A part can't be measured here; the message gives the reason."""


class OutOfTime(BaseException):
    """The time limit of a part has passed.

    It isn't an `Exception`, because compilers and kernel checks catch those.
    """


@dataclass(frozen=True, slots=True)
class Part:
    """One part of the benchmark."""

    name: str
    title: str
    seconds: float
    """Maximum number of seconds that the part may take."""
    rows: Callable[[], Iterable[Any]]
    """Measures the part. Yields dataclasses of one type, the most important ones first."""


@dataclass(slots=True)
class PartResult:
    """The rows that a part has measured."""

    name: str
    title: str
    rows: list[Any] = field(default_factory=list)
    note: str | None = None
    """Reason why rows are missing; None if the part is complete."""
    failure: str | None = None
    """Traceback of an unexpected error; None if there was none."""
    seconds: float = 0.0


def run_part(part: Part, seconds: float, report: Callable[[Any], None]) -> PartResult:
    """Measure `part` for at most `seconds`, and call `report` with each row.

    Rows that were measured before an error or before the end of the time are kept.
    """
    result, start = PartResult(part.name, part.title), time.monotonic()
    if seconds <= 0:
        result.note = "left out, because the time is over"
        return result
    try:
        with time_limit(seconds):
            for row in part.rows():
                result.rows.append(row)
                report(row)
    except OutOfTime:
        result.note = f"stopped after {seconds:.0f} s, the part's share of the time"
    except NotMeasured as error:
        result.note = f"not measured: {error}"
    except Exception as error:  # noqa: BLE001  (one part's error must not end the others)
        result.note = f"failed: {first_line(error)}"
        result.failure = traceback.format_exc()
    result.seconds = time.monotonic() - start
    return result


def first_line(error: Exception) -> str:
    """Return the error's type and the first line of its message."""
    lines = str(error).strip().splitlines() or ["no message"]
    return f"{type(error).__name__}: {lines[0]}"


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise `OutOfTime` in the block after `seconds`. Only the main thread may call this."""

    def stop(*_: object) -> None:
        raise OutOfTime

    handler = signal.signal(signal.SIGALRM, stop)
    timer = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, *timer)
        signal.signal(signal.SIGALRM, handler)
