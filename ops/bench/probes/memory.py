"""Probe: memory of the server's processes as the number of answered requests grows."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import psutil

from ops.bench.load.arrivals import Closed
from ops.bench.load.lengths import Length
from ops.bench.load.load import Load
from ops.bench.load.report import answers_of
from ops.bench.probes.finding import Chart, Finding

CLIENTS = 32
NUM_SAMPLES = 10
MIB = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class MemorySample:
    """Memory of the server's processes after `answered` requests."""

    answered: int
    rss_bytes: dict[str, int]
    """Resident set size by process name."""


def measure_memory(
    url: str,
    models: Sequence[str],
    pids: Mapping[str, int],
    requests: int,
    on_done: Callable[[], None] = lambda: None,
) -> list[MemorySample]:
    """Send `requests` requests for 8 tokens each, and sample the processes' memory at intervals.

    Before the first sample, additional requests fill the caches. Their number is a tenth of
    `requests`, and they are not counted.

    Raises:
        MeasurementFailed: a request failed.
    """
    portion = max(requests // NUM_SAMPLES, 1)
    samples = []
    for number in range(NUM_SAMPLES + 1):
        load = Load(
            url=url,
            models=tuple(models),
            arrivals=Closed(clients=CLIENTS),
            requests=portion,
            input_words=Length(16, 16),
            output_tokens=Length(8, 8),
            seed=f"memory/{number}",
        )
        answers_of(load, on_done)
        rss = {name: psutil.Process(pid).memory_info().rss for name, pid in pids.items()}
        samples.append(MemorySample(answered=number * portion, rss_bytes=rss))
    return samples


def memory_finding(samples: Sequence[MemorySample]) -> Finding:
    """Return a finding with each process's first and last sample, and a plot of all samples."""
    first, last = samples[0], samples[-1]
    says = tuple(
        f"{name}: {before / MIB:.1f} MiB, and after {last.answered:,} more requests "
        f"{last.rss_bytes[name] / MIB:.1f} MiB"
        for name, before in first.rss_bytes.items()
    )
    series = {
        name: [(sample.answered, sample.rss_bytes[name] / MIB) for sample in samples]
        for name in first.rss_bytes
    }
    chart = Chart(x="requests answered", y="resident memory, MiB", series=series)
    return Finding(name="memory", figures={"samples": samples}, says=says, chart=chart)
