"""Cases of an evaluation: which answers are good, and which lines aren't cases."""

import json
from typing import Any

import pytest

from ops.evaluate.cases import Case, read_cases
from shared.errors import SettingsError

CHAT = {"messages": [{"role": "user", "content": "hi"}]}


def case(**fields: Any) -> Case:
    (found,) = read_cases([json.dumps({**CHAT, **fields})])
    return found


@pytest.mark.parametrize(
    ("check", "good", "bad"),
    [
        ({"expected": "yes"}, " yes\n", "yes!"),
        ({"expected": " 你好 "}, "你好", "您好"),
        ({"contains": "SELECT"}, "x SELECT y", "select"),
        ({"pattern": r"^\d+$"}, "42", "4 2"),
        ({"pattern": "a.b"}, "a\nb", "ab"),
        ({"json": {"a": [1, 2]}}, ' {"a": [1, 2.0]} ', '{"a": [2, 1]}'),
        ({"json": None}, "null", "none"),
    ],
)
def test_an_answer_is_good_if_it_passes_the_check(
    check: dict[str, Any], good: str, bad: str
) -> None:
    found = case(**check)
    assert found.is_good(good)
    assert not found.is_good(bad)


def test_a_case_is_a_request_with_greedy_sampling_by_default() -> None:
    found = case(expected="x", max_tokens=5)
    assert found.body == {**CHAT, "max_tokens": 5, "temperature": 0}
    assert found.path == "/v1/chat/completions"
    (prompt,) = read_cases(['{"prompt": "a", "expected": "b", "temperature": 1}'])
    assert prompt.body["temperature"] == 1
    assert prompt.path == "/v1/completions"


def test_empty_lines_are_skipped_and_lines_keep_their_numbers() -> None:
    text = json.dumps({**CHAT, "expected": "x"})
    assert [found.line for found in read_cases(["", text, "  ", text])] == [2, 4]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{", "line 1: it isn't JSON"),
        ("[]", "line 1: it must be a JSON object"),
        ('{"expected": "x"}', "line 1: it must have either `messages` or a `prompt`"),
        ('{"prompt": "a", "messages": [], "expected": "x"}', "either `messages` or a `prompt`"),
        ('{"prompt": "a"}', "line 1: it must have exactly one of expected, contains"),
        ('{"prompt": "a", "expected": "x", "contains": "x"}', "exactly one of"),
        ('{"prompt": "a", "expected": 1}', "line 1: expected: must be a text"),
        ('{"prompt": "a", "pattern": "("}', "line 1: pattern: missing"),
        ('{"prompt": "a", "expected": "x", "model": "m"}', "line 1: model can't be set"),
        ("", "it has no cases"),
    ],
)
def test_a_line_that_is_no_case_is_refused(line: str, reason: str) -> None:
    with pytest.raises(SettingsError, match=r"--file: .*") as refusal:
        read_cases([line])
    assert reason in str(refusal.value)
