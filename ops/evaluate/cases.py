"""Cases (requests with a check of the answer) and their outcomes. Does no I/O."""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from shared.errors import SettingsError

Check = Callable[[str], bool]
"""Function that returns whether an answer is good."""
DEFAULTS = {"temperature": 0, "max_tokens": 256}
"""Default values of a request's fields."""
REFUSED = ("model", "stream", "n")
"""Fields that a case can't have, because the command sets them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One request, and the check of its answer."""

    line: int
    """Number of the case's line in the file, from 1."""
    body: Mapping[str, Any]
    """Body of the request, without the field `model`."""
    is_good: Check
    wanted: str = ""
    """Description of a good answer, such as `contains "SELECT"`."""

    @property
    def path(self) -> str:
        """Path of the endpoint that answers the request."""
        return "/v1/chat/completions" if "messages" in self.body else "/v1/completions"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The answer of one version to one case."""

    case: Case
    version: str
    answer: str
    is_good: bool


def read_cases(lines: Iterable[str]) -> list[Case]:
    """Return the cases in the lines of a file. Empty lines are skipped.

    Each line is the JSON object of a request with `messages` or a `prompt`, and with one of
    `expected`, `contains`, `pattern` and `json`.

    Raises:
        SettingsError: there are no cases, or a line isn't a case. The error names that line.
    """
    cases = [_case(text, number) for number, text in enumerate(lines, 1) if text.strip()]
    if not cases:
        raise SettingsError("--file: it has no cases; write one JSON object per line")
    return cases


def _case(text: str, line: int) -> Case:
    def refuse(reason: str) -> SettingsError:
        return SettingsError(f"--file: line {line}: {reason}")

    try:
        case = json.loads(text)
    except ValueError as error:
        raise refuse(f"it isn't JSON: {error}") from None
    if not isinstance(case, dict):
        raise refuse("it must be a JSON object")
    if given := [name for name in REFUSED if name in case]:
        raise refuse(f"{given[0]} can't be set")
    if ("messages" in case) == ("prompt" in case):
        raise refuse("it must have either `messages` or a `prompt`")
    checks = [name for name in CHECKS if name in case]
    if len(checks) != 1:
        raise refuse(f"it must have exactly one of {', '.join(CHECKS)}")
    name = checks[0]
    try:
        check = CHECKS[name](case[name])
    except (TypeError, re.error) as error:
        raise refuse(f"{name}: {error}") from None
    body = {field: value for field, value in case.items() if field not in CHECKS}
    wanted = f"{name} {json.dumps(case[name], ensure_ascii=False)}"
    return Case(line=line, body={**DEFAULTS, **body}, is_good=check, wanted=wanted)


def _equals(expected: object) -> Check:
    text = _text(expected).strip()
    return lambda answer: answer.strip() == text


def _contains(part: object) -> Check:
    text = _text(part)
    return lambda answer: text in answer


def _matches(pattern: object) -> Check:
    compiled = re.compile(_text(pattern), re.DOTALL)
    return lambda answer: compiled.search(answer) is not None


def _is_json(value: object) -> Check:
    def check(answer: str) -> bool:
        try:
            return bool(json.loads(answer) == value)
        except ValueError:
            return False

    return check


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("must be a text")
    return value


CHECKS: Mapping[str, Callable[[object], Check]] = {
    "expected": _equals,
    "contains": _contains,
    "pattern": _matches,
    "json": _is_json,
}
"""Map each field that can describe a good answer to a function that makes the check.

`expected` is the whole answer without white space around it, and `contains` is a part of it.
`pattern` is a regular expression that matches a part of it. `json` is the value of a JSON answer.
"""
