"""The probe of forced tokens and prompt lookup."""

from dataclasses import replace

import pytest

from ops.bench.probes.speculation.finding import measure_speculation, speculation_finding
from ops.bench.probes.speculation.process import Rates
from ops.demo.model import demo_model

RATES = Rates(
    workload="edit",
    streams=1,
    plain=[10.0] * 6,
    speculating=[18.0, 20.0, 19.0, 21.0, 22.0, 20.0],
    forced_share=0.1,
    accepted_share=0.4,
    acceptance=0.8,
    num_different=0,
)


def test_the_finding_has_the_ratio_of_the_pairs_and_the_shares() -> None:
    (line,) = speculation_finding([RATES]).says
    assert line == (
        "edit, 1 at a time: 10.0 tokens/s without, 20.0 with; ratio 2.000, 95 % interval 1.800 to "
        "2.200 excludes 1; 10% forced, 40% accepted (80% of the drafts), equal answers"
    )


def test_the_finding_counts_answers_that_differ() -> None:
    (line,) = speculation_finding([replace(RATES, num_different=3)]).says
    assert line.endswith("3 answers differ")


@pytest.mark.slow
def test_all_workloads_are_answered_by_both_engines() -> None:
    found = measure_speculation(demo_model(), [1, 2], pairs=1, prompts=1, max_tokens=6)
    assert [(rates.workload, rates.streams) for rates in found] == [
        (workload, streams)
        for workload in ("extract under its schema", "an edited text", "sql", "chat")
        for streams in (1, 2)
    ]
    assert all(rates.plain[0] > 0 < rates.speculating[0] for rates in found)
    assert found[0].forced_share > 0
