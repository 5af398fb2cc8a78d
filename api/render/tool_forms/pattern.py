"""Matches the markers of tool calls in text that arrives in pieces. Pure.

A pattern is a sequence of parts. Every pattern matches a bounded number of characters, so the
search for markers takes linear time, and little text is held back while a pattern may still match.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass
from enum import Enum

MAX_SPACE = 256
"""Maximum number of whitespace characters next to a marker."""
_SPACE = re.compile(rf"\s{{0,{MAX_SPACE}}}")
_WORD = re.compile(r"[A-Za-z0-9_-]{0,64}")


class Kind(Enum):
    """Part of a pattern that matches any text of one kind, rather than one fixed text."""

    SPACE = "space"
    """Any whitespace, up to `MAX_SPACE` characters, or none."""
    NAME = "name"
    """Name of an offered tool."""
    WORD = "word"
    """One to 64 letters, digits, hyphens and underscores, such as an id."""


SPACE, NAME, WORD = Kind.SPACE, Kind.NAME, Kind.WORD


@dataclass(frozen=True, slots=True)
class Maybe:
    """Part of a pattern that matches its `parts`, or nothing if the text doesn't have them."""

    parts: tuple["Part", ...]


@dataclass(frozen=True, slots=True)
class Ahead:
    """Part of a pattern: text that must follow, but isn't included in the match."""

    text: str


Part = str | Kind | Maybe | Ahead
Pattern = tuple[Part, ...]


@dataclass(frozen=True, slots=True)
class Match:
    """Text that a pattern matches."""

    end: int
    """Index after the match."""
    name: str | None = None
    """Name of the tool in the match; None if the pattern has no name."""


@dataclass(frozen=True, slots=True)
class Unfinished:
    """Result of a match: the text ends before it is clear whether the pattern matches."""


UNFINISHED = Unfinished()
Outcome = Match | Unfinished | None


def match(
    pattern: Pattern, text: str, at: int, names: Collection[str], *, is_final: bool = False
) -> Outcome:
    """Match `pattern` against the text so far, at the index `at`.

    `names` are the tool names, longer ones first. `is_final` states that no more text follows.
    """
    if not pattern:
        return Match(at)
    part, rest = pattern[0], pattern[1:]
    if part is NAME:
        return _match_name(rest, text, at, names, is_final=is_final)
    found = _match_part(part, text, at, names, is_final=is_final)
    if not isinstance(found, Match):
        return found
    return match(rest, text, found.end, names, is_final=is_final)


def unfinished_at(text: str, literals: Collection[str]) -> int:
    """Return the index of an incomplete literal at the text's end, or the text's length."""
    longest = max(map(len, literals))
    for at in range(max(0, len(text) - longest + 1), len(text)):
        if any(literal.startswith(text[at:]) for literal in literals):
            return at
    return len(text)


def strip_end(text: str) -> str:
    """Remove trailing whitespace, up to `MAX_SPACE` characters."""
    tail = text[-MAX_SPACE:]
    return text[: len(text) - len(tail) + len(tail.rstrip())]


def _match_part(
    part: Part, text: str, at: int, names: Collection[str], *, is_final: bool
) -> Outcome:
    match part:
        case str():
            return _match_literal(part, text, at, is_final=is_final)
        case Ahead():
            found = _match_literal(part.text, text, at, is_final=is_final)
            return Match(at) if isinstance(found, Match) else found
        case Maybe():
            return match(part.parts, text, at, names, is_final=is_final) or Match(at)
        case Kind():
            return _match_run(part, text, at, is_final=is_final)


def _match_literal(literal: str, text: str, at: int, *, is_final: bool) -> Outcome:
    if text.startswith(literal, at):
        return Match(at + len(literal))
    # If the rest of the text is too short, more text may still complete the literal.
    is_start = literal.startswith(text[at : at + len(literal)])
    return UNFINISHED if is_start and not is_final else None


def _match_run(kind: Kind, text: str, at: int, *, is_final: bool) -> Outcome:
    """Match as many characters of one kind as possible."""
    longest = (_SPACE if kind is SPACE else _WORD).match(text, at)
    end = longest.end() if longest else at
    limit = MAX_SPACE if kind is SPACE else 64
    if end == len(text) and end - at < limit and not is_final:
        return UNFINISHED
    return Match(end) if kind is SPACE or end > at else None


def _match_name(
    rest: Pattern, text: str, at: int, names: Collection[str], *, is_final: bool
) -> Outcome:
    for name in names:
        found = _match_literal(name, text, at, is_final=is_final)
        if isinstance(found, Match):
            found = match(rest, text, found.end, names, is_final=is_final)
        if isinstance(found, Match):
            return Match(found.end, name)
        if found:
            return found
    return None
