"""Summarises the measurements of batches."""

from collections.abc import Sequence
from statistics import median

from ops.bench.order_statistics import ratio_text
from ops.bench.probes.batches.rounds import Round, Sizes
from ops.bench.probes.finding import Chart, Finding


def batches_finding(found: Sequence[Round], sizes: Sizes, num_adapters: int) -> Finding:
    """Return a finding that compares batches with a closed loop."""
    ratios = [one.batch_tokens_per_s / one.loop_tokens_per_s for one in found]
    loop = median(one.loop_tokens_per_s for one in found)
    batch = median(one.batch_tokens_per_s for one in found)
    steps = [(one.beside_ttft_s - one.idle_ttft_s) / one.step_s for one in found]
    speeds = {
        f"closed loop of {sizes.clients} clients": [one.loop_tokens_per_s for one in found],
        "batch": [one.batch_tokens_per_s for one in found],
    }
    ttft = {
        "alone": [1000 * one.idle_ttft_s for one in found],
        "beside a batch": [1000 * one.beside_ttft_s for one in found],
        "alone, and three steps": [1000 * (one.idle_ttft_s + 3 * one.step_s) for one in found],
    }
    return Finding(
        name="batches",
        figures={"sizes": sizes, "rounds": found},
        says=(
            f"{num_adapters} adapters, {sizes.requests} requests: {loop:.1f} tokens/s with "
            f"{sizes.clients} clients, {batch:.1f} as a batch; {ratio_text(ratios)}",
            f"TTFT p95 of other requests: {1000 * median(o.idle_ttft_s for o in found):.0f} ms "
            f"alone, {1000 * median(o.beside_ttft_s for o in found):.0f} ms beside a batch",
            f"the difference is {median(steps):.2f} steps ({min(steps):.2f} to {max(steps):.2f}) "
            f"of {1000 * median(o.step_s for o in found):.0f} ms",
        ),
        chart=Chart(x="round", y="output tokens per second", series=_by_round(speeds)),
        further_charts=(Chart(x="round", y="TTFT p95 in ms", series=_by_round(ttft)),),
    )


def _by_round(series: dict[str, list[float]]) -> dict[str, list[tuple[float, float]]]:
    return {
        name: [(number + 1, value) for number, value in enumerate(values)]
        for name, values in series.items()
    }
