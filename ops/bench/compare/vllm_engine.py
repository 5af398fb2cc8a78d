"""Compares workers with the vLLM engine with `vllm serve` alone, in interleaved pairs."""

import asyncio
import statistics
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from transformers import AutoConfig

from ops.bench.load.arrivals import Closed
from ops.bench.load.lengths import Length
from ops.bench.load.load import Load
from ops.bench.load.report import run_load
from ops.bench.measurement_process import MeasurementFailed
from ops.bench.probes.finding import Chart, Finding
from ops.bench.random_adapters import MAX_RANK, make_adapters
from ops.bench.servers import BASE, VLLM_KV_CACHE_GIB, VLLM_MAX_MODEL_LEN, lorikeet, vllm
from worker.engine_vllm.adapters import slot_bytes
from worker.engine_vllm.skeleton import skeleton_modules

MIN_RATIO = 0.9
"""Target for Lorikeet's tokens per second, as a multiple of vLLM's alone."""
MIB = 1 << 20
WARM_UP_TOKENS = Length(8, 8)
START_TIMEOUT_S = 900.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """Sizes of the measurement."""

    pairs: int
    clients: int
    requests: int
    """Number of requests of each measurement."""
    words: int
    """Number of words of a prompt, and of tokens of an answer."""


FULL = Sizes(pairs=10, clients=32, requests=32, words=48)
QUICK = Sizes(pairs=1, clients=2, requests=4, words=8)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Output tokens per second of both servers under the same load, one after the other."""

    kind: str
    """base, or adapters for requests that take the adapters in turn."""
    lorikeet: float
    vllm: float

    @property
    def ratio(self) -> float:
        """Lorikeet's tokens per second as a multiple of vLLM's."""
        return self.lorikeet / self.vllm


def measure_vllm_engine(
    model: Path, venv: Path, sizes: Sizes, scratch: Path, report: Callable[[str], None]
) -> list[Pair]:
    """Run all pairs while both servers are started, and report each one.

    Raises:
        MeasurementFailed: a request failed.
        ServerFailed: a server didn't become ready.
    """
    adapters = make_adapters(model, scratch / "adapters")
    with ExitStack() as stack:
        folders = [scratch / name for name in ("lorikeet", "vllm")]
        for folder in folders:
            folder.mkdir()
        peer = stack.enter_context(vllm(venv, model, adapters, folders[1]))
        ours = stack.enter_context(
            lorikeet(
                model,
                adapters,
                folders[0],
                worker_flags(model, venv, len(adapters)),
                start_timeout_s=START_TIMEOUT_S,
            )
        )
        for url in (ours.url, peer.url):
            _speed(url, (BASE, *adapters), sizes, seed="warm-up", tokens=WARM_UP_TOKENS)
        return [
            _pair(kind, names, (ours.url, peer.url), number, sizes, report)
            for kind, names in (("base", (BASE,)), ("adapters", tuple(adapters)))
            for number in range(sizes.pairs)
        ]


def worker_flags(model: Path, venv: Path, num_adapters: int) -> list[str]:
    """Return the flags of a worker whose vLLM has the settings of `ops.bench.servers.vllm`."""
    linears = skeleton_modules(str(model), AutoConfig.from_pretrained(model)).linears
    slots = num_adapters * slot_bytes(linears, max_rank=MAX_RANK)
    return [
        *("--engine", "vllm", "--vllm-python", str(venv.absolute() / "bin" / "python")),
        *("--device", "cpu", "--max-model-len", VLLM_MAX_MODEL_LEN, "--no-prefix-cache"),
        *("--kv-cache-mb", str(int(VLLM_KV_CACHE_GIB) * 1024)),
        *("--max-lora-rank", str(MAX_RANK), "--adapter-memory-mb", str(-(-slots // MIB))),
        *("--vllm-args", "-O3"),
    ]


def vllm_engine_finding(pairs: Sequence[Pair], sizes: Sizes) -> Finding:
    """Return a finding with one line for each kind of request."""
    kinds = list(dict.fromkeys(pair.kind for pair in pairs))
    of_kind = {kind: [pair for pair in pairs if pair.kind == kind] for kind in kinds}
    return Finding(
        name="vllm-engine",
        figures={"sizes": sizes, "pairs": pairs},
        says=tuple(_line(kind, found, sizes) for kind, found in of_kind.items()),
        chart=Chart(
            x="pair",
            y="tokens per second",
            series=_series(of_kind),
        ),
    )


def _series(of_kind: Mapping[str, Sequence[Pair]]) -> dict[str, list[tuple[float, float]]]:
    series: dict[str, list[tuple[float, float]]] = {}
    for kind, found in of_kind.items():
        series[f"Lorikeet, {kind}"] = [(n + 1, pair.lorikeet) for n, pair in enumerate(found)]
        series[f"vllm serve, {kind}"] = [(n + 1, pair.vllm) for n, pair in enumerate(found)]
    return series


def _line(kind: str, pairs: Sequence[Pair], sizes: Sizes) -> str:
    ratios = [pair.ratio for pair in pairs]
    return (
        f"{kind}, {sizes.clients} clients: Lorikeet with --engine vllm "
        f"{statistics.median(pair.lorikeet for pair in pairs):.0f} tokens/s, vllm serve "
        f"{statistics.median(pair.vllm for pair in pairs):.0f}; ratio "
        f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}), "
        f"target {MIN_RATIO}"
    )


def _pair(
    kind: str,
    models: tuple[str, ...],
    urls: tuple[str, str],
    number: int,
    sizes: Sizes,
    report: Callable[[str], None],
) -> Pair:
    # The order alternates, so that a drift of the machine doesn't favour either server.
    order = urls if number % 2 == 0 else urls[::-1]
    seed = f"{kind}/{number}"
    tokens = Length(sizes.words, sizes.words)
    speeds = {url: _speed(url, models, sizes, seed=seed, tokens=tokens) for url in order}
    pair = Pair(kind=kind, lorikeet=speeds[urls[0]], vllm=speeds[urls[1]])
    report(f"{kind} {number + 1}: {pair.lorikeet:.1f} and {pair.vllm:.1f}, {pair.ratio:.2f}")
    return pair


def _speed(url: str, models: tuple[str, ...], sizes: Sizes, *, seed: str, tokens: Length) -> float:
    """Return the output tokens per second of a load."""
    load = Load(
        url=url,
        models=models,
        arrivals=Closed(clients=sizes.clients),
        requests=max(sizes.requests, len(models)),
        input_words=Length(sizes.words, sizes.words),
        output_tokens=tokens,
        seed=seed,
    )
    report = asyncio.run(run_load(load))
    if report.errors:
        raise MeasurementFailed(f"{len(report.errors)} requests failed: {report.errors[0]}")
    return report.tokens_per_s
