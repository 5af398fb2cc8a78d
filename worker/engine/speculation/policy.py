"""Decides how many draft tokens a step verifies. Policy only.

Each draft token adds a row to the step. It is worthwhile if its expected gain in tokens outweighs
the time of the row. The gain follows from the share of earlier draft tokens that were accepted. The
time follows from the measured durations of steps by their number of rows.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

MAX_ROWS = 16
"""Maximum number of rows of a step with drafts.

With so few rows, a step takes little longer than reading the model's weights."""
MAX_DRAFT = 8
"""Maximum number of draft tokens of one request in a step."""
MIN_GAIN = 1.02
"""Minimum expected tokens per millisecond with drafts, as a multiple of the rate without drafts."""
MAX_SKIPPED = 32
"""Maximum number of opportunities for a draft that one request skips in a row after rejections."""
MAX_AGE = 256
"""Number of steps after which a measured duration is forgotten."""
_LEAST_RATE = 0.3
"""Initial and minimum assumed probability that a token is accepted."""
_NEWEST_SHARE = 0.2
"""Weight of the newest observation in a moving average."""
_ROW_COST = 0.05
"""Cost of a further row, as a share of a step of one row, until it is measured."""


class Acceptance:
    """Estimates how likely a draft token is accepted, and backs off while none is accepted.

    A draft fails if its first token is rejected. From the second failure in a row on, each failure
    doubles the number of opportunities that are skipped before the next draft. The estimate has a
    lower bound, so that drafts are tried again.
    """

    def __init__(self) -> None:
        self.rate = _LEAST_RATE
        """Estimated probability that a draft token is accepted if those before it are accepted."""
        self._num_failures = 0
        self._num_to_skip = 0

    def may_draft(self) -> bool:
        """Return whether to draft now. Each call counts as one opportunity for a draft."""
        self._num_to_skip -= 1
        return self._num_to_skip < 0

    def record(self, num_drafted: int, num_accepted: int) -> None:
        """Record that a step has accepted the first `num_accepted` of `num_drafted` tokens."""
        for is_accepted in [True] * num_accepted + [False] * (num_accepted < num_drafted):
            self.rate += (is_accepted - self.rate) * _NEWEST_SHARE
        self.rate = max(self.rate, _LEAST_RATE)
        self._num_failures = 0 if num_accepted else self._num_failures + 1
        exponent = self._num_failures - 2
        self._num_to_skip = 0 if exponent < 0 else min(1 << exponent, MAX_SKIPPED)


@dataclass(slots=True)
class _Duration:
    ms: float
    """Moving average of the durations of steps with the same number of rows, in ms."""
    step: int
    """Sequence number of the step that last changed this average."""


class StepDurations:
    """Estimates the duration of a step of decodes by its number of rows."""

    def __init__(self) -> None:
        self._num_steps = 0
        self._known: dict[int, _Duration] = {}

    def observe(self, num_rows: int, ms: float) -> None:
        """Record that a step of `num_rows` rows took `ms` milliseconds."""
        self._num_steps += 1
        before = self._known.get(num_rows)
        mean = ms if before is None else before.ms + (ms - before.ms) * _NEWEST_SHARE
        self._known[num_rows] = _Duration(mean, self._num_steps)
        oldest = self._num_steps - MAX_AGE
        self._known = {rows: each for rows, each in self._known.items() if each.step >= oldest}

    def estimate(self, num_rows: int) -> float:
        """Return the estimated duration of a step of `num_rows` rows.

        The result is in ms. Until a step is observed, it is relative to a step of one row instead.
        Between observed numbers of rows, the duration is interpolated. Outside their range, each
        row adds the share `_ROW_COST` of the duration of a step of one row.
        """
        fewer = max((rows for rows in self._known if rows <= num_rows), default=None)
        more = min((rows for rows in self._known if rows >= num_rows), default=None)
        if fewer is None or more is None:
            nearest = more if fewer is None else fewer
            if nearest is None:
                return _assumed(num_rows)
            return self._known[nearest].ms * _assumed(num_rows) / _assumed(nearest)
        first, last = self._known[fewer].ms, self._known[more].ms
        return first + (last - first) * (num_rows - fewer) / max(1, more - fewer)


def _assumed(num_rows: int) -> float:
    """Return the assumed duration of a step, relative to a step of one row."""
    return 1 + _ROW_COST * (num_rows - 1)


def draft_lengths(
    proposals: Sequence[tuple[int, float]],
    durations: StepDurations,
    *,
    num_rows: int,
    max_rows: int,
) -> list[int]:
    """Return how many of each request's proposed tokens the next step verifies.

    The result maximises the expected tokens per millisecond. If drafts gain less than the factor
    MIN_GAIN, all lengths are 0. `proposals` has, for each request, the number of proposed tokens
    and the estimated probability that each is accepted. Without draft tokens, the step has
    `num_rows` rows. With them, it may have at most `max_rows` in total.
    """
    likelihoods = sorted(
        (
            (rate**position, index)
            for index, (length, rate) in enumerate(proposals)
            for position in range(1, length + 1)
        ),
        reverse=True,
    )[: max(0, max_rows - num_rows)]
    num_tokens, num_drafted = float(len(proposals)), 0
    best = MIN_GAIN * num_tokens / durations.estimate(num_rows)
    for number, (likelihood, _) in enumerate(likelihoods, 1):
        num_tokens += likelihood
        speed = num_tokens / durations.estimate(num_rows + number)
        if speed > best:
            best, num_drafted = speed, number
    lengths = Counter(index for _, index in likelihoods[:num_drafted])
    return [lengths[index] for index in range(len(proposals))]
