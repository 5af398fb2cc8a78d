"""Matches the patterns of one field in linear time."""

import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from re import _parser as parser  # type: ignore[attr-defined, unused-ignore]  # typeshed leaves it out
from typing import Any

import re2

from worker.lora.patterns.linear_form import NOTHING, START, NotLinear, linear_form
from worker.lora.patterns.pattern_form import Match, PatternForm

MAX_MATCH_CPU_S = 0.1
"""Maximum CPU time, in seconds, for matching the patterns of one field."""
MAX_LAYER_BYTES = 1 << 16
"""Maximum memory in bytes for matching one pattern of `layers_pattern`."""
PLAIN = re.compile(r"[A-Za-z0-9_.-]+")
"""Matches patterns that are plain names. A dot in such a pattern still matches any character."""
MAX_BYTES = 8 << 20
"""Maximum memory, in bytes, of RE2's automaton for one set of patterns."""
_ANYTHING = r"[ -~]*"
"""Pattern that matches every name. If it doesn't match a name, RE2 has run out of memory."""
_LAYER_GROUP = "idx"


class TooCostly(Exception):
    """Matching takes too much time or memory. The message states the amount."""


def linear_matcher(
    patterns: Sequence[str], form: PatternForm
) -> Callable[[Sequence[str]], Mapping[str, Match]]:
    """Return a function that finds the first matching pattern of each name.

    The function holds megabytes of memory. It raises TooCostly if it takes too much time or memory.

    Raises:
        re.error, RecursionError, OverflowError: PEFT couldn't compile a pattern.
        NotLinear: RE2 can't express a pattern.
    """
    match = _layers_match(patterns) if form is PatternForm.LAYER else _set_match(patterns, form)

    def first_matches(names: Sequence[str]) -> dict[str, Match]:
        end_s = time.thread_time() + MAX_MATCH_CPU_S
        found = {}
        for name in names:
            if (first := match(name)) is not None:
                found[name] = first
            if time.thread_time() > end_s:
                raise TooCostly(f"it takes more than {MAX_MATCH_CPU_S} s to match")
        return found

    return first_matches


def _set_match(patterns: Sequence[str], form: PatternForm) -> Callable[[str], Match | None]:
    forms = [_form(pattern, form) for pattern in patterns]
    at_start = after_dot = _LinearSet(forms, is_full=form is not PatternForm.PART)
    if form is PatternForm.END and any(START in each for each in forms):
        after_dot = _LinearSet([each.replace(START, NOTHING) for each in forms], is_full=True)

    def match(name: str) -> Match | None:
        matching = at_start.matching(name)
        if form is PatternForm.END:
            for end in ends(name):
                matching += after_dot.matching(end)
        return Match(min(matching)) if matching else None

    return match


class _LinearSet:
    """Finds the patterns that match a name, in one pass over the name."""

    def __init__(self, forms: Sequence[str], *, is_full: bool) -> None:
        """Create a set of patterns in RE2's syntax.

        With `is_full`, patterns match whole names. Otherwise they match the start of a name.

        Raises:
            NotLinear: the patterns are too large.
        """
        options = re2.Options()
        options.max_mem = MAX_BYTES
        options.never_capture = True
        options.log_errors = False
        self._num_patterns = len(forms)
        self._set = (re2.Set.FullMatchSet if is_full else re2.Set.MatchSet)(options)
        try:
            for form in (*forms, _ANYTHING):
                self._set.Add(form)
            self._set.Compile()
        except re2.error:
            raise NotLinear("it repeats or lists too much") from None

    def matching(self, name: str) -> list[int]:
        """Return the indices of matching patterns, unsorted.

        Raises:
            TooCostly: matching needs more than MAX_BYTES of memory.
        """
        found: list[int] = self._set.Match(name) or []
        if self._num_patterns not in found:
            raise TooCostly(f"it takes more than {MAX_BYTES} bytes to match")
        found.remove(self._num_patterns)
        return found


def _form(pattern: str, form: PatternForm) -> str:
    if PLAIN.fullmatch(pattern):
        text = pattern.replace(".", "[ -~]")
        return rf"(?:[ -~]*\.)?{text}(?:\z|\.)" if form is PatternForm.PART else text
    parsed = _parsed(pattern, form)
    if form is not PatternForm.END:
        return linear_form(parsed, parsed.state)
    # The text that PEFT writes before the pattern costs most, since it can match at each dot.
    # Therefore the pattern alone is matched after each dot. The result is the same unless the
    # pattern asks for the start of the name.
    _, (_, (*_, key)), _ = parsed
    return linear_form(key, parsed.state)


def _parsed(pattern: str, form: PatternForm) -> Any:
    """Parse a pattern together with the text that PEFT writes around it.

    Raises:
        re.error: the pattern is invalid by itself, or together with that text.
    """
    parser.parse(pattern)
    return parser.parse(form.regex(pattern))


def ends(name: str) -> Iterator[str]:
    """Yield, for each dot in a name, the rest of the name after that dot."""
    return (name[index:] for index, char in enumerate(name, 1) if char == ".")


def _layers_match(patterns: Sequence[str]) -> Callable[[str], Match | None]:
    options = re2.Options()
    options.max_mem = MAX_LAYER_BYTES
    options.log_errors = False
    compiled = [_compiled(pattern, options) for pattern in patterns]

    def match(name: str) -> Match | None:
        for index, each in enumerate(compiled):
            if found := each.match(name):
                return Match(index, found[_LAYER_GROUP])
        return None

    return match


def _compiled(pattern: str, options: Any) -> Any:
    parsed = _parsed(pattern, PatternForm.LAYER)
    form = linear_form(parsed, parsed.state, capture=_LAYER_GROUP)
    try:
        return re2.compile(form, options)
    except re2.error:
        raise NotLinear("it repeats or lists too much") from None
