"""Probe: cost of serving more adapters than fit into memory, with Zipf-distributed requests."""

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx

from ops.bench.load.answers import Answer
from ops.bench.load.arrivals import Closed, Open
from ops.bench.load.lengths import Length
from ops.bench.load.load import Load, body_of
from ops.bench.load.percentiles import Percentiles, percentiles
from ops.bench.load.popularity import Popularity
from ops.bench.load.report import answers_of
from ops.bench.probes.finding import Chart, Finding
from ops.bench.server_processes import Serving
from ops.bench.servers import lorikeet

MIB = 1 << 20
CLIENTS = 32
"""Number of clients in the closed loop that measures capacity."""
BEAT_S = 3.0
"""Maximum number of seconds between two reports of a worker's totals."""
_TOTALS = ("adapter_loads", "adapter_reads", "adapter_evictions", "adapter_load_seconds")


@dataclass(frozen=True, slots=True, kw_only=True)
class ChurnShape:
    """Parameters of the churn probe."""

    registered: int
    """Number of registered adapters."""
    device: int
    """Number of adapters that fit into device memory."""
    host: int
    """Number of adapters that fit into host memory."""
    requests: int
    share: float
    """Request rate, as a share of the server's capacity when all adapters are resident."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Churn:
    """Results of the churn probe."""

    shape: ChurnShape
    adapter_bytes: int
    """Size of one adapter's file."""
    asked_for: int
    """Number of distinct adapters that the requests use."""
    capacity_per_s: float
    """Throughput of a closed loop when all adapters are resident, in requests per second."""
    resident_ttft_s: Percentiles
    """Time to first token when all adapters are resident."""
    tiered_ttft_s: Percentiles
    """Time to first token when memory is limited and adapters are evicted and reloaded."""
    totals: Mapping[str, float]
    """Maps each adapter metric of the worker to its increase during the run with limited memory."""


def measure_churn(
    model: Path, folders: Sequence[Path], scratch: Path, shape: ChurnShape
) -> tuple[Churn, list[Answer], list[Answer]]:
    """Send the same load twice: with all of its adapters resident, then with limited memory.

    If there are fewer `folders` than registered adapters, several adapters are read from the same
    folder. Each adapter still takes its own memory.

    Returns:
        The results, the answers with all adapters resident, and the answers with limited memory.

    Raises:
        MeasurementFailed: a request failed.
    """
    named = {f"a{n}": folders[n % len(folders)] for n in range(shape.registered)}
    num_bytes = (folders[0] / "adapter_model.safetensors").stat().st_size
    load = _load(tuple(named), shape.requests)
    asked_for = _asked_for(load)
    with _served(model, {name: named[name] for name in asked_for}, scratch,
                 device_mb=_mib(len(asked_for), num_bytes), host_mb=0) as serving:  # fmt: skip
        capacity = _capacity(replace(load, url=serving.url, models=asked_for))
        load = replace(load, arrivals=Open(rate=shape.share * capacity))
        resident = answers_of(replace(load, url=serving.url))
    with _served(model, named, scratch, device_mb=_mib(shape.device, num_bytes),
                 host_mb=_mib(shape.host, num_bytes)) as serving:  # fmt: skip
        _warm_up(replace(load, url=serving.url))
        tiered, totals = _send_and_count(replace(load, url=serving.url))
    churn = Churn(
        shape=shape,
        adapter_bytes=num_bytes,
        asked_for=len(asked_for),
        capacity_per_s=capacity,
        resident_ttft_s=percentiles(_ttfts(resident)),
        tiered_ttft_s=percentiles(_ttfts(tiered)),
        totals=totals,
    )
    return churn, resident, tiered


def churn_finding(churn: Churn, resident: Sequence[Answer], tiered: Sequence[Answer]) -> Finding:
    """Return a finding that compares the two runs of `measure_churn`.

    `resident` holds the answers of the run with all adapters resident, and `tiered` holds the
    answers of the run with limited memory. All answers must be complete.
    """
    shape, ours, other = churn.shape, churn.tiered_ttft_s, churn.resident_ttft_s
    says = (
        f"{shape.registered} adapters of {churn.adapter_bytes / 1e6:.1f} MB, memory for "
        f"{shape.device} on the device and {shape.host} in the host: TTFT p99 "
        f"{1000 * ours.p99:.0f} ms at {shape.share:.0%} of capacity, {ours.p99 / other.p99:.2f} x "
        f"the {1000 * other.p99:.0f} ms with all resident (p50 {1000 * ours.p50:.0f} and "
        f"{1000 * other.p50:.0f} ms)",
        f"{shape.requests} requests for {churn.asked_for} adapters: "
        f"{churn.totals['adapter_loads']:.0f} loads, {churn.totals['adapter_reads']:.0f} of them "
        f"from files",
    )
    series = {"tiers": _sorted_ms(_ttfts(tiered)), "all resident": _sorted_ms(_ttfts(resident))}
    chart = Chart(x="share of requests", y="time to first token within, ms", series=series)
    figures = {
        "churn": churn,
        "tiered_ttft_s": _ttfts(tiered),
        "resident_ttft_s": _ttfts(resident),
    }
    return Finding(name="churn", figures=figures, says=says, chart=chart)


def _load(models: tuple[str, ...], requests: int) -> Load:
    return Load(
        url="",
        models=models,
        popularity=Popularity.ZIPF,
        arrivals=Closed(clients=CLIENTS),
        requests=requests,
        output_tokens=Length(16, 16),
        seed="churn",
    )


def _asked_for(load: Load) -> tuple[str, ...]:
    """Return the models that at least one request names, in descending order of popularity."""
    named = {body_of(load, number)["model"] for number in range(load.requests)}
    return tuple(name for name in load.models if name in named)


@contextmanager
def _served(
    model: Path, adapters: Mapping[str, Path], scratch: Path, *, device_mb: int, host_mb: int
) -> Iterator[Serving]:
    flags = ("--adapter-memory-mb", str(device_mb), "--adapter-host-mb", str(host_mb))
    with (
        TemporaryDirectory(dir=scratch) as logs,
        lorikeet(model, adapters, Path(logs), flags) as serving,
    ):
        yield serving


def _mib(number: int, num_bytes: int) -> int:
    """Return the size in MiB, rounded up, of `number` adapters of `num_bytes` bytes each."""
    return -(-number * num_bytes // MIB)


def _warm_up(load: Load) -> None:
    closed = Closed(clients=CLIENTS)
    answers_of(replace(load, arrivals=closed, requests=2 * CLIENTS, seed="churn/warm-up"))


def _capacity(load: Load) -> float:
    """Return the throughput of a closed loop in requests per second."""
    _warm_up(load)
    answers = answers_of(replace(load, seed="churn/capacity"))
    start, end = min(a.sent_s for a in answers), max(a.end_s for a in answers)
    return len(answers) / (end - start)


def _send_and_count(load: Load) -> tuple[list[Answer], dict[str, float]]:
    """Send the load.

    Returns two values: the answers, and a mapping from each worker total's name to its increase.
    """
    time.sleep(BEAT_S)
    before = _totals(load.url)
    answers = answers_of(load)
    time.sleep(BEAT_S)
    return answers, {name: value - before[name] for name, value in _totals(load.url).items()}


def _totals(url: str) -> dict[str, float]:
    """Return the worker's totals by name, read from the front end's metrics."""
    text = httpx.get(f"{url.removesuffix('/v1')}/metrics", timeout=10).text
    return {
        name: sum(
            float(value)
            for value in re.findall(rf"^lorikeet_worker_{name}_total{{[^}}]*}} (\S+)$", text, re.M)
        )
        for name in _TOTALS
    }


def _ttfts(answers: Sequence[Answer]) -> list[float]:
    return [answer.text_s[0] - answer.sent_s for answer in answers]


def _sorted_ms(seconds: Sequence[float]) -> list[tuple[float, float]]:
    return [((n + 1) / len(seconds), 1000 * value) for n, value in enumerate(sorted(seconds))]
