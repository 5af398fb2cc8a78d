"""The verdict of `python -m ops.lab.hostile.limits`, and a short run of it."""

import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest

from ops.lab.hostile.ledger_run import LedgerResult
from ops.lab.hostile.limits import _ledger_faults, _overrun_faults
from ops.lab.hostile.overruns import OverrunResult
from shared.store.access.ledger import Used

USED = Used(10, prompt_tokens=300, completion_tokens=700)
GOOD = LedgerResult(
    kills=2,
    moved=30,
    jobs=10,
    without_usage=0,
    answers=9,
    ledger=USED,
    usage=USED,
    counted_tokens=1000,
    reserved_tokens=0,
    differing_answers=0,
)


def overruns(windows: int, made: int) -> OverrunResult:
    return OverrunResult(limit=100, windows=windows, made=made, answers={})


@pytest.mark.parametrize(
    ("windows", "made", "is_good"),
    [
        *((1, 160, True), (1, 161, False), (2, 260, True), (2, 261, False)),
        *((10, 1060, True), (10, 1061, False), (10, 1101, False), (1, 99, False)),
    ],
)
def test_a_key_gets_its_limits_and_little_more(windows: int, made: int, is_good: bool) -> None:
    assert bool(_overrun_faults(overruns(windows, made))) is not is_good


@pytest.mark.parametrize(
    ("changes", "is_good"),
    [
        ({}, True),
        ({"ledger": replace(USED, completion_tokens=699)}, False),
        ({"ledger": replace(USED, requests=11)}, False),
        ({"counted_tokens": 1001}, False),
        ({"counted_tokens": 999, "without_usage": 3}, False),
        ({"counted_tokens": 1001, "without_usage": 1}, True),
        ({"reserved_tokens": 1}, False),
        ({"differing_answers": 1}, False),
        ({"moved": 19}, False),
    ],
)
def test_the_ledger_and_the_limit_equal_the_answers(changes: Any, is_good: bool) -> None:
    assert bool(_ledger_faults(replace(GOOD, **changes), 2)) is not is_good


@pytest.mark.slow
def test_a_short_run_finds_no_fault() -> None:
    words = [sys.executable, "-m", "ops.lab.hostile.limits", "--quick"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "no faults" in done.stdout
