"""Summaries of the figures of the tier probes."""

import pytest

from ops.bench.load.answers import Answer
from ops.bench.load.percentiles import percentiles
from ops.bench.probes.churn import Churn, ChurnShape, churn_finding
from ops.bench.probes.tier_process import LoadingSteps, Turnover, steps_ms
from ops.bench.probes.tiers import Budgets, loading_finding, turnover_finding

MIB = 1 << 20


def test_steps_during_a_load_are_multiples_of_the_usual_median() -> None:
    steps = LoadingSteps(
        adapter_bytes=98_000_000,
        load_s=[1.0, 2.0, 1.5],
        usual_ms=[20.0, 22.0, 18.0],
        loading_ms=[20.0, 30.0, 24.0],
    )
    assert loading_finding(steps).says == (
        "steps while an adapter of 98 MB loads: median 24.0 ms, 1.20 x the usual 20.0 ms; at most "
        "30 ms, 1.50 x (without: 1.10 x)",
        "a load takes 1.50 s while they decode",
    )


def test_steps_during_a_load_are_all_that_overlap_it() -> None:
    ends = [0.0, 0.02, 0.04, 0.07, 0.09, 0.11]
    assert steps_ms(ends, 0.03, 0.08) == pytest.approx([20, 30, 20])


def test_growth_is_a_multiple_of_both_budgets_together() -> None:
    samples = [
        Turnover(loads=1, rss_bytes=50 * MIB, device_bytes=10 * MIB, host_bytes=12 * MIB),
        Turnover(loads=9, rss_bytes=66 * MIB, device_bytes=19 * MIB, host_bytes=40 * MIB),
    ]
    assert turnover_finding(samples, Budgets(device_mb=20, host_mb=40)).says == (
        "9 adapters in turn: at most 19.0 of 20 MiB on the device and 40.0 of 40 MiB in the host",
        "the process grew by at most 66 MiB, 1.100 x both together",
    )


def test_tiers_are_compared_with_all_resident_at_p99() -> None:
    resident, tiered = ([Answer(1.0, text_s=[1.0 + s])] for s in (0.2, 0.3))
    churn = Churn(
        shape=ChurnShape(registered=1000, device=16, host=64, requests=1, share=0.6),
        adapter_bytes=9_800_000,
        asked_for=1,
        capacity_per_s=5.0,
        resident_ttft_s=percentiles([0.2]),
        tiered_ttft_s=percentiles([0.3]),
        totals={"adapter_loads": 7, "adapter_reads": 3},
    )
    assert churn_finding(churn, resident, tiered).says == (
        "1000 adapters of 9.8 MB, memory for 16 on the device and 64 in the host: TTFT p99 300 ms "
        "at 60% of capacity, 1.50 x the 200 ms with all resident (p50 300 and 200 ms)",
        "1 requests for 1 adapters: 7 loads, 3 of them from files",
    )
