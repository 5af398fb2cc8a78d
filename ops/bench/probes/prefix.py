"""Probe: effect of the prefix cache on requests that use one adapter and share a prefix."""

from collections.abc import Sequence

from ops.bench.load.answers import Answer
from ops.bench.load.arrivals import Closed
from ops.bench.load.lengths import Length
from ops.bench.load.load import Load
from ops.bench.load.percentiles import percentiles
from ops.bench.probes.finding import Chart, Finding

CLIENTS = 8


def shared_prefix(url: str, model: str, requests: int, shared_words: int) -> Load:
    """Return a load of `requests` prompts that begin with the same `shared_words` words."""
    return Load(
        url=url,
        models=(model,),
        arrivals=Closed(clients=CLIENTS),
        requests=requests,
        shared_words=shared_words,
        input_words=Length(32, 32),
        output_tokens=Length(16, 16),
        seed="prefix",
    )


def prefix_finding(cached: Sequence[Answer], uncached: Sequence[Answer], words: int) -> Finding:
    """Return a finding that compares requests with and without the prefix cache.

    All answers must be complete.
    """
    with_cache, without = _ttfts(cached), _ttfts(uncached)
    found = {"cached_s": percentiles(with_cache), "uncached_s": percentiles(without)}
    ours, other = found["cached_s"].p50, found["uncached_s"].p50
    says = (
        f"{len(cached)} requests of one adapter that share {words} words: TTFT p50 "
        f"{1000 * ours:.0f} ms with the prefix cache, {1000 * other:.0f} ms without, "
        f"{other / ours:.2f} x",
    )
    series = {"prefix cache": _sorted_ms(with_cache), "without": _sorted_ms(without)}
    chart = Chart(x="share of requests", y="time to first token within, ms", series=series)
    figures = {**found, "cached_ttft_s": with_cache, "uncached_ttft_s": without}
    return Finding(name="prefix", figures=figures, says=says, chart=chart)


def _ttfts(answers: Sequence[Answer]) -> list[float]:
    return [answer.text_s[0] - answer.sent_s for answer in answers]


def _sorted_ms(seconds: Sequence[float]) -> list[tuple[float, float]]:
    return [((n + 1) / len(seconds), 1000 * value) for n, value in enumerate(sorted(seconds))]
