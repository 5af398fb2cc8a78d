"""Plots of the pool over minutes, an hour and a day, for GET /v1/pool/history."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from api.pool_state.rates import quantile, rounded
from shared.store.redis.connection import Redis, unix_ms
from shared.store.redis.keys import Keys
from shared.store.views.history import LONG_STEPS_MS, MAX_SAMPLES, HistoryView, Sample
from shared.store.views.incidents import Incident, IncidentsView

MAX_INCIDENTS = 200
_HOUR_MS, _DAY_MS = LONG_STEPS_MS


@dataclass(frozen=True, slots=True)
class Window:
    """A period that can be plotted."""

    step_s: float
    """Seconds between two points."""
    step_ms: int | None
    """Step of the history in Redis that contains the period; None for the history of minutes."""


WINDOWS: Mapping[str, Window] = {
    "5m": Window(1.0, None),
    "1h": Window(_HOUR_MS / 1000, _HOUR_MS),
    "24h": Window(_DAY_MS / 1000, _DAY_MS),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Plots:
    """Series of values, all equally long. A value is None where nothing was measured."""

    started_s: float
    """Unix time at which the step of the first point begins."""
    step_s: float
    series: Mapping[str, Sequence[float | None]]
    incidents: Sequence[Incident]
    """Incidents of the period, oldest first."""


class PlotReader:
    """Reads the plots of one pool."""

    def __init__(self, redis: Redis, keys: Keys) -> None:
        self._redis = redis
        self._history = HistoryView(redis, keys)
        self._incidents = IncidentsView(redis, keys)

    async def read(self, window: Window) -> Plots:
        """Return the plots of a period that ends now.

        Raises:
            RedisUnavailable: Redis can't be reached or can't serve.
        """
        samples = await self._history.newest(MAX_SAMPLES, step_ms=window.step_ms)
        now_s = unix_ms(await self._redis.time()) / 1000
        started_s = now_s - MAX_SAMPLES * window.step_s
        newest = await self._incidents.newest(MAX_INCIDENTS)
        return Plots(
            started_s=started_s,
            step_s=window.step_s,
            series=series_of(samples, started_s, window.step_s),
            incidents=[each for each in reversed(newest) if each.time_s >= started_s],
        )


def series_of(
    samples: Sequence[Sample], started_s: float, step_s: float
) -> dict[str, list[float | None]]:
    """Return the values of each series. Value i is for the step that begins after i steps."""
    series: dict[str, list[float | None]] = {name: [None] * MAX_SAMPLES for name in _VALUES}
    for before, after in _pairs(samples, 3 * step_s):
        index = int((after.time_ms / 1000 - started_s) / step_s)
        if 0 <= index < MAX_SAMPLES:
            for name, value in _VALUES.items():
                series[name][index] = value(before, after)
    return series


def _pairs(samples: Sequence[Sample], longest_s: float) -> Iterator[tuple[Sample, Sample]]:
    """Yield neighbouring samples at most `longest_s` apart between which no total was lost."""
    for before, after in pairwise(samples):
        is_near = 0 < after.time_ms - before.time_ms <= longest_s * 1000
        if is_near and after.tokens >= before.tokens and after.done >= before.done:
            yield before, after


def _rate(total: Callable[[Sample], int]) -> Callable[[Sample, Sample], float | None]:
    def rate(before: Sample, after: Sample) -> float:
        seconds = (after.time_ms - before.time_ms) / 1000
        return round(max(0, total(after) - total(before)) / seconds, 3)

    return rate


def _first_token_s(before: Sample, after: Sample) -> float | None:
    pairs = zip(before.first_tokens, after.first_tokens, strict=False)
    return rounded(quantile([max(0, new - old) for old, new in pairs], 0.5))


_VALUES: Mapping[str, Callable[[Sample, Sample], float | None]] = {
    "tokens_per_s": _rate(lambda sample: sample.tokens),
    "jobs_per_s": _rate(lambda sample: sample.done),
    "failed_per_s": _rate(lambda sample: sample.failed),
    "waiting": lambda _, after: after.waiting,
    "ttft_p50_s": _first_token_s,
}
