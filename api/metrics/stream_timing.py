"""Measures, for the metrics, when the tokens of one answer arrive."""

import time
from collections.abc import Iterable

from api.follow.follow_state import Update
from api.metrics.metrics import Metrics
from shared.protocol.events import Admitted


class StreamTiming:
    """Stopwatch for one answer. It starts when the object is created."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._start_s = time.monotonic()
        self._is_admitted = False
        self.first_token_s: float | None = None
        """Seconds to the first tokens; None until they arrive."""
        self._last_s: dict[int, float] = {}
        """Monotonic time in seconds of the latest tokens of each choice."""

    def record(self, updates: Iterable[Update]) -> None:
        """Record that `updates` have just arrived."""
        now = time.monotonic()
        for update in updates:
            if not isinstance(update, Admitted):
                self._record_tokens(update.choice, now)
            elif not self._is_admitted:  # a job that moves to another worker is admitted again
                self._is_admitted = True
                self._metrics.queue_seconds.observe(now - self._start_s)

    def _record_tokens(self, choice: int, now: float) -> None:
        if not self._last_s:
            self.first_token_s = now - self._start_s
            self._metrics.first_token_seconds.observe(self.first_token_s)
        elif choice in self._last_s:
            self._metrics.token_gap_seconds.observe(now - self._last_s[choice])
        self._last_s[choice] = now
