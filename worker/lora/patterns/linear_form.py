"""Translates Python's regular expressions into RE2's syntax without changing what they match.

Python's own parser reads the pattern, so differences between the two syntaxes don't matter. The
matched texts are names of modules: they aren't empty, and have only printable ASCII characters. On
such texts, `.` matches every character, `^` matches only at the start, and Unicode's character
classes match the same characters as those of ASCII.
"""

from collections.abc import Callable, Iterable
from itertools import groupby
from re import _constants as sre  # type: ignore[attr-defined, unused-ignore]  # typeshed leaves it out
from typing import Any

ALPHABET = "".join(map(chr, range(ord(" "), ord("~") + 1)))
"""Characters that occur in names."""
MAX_REPEATS = 1000
"""Maximum count of a repetition in RE2."""
NOTHING = r"[^\x00-\x{10FFFF}]"
"""RE2's form of a pattern that matches no text."""
START = r"\A"
"""RE2's form of the start of a name. In a translated pattern, this text has no other meaning."""
_CATEGORIES: dict[Any, Callable[[str], bool]] = {
    sre.CATEGORY_DIGIT: str.isdigit,
    sre.CATEGORY_NOT_DIGIT: lambda char: not char.isdigit(),
    sre.CATEGORY_SPACE: str.isspace,
    sre.CATEGORY_NOT_SPACE: lambda char: not char.isspace(),
    sre.CATEGORY_WORD: lambda char: char.isalnum() or char == "_",
    sre.CATEGORY_NOT_WORD: lambda char: not (char.isalnum() or char == "_"),
}
_POSITIONS = {
    sre.AT_BEGINNING: START,
    sre.AT_BEGINNING_STRING: START,
    sre.AT_BOUNDARY: r"\b",
    sre.AT_NON_BOUNDARY: r"\B",
    sre.AT_END: r"\z",
    sre.AT_END_STRING: r"\z",
}
_UNSUPPORTED = {
    sre.ASSERT: "a lookaround",
    sre.ASSERT_NOT: "a lookaround",
    sre.GROUPREF: "a reference to a group",
    sre.GROUPREF_EXISTS: "a reference to a group",
    sre.ATOMIC_GROUP: "an atomic group",
    sre.POSSESSIVE_REPEAT: "a possessive repetition",
}


class NotLinear(ValueError):
    """RE2 can't express a regular expression. The message names the unsupported part."""


def linear_form(parsed: Any, state: Any, capture: str | None = None) -> str:
    """Translate a pattern that `re._parser.parse` has read into RE2's syntax.

    The result captures the group named `capture`, and no other group. `state` is the parser's
    state, with the pattern's flags and groups.

    Raises:
        NotLinear: the pattern has a part that RE2 doesn't support.
    """
    return _Form(state.groupdict.get(capture), capture).sequence(parsed, state.flags)


class _Form:
    """Writes the parsed parts of one pattern in RE2's syntax."""

    def __init__(self, captured: int | None, name: str | None) -> None:
        self._captured = captured
        self._name = name

    def sequence(self, parts: Iterable[Any], flags: int) -> str:
        return "".join(self._part(kind, value, flags) for kind, value in parts)

    def _part(self, kind: Any, value: Any, flags: int) -> str:
        if kind in _UNSUPPORTED:
            raise NotLinear(f"it contains {_UNSUPPORTED[kind]}")
        if kind is sre.FAILURE:
            return NOTHING
        if kind is sre.AT:
            return _POSITIONS[value]
        if kind is sre.BRANCH:
            return "(?:" + "|".join(self.sequence(each, flags) for each in value[1]) + ")"
        if kind is sre.SUBPATTERN:
            return self._group(value, flags)
        if kind in (sre.MAX_REPEAT, sre.MIN_REPEAT):
            return self._repetition(value, flags) + ("?" if kind is sre.MIN_REPEAT else "")
        return _class_of(
            _characters(kind, value, ignores_case=bool(flags & sre.SRE_FLAG_IGNORECASE))
        )

    def _group(self, value: Any, flags: int) -> str:
        number, added, removed, parts = value
        is_captured = number is not None and number == self._captured
        start = f"(?P<{self._name}>" if is_captured else "(?:"
        return start + self.sequence(parts, (flags | added) & ~removed) + ")"

    def _repetition(self, value: Any, flags: int) -> str:
        lowest, highest, parts = value
        is_bounded = highest is not sre.MAXREPEAT
        if lowest > MAX_REPEATS or (is_bounded and highest > MAX_REPEATS):
            raise NotLinear(f"it repeats a part more than {MAX_REPEATS} times")
        return f"(?:{self.sequence(parts, flags)}){{{lowest},{highest if is_bounded else ''}}}"


def _characters(kind: Any, value: Any, *, ignores_case: bool) -> set[str]:
    """Return the characters that a single-character part of a pattern matches."""
    if kind is sre.ANY:
        return set(ALPHABET)
    if kind is sre.LITERAL:
        return _matching([(kind, value)], ignores_case)
    if kind is sre.NOT_LITERAL:
        return set(ALPHABET) - _matching([(sre.LITERAL, value)], ignores_case)
    assert kind is sre.IN
    is_negated = value[0][0] is sre.NEGATE
    found = _matching(value[is_negated:], ignores_case)
    return set(ALPHABET) - found if is_negated else found


def _matching(items: Iterable[tuple[Any, Any]], ignores_case: bool) -> set[str]:
    found: set[str] = set()
    for kind, value in items:
        if kind is sre.CATEGORY:
            found |= {char for char in ALPHABET if _CATEGORIES[value](char)}
            continue
        first, last = value if kind is sre.RANGE else (value, value)
        if ignores_case and last > ord(ALPHABET[-1]):
            raise NotLinear("it ignores the case of a character outside of ASCII")
        found |= {chr(code) for code in range(max(first, ord(" ")), min(last, ord("~")) + 1)}
    return found | {char.swapcase() for char in found} if ignores_case else found


def _class_of(characters: set[str]) -> str:
    """Return a pattern that matches any one of `characters`."""
    if not characters:
        return NOTHING
    codes = sorted(map(ord, characters))
    runs = [
        [code for _, code in run]
        for _, run in groupby(enumerate(codes), lambda pair: pair[1] - pair[0])
    ]
    ranges = "".join(f"\\x{run[0]:02x}-\\x{run[-1]:02x}" for run in runs)
    return f"[{ranges}]"
