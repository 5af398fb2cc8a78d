"""Decides whether a process has failed too often in the same way. Does no I/O."""

import json
from dataclasses import dataclass

MAX_EQUAL = 3
"""Number of equal failures in a row after which another start is pointless."""


@dataclass(slots=True)
class Failures:
    """Counts how many times in a row one child process has failed in the same way."""

    _latest: tuple[int, str] | None = None
    _number: int = 0

    def count(self, code: int, last_line: str) -> None:
        """Record that the child failed with exit status `code`, after the output `last_line`."""
        failure = code, _without_time(last_line)
        self._number = self._number + 1 if failure == self._latest else 1
        self._latest = failure

    def forget(self) -> None:
        """Forget all failures, because the child has worked for a while or was killed."""
        self._latest, self._number = None, 0

    @property
    def is_hopeless(self) -> bool:
        """Whether the latest `MAX_EQUAL` failures were equal, so that restarts won't help."""
        return self._number >= MAX_EQUAL


def _without_time(line: str) -> str:
    """Return a JSON log line without its time, and other lines unchanged."""
    try:
        fields = json.loads(line)
    except ValueError:
        return line
    if not isinstance(fields, dict):
        return line
    return json.dumps({name: value for name, value in fields.items() if name != "timestamp"})
