"""Computes rates from samples of the totals of the pool."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from shared.protocol.workers import FIRST_TOKEN_BOUNDS_S
from shared.store.views.history import Sample

RATE_S = 10.0
"""Averaging period of current rates, in seconds."""
PLOT_S = 5.0
"""Averaging period of each point of the plots. Workers report every two seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """The pool's throughput and times to the first token, averaged over a period."""

    tokens_per_s: float = 0.0
    requests_per_s: float = 0.0
    ttft_p50_s: float | None = None
    """Median time to the first token; None if no job got its first token in the period."""
    ttft_p95_s: float | None = None


def rates_at(samples: Sequence[Sample], index: int, period_s: float) -> Rates:
    """Return the rates over the `period_s` seconds before the sample at `index`.

    `samples` are sorted.
    """
    last = samples[index]
    first = last
    while index > 0 and last.time_ms - first.time_ms < period_s * 1000:
        index -= 1
        first = samples[index]
    seconds = (last.time_ms - first.time_ms) / 1000
    # After a gap or a loss of data, the totals don't describe the period.
    if not 0 < seconds < 2 * period_s or last.tokens < first.tokens or last.done < first.done:
        return Rates()
    counts = [max(0, b - a) for a, b in zip(first.first_tokens, last.first_tokens, strict=False)]
    return Rates(
        tokens_per_s=(last.tokens - first.tokens) / seconds,
        requests_per_s=(last.done - first.done) / seconds,
        ttft_p50_s=quantile(counts, 0.5),
        ttft_p95_s=quantile(counts, 0.95),
    )


def current_rates(samples: Sequence[Sample], now_s: float) -> Rates:
    """Return the rates over the last `RATE_S` seconds, or zeros if there is no recent sample."""
    if not samples or abs(now_s - samples[-1].time_ms / 1000) > RATE_S:
        return Rates()
    return rates_at(samples, len(samples) - 1, RATE_S)


def quantile(counts: Sequence[int], share: float) -> float | None:
    """Return a quantile of times that were counted in the buckets of `FIRST_TOKEN_BOUNDS_S`.

    The times in a bucket are assumed to be evenly spread. Times in the last bucket are assumed to
    equal its lower bound. The result is None if `counts` has no times.
    """
    wanted = share * sum(counts)
    if not wanted:
        return None
    lower = 0.0
    for count, upper in zip(counts, FIRST_TOKEN_BOUNDS_S, strict=False):
        if count and wanted <= count:
            return lower + (upper - lower) * wanted / count
        wanted -= count
        lower = upper
    return lower


Point = tuple[float, float, float | None, float | None, int, int]
"""Unix time, tokens per second, median and 95 % quantile of the time to the first token in seconds,
and numbers of waiting and running jobs."""


def points(samples: Sequence[Sample], indexes: Iterable[int]) -> list[Point]:
    """Return the points of the plots at the samples with these `indexes`."""
    plotted: list[Point] = []
    for index in indexes:
        sample, rates = samples[index], rates_at(samples, index, PLOT_S)
        plotted.append(
            (
                sample.time_ms / 1000,
                round(rates.tokens_per_s, 2),
                rounded(rates.ttft_p50_s),
                rounded(rates.ttft_p95_s),
                sample.waiting,
                sample.running,
            )
        )
    return plotted


def rounded(seconds: float | None) -> float | None:
    """Return a time to the first token, rounded for clients."""
    return None if seconds is None else round(seconds, 4)
