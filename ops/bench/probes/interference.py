"""Probe: time between tokens of running streams while a long prompt is computed."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from statistics import median

import httpx

from ops.bench.load.answers import Answer, ask, client
from ops.bench.load.arrivals import Closed
from ops.bench.load.lengths import Length
from ops.bench.load.load import Load, body_of
from ops.bench.load.percentiles import percentile
from ops.bench.measurement_process import MeasurementFailed
from ops.bench.probes.finding import Chart, Finding

SETTLED_PIECES = 16
"""Number of pieces of text that each stream must have before the long prompt is sent."""
POLL_S = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class Disturbance:
    """Effect of one long prompt on running streams."""

    ttft_s: float
    """Time to first token of the long prompt."""
    before_s: tuple[float, ...]
    """Times between tokens of the running streams before the long prompt was sent."""
    during_s: tuple[tuple[float, float], ...]
    """For each gap between tokens that overlaps the prefill: when the gap ended, and its length.

    Both values are in seconds. The end is relative to the time at which the long prompt was sent.
    """


def streams_of(url: str, models: Sequence[str], number: int, seed: str) -> Load:
    """Return a load of `number` concurrent streams that outlast the prefill of a long prompt."""
    return Load(
        url=url,
        models=tuple(models),
        arrivals=Closed(clients=number),
        requests=number,
        output_tokens=Length(256, 256),
        seed=seed,
    )


async def disturb(streams: Load, prompt_words: int) -> Disturbance:
    """Start the streams, send one prompt of `prompt_words` words, and wait for all answers.

    Raises:
        MeasurementFailed: a request failed, or a stream ended before the long prompt was computed.
    """
    long_load = replace(streams, input_words=Length(prompt_words, prompt_words),
                        output_tokens=Length(1, 1), seed=f"{streams.seed}/long")  # fmt: skip
    answers = [Answer(time.perf_counter()) for _ in range(streams.requests)]
    async with client(streams.url) as http, asyncio.TaskGroup() as tasks:
        for number, answer in enumerate(answers):
            tasks.create_task(ask(http, streams.url, body_of(streams, number), answer))
        await _until_settled(answers)
        long = await _send(http, long_load)
        is_outlasted = all(answer.output_tokens is None for answer in answers)
    errors = [answer.error for answer in (*answers, long) if answer.error]
    if errors or not is_outlasted:
        raise MeasurementFailed(errors[0] if errors else "streams ended before the long prompt")
    return _disturbance(answers, long)


def interference_finding(found: Sequence[Disturbance]) -> Finding:
    """Return a finding that summarises the disturbances of all rounds."""
    usual = 1000 * median(gap for one in found for gap in one.before_s)
    during = [(end, gap) for one in found for end, gap in one.during_s]
    p99 = 1000 * percentile([gap for _, gap in during], 99)
    says = (
        f"ITL p99 of running streams while a long prompt arrives: {p99:.0f} ms, "
        f"{p99 / usual:.2f} x their median of {usual:.0f} ms",
        f"TTFT of the long prompt: {median(one.ttft_s for one in found):.2f} s",
    )
    first, last = min(end for end, _ in during), max(end for end, _ in during)
    series = {
        "gaps between tokens": [(end, 1000 * gap) for end, gap in during],
        "their median before": [(first, usual), (last, usual)],
    }
    chart = Chart(x="s since the long prompt was sent", y="ms", series=series, joined=False)
    return Finding(name="interference", figures={"rounds": found}, says=says, chart=chart)


async def _until_settled(answers: Sequence[Answer]) -> None:
    # Polling avoids an event in each answer, which would slow down every other probe.
    while any(len(a.text_s) < SETTLED_PIECES and a.error is None for a in answers):  # noqa: ASYNC110
        await asyncio.sleep(POLL_S)


async def _send(http: httpx.AsyncClient, load: Load) -> Answer:
    answer = Answer(time.perf_counter())
    await ask(http, load.url, body_of(load, 0), answer)
    return answer


def _disturbance(answers: Sequence[Answer], long: Answer) -> Disturbance:
    gaps = [gap for answer in answers for gap in pairwise(answer.text_s)]
    return Disturbance(
        ttft_s=long.text_s[0] - long.sent_s,
        before_s=tuple(b - a for a, b in gaps if b <= long.sent_s),
        during_s=tuple(
            (b - long.sent_s, b - a) for a, b in gaps if b > long.sent_s and a < long.text_s[0]
        ),
    )
