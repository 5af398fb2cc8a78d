"""Regular expressions that are matched in linear time, whatever they are."""

from collections.abc import Sequence

import re2

from worker.lora.patterns.linear_form import NotLinear

MAX_BYTES = 8 << 20
"""Memory in bytes that the automaton of one set may take."""
_ANYTHING = r"[ -~]*"
"""Pattern that matches every name. RE2 reports no match at all if its memory runs out."""


class TooCostly(Exception):
    """Matching takes too much time or memory. The message says how much."""


class LinearSet:
    """Finds those of several patterns that match a name, in one pass over the name."""

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
        """Return the indices of the patterns that match, in no order.

        Raises:
            TooCostly: the automaton needs more than MAX_BYTES.
        """
        found: list[int] = self._set.Match(name) or []
        if self._num_patterns not in found:
            raise TooCostly(f"it takes more than {MAX_BYTES} bytes to match")
        found.remove(self._num_patterns)
        return found
