"""When the parts of an answer arrived, for the metrics."""

import time
from collections.abc import Iterable

from api.follow.follower import Step
from api.metrics.metrics import Metrics
from shared.protocol.events import Admitted


class Timing:
    """Clocks one answer, from the moment that this is made."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._start_s = time.monotonic()
        self._is_admitted = False
        self._last_s: dict[int, float] = {}
        """When each choice grew last."""

    def note(self, steps: Iterable[Step]) -> None:
        """Take in what has just arrived."""
        now = time.monotonic()
        for step in steps:
            if not isinstance(step, Admitted):
                self._note_tokens(step.choice, now)
            elif not self._is_admitted:  # a job that is moved is admitted again
                self._is_admitted = True
                self._metrics.admitted(now - self._start_s)

    def _note_tokens(self, choice: int, now: float) -> None:
        if not self._last_s:
            self._metrics.first_token(now - self._start_s)
        elif choice in self._last_s:
            self._metrics.token_gap(now - self._last_s[choice])
        self._last_s[choice] = now
