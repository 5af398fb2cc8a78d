"""JSON with NaN and infinities is read, and hostile JSON is refused without harm."""

import json
import math
from typing import Any

import pytest

from shared import python_json
from shared.json_budget import JsonBudget

REFUSED = r"line 1 column|nested in more than 128 levels|truncated|has more than \d+ arrays"


def use_the_stack(frames: int) -> None:
    if frames:
        use_the_stack(frames - 1)


class Garbage:
    """An object in a cycle. Only the garbage collector frees it."""

    def __init__(self) -> None:
        self.itself = self

    def __del__(self) -> None:
        use_the_stack(frames=300)


BRACKETS = ["[" * 1000 + '"\\' + "{" * 1000, '\\"[', [1e999]]
"""Those in texts don't count as nesting."""


@pytest.mark.parametrize("value", [{"a": [1, 2.5, None, "é"]}, [], "a", 2**63, BRACKETS])
def test_plain_json(value: Any) -> None:
    assert python_json.loads(json.dumps(value), JsonBudget()) == value
    assert python_json.loads(json.dumps(value).encode(), JsonBudget()) == value


def test_values_that_only_python_writes() -> None:
    nan, infinity, large = python_json.loads("[NaN, -Infinity, 1e999]", JsonBudget())
    assert math.isnan(nan)
    assert (infinity, large) == (-math.inf, math.inf)


@pytest.mark.parametrize(
    "text",
    ["", "{", "[" * 100_000, "[" * 1000 + "NaN", "[" * 129 + "NaN" + "]" * 129, b"\xff\xfe[\x00]"],
)
def test_what_is_refused(text: str | bytes) -> None:
    with pytest.raises(ValueError, match=REFUSED):
        python_json.loads(text, JsonBudget())


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
def test_bytes_in_other_encodings(encoding: str) -> None:
    value = {"é": [1, "]"]}
    assert (
        python_json.loads(json.dumps(value, ensure_ascii=False).encode(encoding), JsonBudget())
        == value
    )


@pytest.mark.parametrize("start", ["", '{"a":NaN,"b":', "[NaN,"])
def test_finalizers_have_a_stack_while_nested_text_is_parsed(start: str) -> None:
    # An exception in a finalizer fails the test, because pytest treats warnings as errors here.
    for _ in range(100):
        for _ in range(20):
            Garbage()
        with pytest.raises(ValueError, match=REFUSED):
            python_json.loads(start + "[" * 100_000, JsonBudget())


def test_an_unterminated_string_is_scanned_in_linear_time() -> None:
    with pytest.raises(ValueError, match=REFUSED):
        python_json.loads("[NaN," + '"\\' * 1_000_000, JsonBudget())
