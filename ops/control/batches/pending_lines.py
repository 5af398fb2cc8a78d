"""The requests of a batch that haven't been sent, grouped by model. Does no I/O."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from ops.control.batches.lines import Line

MAX_WAIT_S = 30.0
"""Maximum seconds between two attempts to send requests for a model that isn't available."""


@dataclass(slots=True)
class _Model:
    lines: deque[Line] = field(default_factory=deque)
    is_free_at: float = 0.0
    wait_s: float = 0.0


class PendingLines:
    """A batch's unsent requests, grouped by model. A model whose request failed waits a while."""

    def __init__(self, lines: Sequence[Line]) -> None:
        self._models: dict[str, _Model] = {}
        for line in lines:
            self._models.setdefault(line.model, _Model()).lines.append(line)
        self._all_free_at = 0.0

    def __bool__(self) -> bool:
        return any(model.lines for model in self._models.values())

    def pop(self, now: float) -> Line | None:
        """Remove and return the next request of the first model that needn't wait.

        Return None if no request may be sent now.
        """
        if now < self._all_free_at:
            return None
        for model in self._models.values():
            if model.lines and model.is_free_at <= now:
                return model.lines.popleft()
        return None

    def put_back(self, line: Line, now: float, wait_s: float, *, of_all: bool) -> None:
        """Put a request back. Its model then waits `wait_s` seconds; with `of_all`, all models do.

        Until a request of the model succeeds, each of its waits is at least twice as long as the
        wait before, up to `MAX_WAIT_S`.
        """
        model = self._models[line.model]
        model.lines.appendleft(line)
        if of_all:
            self._all_free_at = max(self._all_free_at, now + wait_s)
        elif now >= model.is_free_at:
            model.wait_s = min(MAX_WAIT_S, max(wait_s, 2 * model.wait_s))
            model.is_free_at = now + model.wait_s

    def succeeded(self, model: str) -> None:
        """Forget how long a model has waited, because one of its requests was answered."""
        self._models[model].wait_s = 0.0

    def wait_s(self, now: float) -> float:
        """Return the seconds until the next request may be sent."""
        free = [model.is_free_at for model in self._models.values() if model.lines]
        return max(self._all_free_at - now, min(free, default=now) - now, 0.0)

    def take_all(self) -> list[Line]:
        """Remove and return all requests."""
        lines = [line for model in self._models.values() for line in model.lines]
        for model in self._models.values():
            model.lines.clear()
        return lines
