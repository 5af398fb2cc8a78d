"""Regular expressions of adapters, matched against names of modules as PEFT matches them.

PEFT uses Python's `re`, which takes exponential time for some patterns and holds the interpreter
meanwhile. Here RE2 matches them in linear time. Patterns that RE2 can't express are allowed only in
adapters that the operator named. `re` matches these patterns in a child process with a time limit.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Generic, TypeVar

from shared.errors import AdapterNotServed, AdapterRejected
from worker.lora.patterns.child_process import match_in_child
from worker.lora.patterns.linear_form import NotLinear
from worker.lora.patterns.linear_patterns import PLAIN, TooCostly, linear_matcher
from worker.lora.patterns.pattern_form import Match, PatternForm

MAX_PATTERNS = 4096
"""Maximum number of patterns in one field. Some tools write one for each module."""
MAX_LAYER_PATTERNS = 16
"""Maximum number of patterns in `layers_pattern`. Each pattern is matched separately."""
MAX_PATTERN_CHARS = 4096
"""Maximum length of one pattern."""
MAX_REGEX_CHARS = 16_384
"""Maximum total number of characters of a field's patterns. Plain names aren't counted."""
MAX_SHOWN_CHARS = 80
"""Maximum length of a part of the configuration in an error message."""
T = TypeVar("T")


class NamePatterns:
    """The patterns of one field of an adapter's configuration."""

    def __init__(
        self, field: str, patterns: Iterable[str], form: PatternForm, *, may_be_slow: bool
    ) -> None:
        """Check the patterns of `field`.

        With `may_be_slow`, patterns that RE2 can't express are allowed.

        Raises:
            AdapterRejected: a pattern isn't a regular expression, or isn't allowed.
        """
        self._field = field
        self._patterns = tuple(patterns)
        self._form = form
        self._check_sizes()
        self._is_linear = self._check_patterns(may_be_slow)

    def first_matches(self, names: Sequence[str]) -> Mapping[str, Match]:
        """Return the first match of each name that a pattern matches, by name.

        Raises:
            AdapterRejected: matching takes too much time or memory.
        """
        if not self._patterns:
            return {}
        if not all(name.isascii() and name.isprintable() for name in names):
            raise self._refusal("the base model has modules whose names aren't ASCII")
        try:
            if self._is_linear:
                return linear_matcher(self._patterns, self._form)(names)
            return self._match_in_child(names)
        except TooCostly as error:
            raise self._refusal(f"{error}; write a simpler one") from None

    def _check_patterns(self, may_be_slow: bool) -> bool:
        """Check that PEFT could compile the patterns. Return whether they match in linear time."""
        try:
            try:
                linear_matcher(self._patterns, self._form)
            except NotLinear as error:
                if not may_be_slow:
                    reason = (
                        f"a pattern can't be matched in linear time, because {error}; write it "
                        "otherwise, list the modules, or name the adapter in a worker's --adapters"
                    )
                    raise AdapterNotServed(str(self._refusal(reason))) from None
                for pattern in self._patterns:
                    re.compile(self._form.regex(pattern))
                return False
        except (re.error, RecursionError, OverflowError) as error:
            raise self._refusal(f"not a regular expression: {error}") from None
        return True

    def _match_in_child(self, names: Sequence[str]) -> Mapping[str, Match]:
        regexes = [self._form.regex(pattern) for pattern in self._patterns]
        found = match_in_child(regexes, names, is_full=self._form is PatternForm.NAME)
        if found is None:
            raise TooCostly("it takes too much time or memory to match")
        return found

    def _check_sizes(self) -> None:
        most = MAX_LAYER_PATTERNS if self._form is PatternForm.LAYER else MAX_PATTERNS
        if len(self._patterns) > most:
            raise self._refusal(f"it has more than {most} patterns")
        if any(len(pattern) > MAX_PATTERN_CHARS for pattern in self._patterns):
            raise self._refusal(f"a pattern has more than {MAX_PATTERN_CHARS} characters")
        if sum(len(each) for each in self._patterns if not PLAIN.fullmatch(each)) > MAX_REGEX_CHARS:
            raise self._refusal(f"its patterns have more than {MAX_REGEX_CHARS} characters")

    def _refusal(self, reason: str) -> AdapterRejected:
        shown = shorten(", ".join(map(repr, self._patterns[:2])))
        return AdapterRejected(f"{self._field}={shown} isn't supported: {reason}")


class PatternValues(Generic[T]):
    """PEFT's `rank_pattern` or `alpha_pattern`, which map patterns of module names to values.

    A module gets the value of the first pattern that matches its name.
    """

    def __init__(self, field: str, values: Mapping[str, T], *, may_be_slow: bool) -> None:
        """Check the patterns in `field`, as `NamePatterns` does."""
        self._values = values
        self._patterns = NamePatterns(field, values, PatternForm.END, may_be_slow=may_be_slow)
        self._in_order = tuple(values.values())
        self._by_module: dict[str, T | None] = {}

    def resolve(self, modules: Sequence[str]) -> None:
        """Find and store the values of all `modules`. Saves time in later calls of `get`.

        Raises:
            AdapterRejected: matching takes too much time or memory.
        """
        matches = self._patterns.first_matches(modules)
        for module in modules:
            match = matches.get(module)
            # PEFT also accepts a key that equals the name, even if it doesn't match as a regex.
            value = self._values.get(module) if match is None else self._in_order[match.pattern]
            self._by_module[module] = value

    def get(self, module: str, default: T) -> T:
        """Return the value for a module, or `default` if no pattern matches its name."""
        if module not in self._by_module:
            self.resolve([module])
        value = self._by_module[module]
        return default if value is None else value


def shorten(text: str) -> str:
    """Return `text`, shortened for an error message."""
    return text if len(text) <= MAX_SHOWN_CHARS else text[: MAX_SHOWN_CHARS - 3] + "..."
