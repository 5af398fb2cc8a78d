"""Summarises the rounds of all forms of the weights and of llama.cpp."""

import statistics
from collections.abc import Callable, Iterator, Sequence

from ops.bench.order_statistics import ratio_text
from ops.bench.probes.finding import Chart, Finding
from ops.bench.probes.int8.forms import BFLOAT16, INT4, INT8
from ops.bench.probes.int8.loads import Sizes
from ops.bench.probes.int8.rounds import Round, Speeds

MIB = 1 << 20


def int8_finding(found: Sequence[Round], sizes: Sizes, num_adapters: int) -> Finding:
    """Return a finding with one line for each comparison of a quantised form with another."""
    both = f"{num_adapters} adapters, {sizes.clients} clients"
    alone, mixed = [one.alone for one in found], [one.mixed for one in found]
    return Finding(
        name="int8",
        figures={"sizes": sizes, "rounds": found},
        says=(
            *_speed_lines("base, 1 client", alone),
            *_speed_lines(both, mixed),
            *_engine_lines(found),
            *_memory_lines(found),
        ),
        chart=_chart("base, 1 client", alone),
        further_charts=(_chart(both, mixed),),
    )


def _speed_lines(load: str, speeds: Sequence[Speeds]) -> Iterator[str]:
    """Compare each quantised form with each other server, by the rounds that measured both."""
    names = list(dict.fromkeys(name for one in speeds for name in one))
    for form in (INT8, INT4):
        # The line of int4 compares it with int8.
        others = [name for name in names if name not in {form, INT4}]
        for other in others if form in names else ():
            pairs = [(one[form], one[other]) for one in speeds if other in one]
            yield _line(f"{load}: ", form, other, pairs, "tokens/s", [a / b for a, b in pairs])


def _engine_lines(found: Sequence[Round]) -> Iterator[str]:
    """Compare durations of each quantised form with those of bfloat16. A ratio is a speed-up."""
    for form in (form for form in found[0].engines if form != BFLOAT16):
        for name in found[0].engines[form].ms:
            pairs = [(one.engines[form].ms[name], one.engines[BFLOAT16].ms[name]) for one in found]
            yield _line(f"{name}: ", form, BFLOAT16, pairs, "ms", [b / a for a, b in pairs])


def _line(
    head: str,
    form: str,
    other: str,
    pairs: Sequence[tuple[float, float]],
    unit: str,
    ratios: Sequence[float],
) -> str:
    ours, theirs = (statistics.median(values) for values in zip(*pairs, strict=True))
    return f"{head}{form} {ours:.1f} {unit}, {other} {theirs:.1f}; {ratio_text(ratios)}"


def _memory_lines(found: Sequence[Round]) -> Iterator[str]:
    kinds: dict[str, Callable[[Round, str], int]] = {
        "weights": lambda one, form: one.engines[form].weight_bytes,
        "resident memory of the engine's process": lambda one, form: one.engines[form].rss_bytes,
        "resident memory of the worker after its loads": (
            lambda one, form: one.worker_rss_bytes[form]
        ),
    }
    for name, of in kinds.items():
        mib = {
            form: statistics.median(of(one, form) for one in found) / MIB
            for form in (BFLOAT16, INT8, INT4)
            if form in found[0].engines
        }
        yield f"{name}: " + ", ".join(f"{form} {size:.0f} MiB" for form, size in mib.items())


def _chart(load: str, speeds: Sequence[Speeds]) -> Chart:
    names = dict.fromkeys(name for one in speeds for name in one)
    series = {
        name: [(n + 1, one[name]) for n, one in enumerate(speeds) if name in one] for name in names
    }
    return Chart(x="round", y=f"output tokens per second, {load}", series=series)
