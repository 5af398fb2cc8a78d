"""Measures when the tokens of one answer arrive, for the metrics and for the answer itself."""

import time
from collections.abc import Iterable

from api.follow.updates import Update
from api.metrics.metrics import Metrics
from api.render.durations import Durations
from shared.protocol.events import Admitted


class StreamTiming:
    """Stopwatch for one answer. It starts when the object is created."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._start_s = time.monotonic()
        self._admitted_s: float | None = None
        """Seconds from the start until a worker admitted the job; None until then."""
        self.first_token_s: float | None = None
        """Seconds from the start to the first tokens; None until they arrive."""
        self._last_s: dict[int, float] = {}
        """For each choice, the monotonic time in seconds at which its latest tokens arrived."""

    @property
    def durations(self) -> Durations:
        """Times that the parts of the answer have taken until now."""
        start_s, first_s = self._start_s, self.first_token_s
        return Durations(
            total_s=time.monotonic() - start_s,
            load_s=self._admitted_s,
            prompt_s=first_s - self._admitted_s if first_s and self._admitted_s else None,
            output_s=max(self._last_s.values()) - start_s - first_s if first_s else None,
        )

    def record(self, updates: Iterable[Update]) -> None:
        """Record that `updates` have just arrived."""
        now = time.monotonic()
        for update in updates:
            if not isinstance(update, Admitted):
                self._record_tokens(update.choice, now)
            elif self._admitted_s is None:  # a job that moves to another worker is admitted again
                self._admitted_s = now - self._start_s
                self._metrics.queue_seconds.observe(self._admitted_s)

    def _record_tokens(self, choice: int, now: float) -> None:
        if not self._last_s:
            self.first_token_s = now - self._start_s
            self._metrics.first_token_seconds.observe(self.first_token_s)
        elif choice in self._last_s:
            self._metrics.token_gap_seconds.observe(now - self._last_s[choice])
        self._last_s[choice] = now
