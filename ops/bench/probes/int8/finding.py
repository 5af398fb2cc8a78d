"""Summarises the rounds of both forms of the weights and of llama.cpp."""

import statistics
from collections.abc import Callable, Iterator, Sequence

from ops.bench.order_statistics import ratio_text
from ops.bench.probes.finding import Chart, Finding
from ops.bench.probes.int8.engines import Engines
from ops.bench.probes.int8.forms import BFLOAT16, FORMS, INT8
from ops.bench.probes.int8.loads import Sizes
from ops.bench.probes.int8.rounds import Round, Speeds

MIB = 1 << 20


def int8_finding(found: Sequence[Round], sizes: Sizes, num_adapters: int) -> Finding:
    """Return a finding with one line for each comparison of int8 with another."""
    both = f"{num_adapters} adapters, {sizes.clients} clients"
    alone, mixed = [one.alone for one in found], [one.mixed for one in found]
    return Finding(
        name="int8",
        figures={"sizes": sizes, "rounds": found},
        says=(
            *_speed_lines("base, 1 client", alone),
            *_speed_lines(both, mixed),
            *_engine_lines([one.engines for one in found]),
            *_memory_lines(found),
        ),
        chart=_chart("base, 1 client", alone),
        further_charts=(_chart(both, mixed),),
    )


def level_finding(found: Sequence[Engines], level: str) -> Finding:
    """Return a finding with one line for each duration, with the kernels of a level."""
    return Finding(
        name=f"int8-{level}",
        figures={"level": level, "rounds": found},
        says=tuple(_engine_lines(found)),
        chart=Chart(
            x="round",
            y=f"duration with {BFLOAT16} / with {INT8}, {level} kernels",
            series={
                name: [(number + 1, ratio) for number, ratio in enumerate(_speed_ups(found, name))]
                for name in found[0][INT8].ms
            },
        ),
    )


def _speed_lines(load: str, speeds: Sequence[Speeds]) -> Iterator[str]:
    """Compare int8 with each other server, by the rounds that measured both."""
    for other in dict.fromkeys(name for one in speeds for name in one if name != INT8):
        pairs = [(one[INT8], one[other]) for one in speeds if other in one]
        yield _line(f"{load}: ", other, pairs, "tokens/s", [a / b for a, b in pairs])


def _engine_lines(found: Sequence[Engines]) -> Iterator[str]:
    """Compare durations of int8 with those of bfloat16. A ratio is a speed-up."""
    for name in found[0][INT8].ms:
        pairs = [(one[INT8].ms[name], one[BFLOAT16].ms[name]) for one in found]
        yield _line(f"{name}: ", BFLOAT16, pairs, "ms", _speed_ups(found, name))


def _speed_ups(found: Sequence[Engines], name: str) -> list[float]:
    return [one[BFLOAT16].ms[name] / one[INT8].ms[name] for one in found]


def _line(
    head: str,
    other: str,
    pairs: Sequence[tuple[float, float]],
    unit: str,
    ratios: Sequence[float],
) -> str:
    ours, theirs = (statistics.median(values) for values in zip(*pairs, strict=True))
    return f"{head}{INT8} {ours:.1f} {unit}, {other} {theirs:.1f}; {ratio_text(ratios)}"


def _memory_lines(found: Sequence[Round]) -> Iterator[str]:
    kinds: dict[str, Callable[[Round, str], int]] = {
        "weights": lambda one, form: one.engines[form].weight_bytes,
        "resident memory of the engine's process": lambda one, form: one.engines[form].rss_bytes,
        "resident memory of the worker after its loads": (
            lambda one, form: one.worker_rss_bytes[form]
        ),
    }
    for name, of in kinds.items():
        mib = {form: statistics.median(of(one, form) for one in found) / MIB for form in FORMS}
        yield f"{name}: " + ", ".join(f"{form} {size:.0f} MiB" for form, size in mib.items())


def _chart(load: str, speeds: Sequence[Speeds]) -> Chart:
    names = dict.fromkeys(name for one in speeds for name in one)
    series = {
        name: [(n + 1, one[name]) for n, one in enumerate(speeds) if name in one] for name in names
    }
    return Chart(x="round", y=f"output tokens per second, {load}", series=series)
