"""JSON with NaN and infinities is read, and hostile JSON is refused without harm."""

import json
import math
from typing import Any

import pytest

from shared import python_json


def use_the_stack(frames: int) -> None:
    if frames:
        use_the_stack(frames - 1)


class Garbage:
    """An object in a cycle. Only the garbage collector frees it."""

    def __init__(self) -> None:
        self.itself = self

    def __del__(self) -> None:
        use_the_stack(frames=300)


@pytest.mark.parametrize("value", [{"a": [1, 2.5, None, "é"]}, [], "a", 2**63])
def test_plain_json(value: Any) -> None:
    assert python_json.loads(json.dumps(value)) == value
    assert python_json.loads(json.dumps(value).encode()) == value


def test_values_that_only_python_writes() -> None:
    nan, infinity, large = python_json.loads("[NaN, -Infinity, 1e999]")
    assert math.isnan(nan)
    assert (infinity, large) == (-math.inf, math.inf)


@pytest.mark.parametrize(
    "text", ["", "{", "[" * 100_000, "[" * 1000 + "NaN", b"\xff\xfe[\x00]\x00"]
)
def test_what_is_refused(text: str | bytes) -> None:
    with pytest.raises(ValueError, match="line 1 column"):
        python_json.loads(text)


def test_finalizers_have_a_stack_while_nested_text_is_parsed() -> None:
    # An exception in a finalizer fails the test, because pytest treats warnings as errors here.
    for _ in range(100):
        for _ in range(20):
            Garbage()
        with pytest.raises(ValueError, match="depth limit"):
            python_json.loads("[" * 100_000)
