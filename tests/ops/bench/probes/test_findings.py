"""Summaries of probes' figures, and the JSON file and plot that are written for them."""

import json
from pathlib import Path

import pytest

from ops.bench.compare.floor import Floor
from ops.bench.load.answers import Answer
from ops.bench.measurement_process import MeasurementFailed, run_module
from ops.bench.options import read_numbers
from ops.bench.probes.engine_process import Context, Step
from ops.bench.probes.finding import Finding, write_finding
from ops.bench.probes.interference import Disturbance, interference_finding
from ops.bench.probes.memory import MemorySample, memory_finding
from ops.bench.probes.prefix import prefix_finding
from ops.bench.probes.steps import contexts_finding, lora_finding, steps_finding
from shared.errors import SettingsError

STEP = Step(batch=8, base_ms=20.0, adapters_ms=24.0, lora_ms=4.0, lora_bytes=30_000_000)
MIB = 1 << 20


def test_steps_are_multiples_of_the_floor() -> None:
    finding = steps_finding([STEP], [Floor(batch=8, ms=10.0, tokens_per_s=800.0)])
    assert finding.says == ("C = 8: base 20.0 ms (2.00 x the floor), adapters 24.0 ms (2.40 x)",)


def test_lora_is_a_multiple_of_the_time_to_read_its_bytes() -> None:
    (line,) = lora_finding([STEP], bandwidth=10e9).says
    assert "4.00 ms of a step for 30 MB, 1.33 x" in line


def test_a_longer_context_is_explained_by_its_bytes() -> None:
    contexts = [
        Context(tokens=n, prefill_ms_per_token=0.5, step_ms=ms, kv_bytes=n * 20_000)
        for n, ms in [(1000, 30.0), (3000, 36.0)]
    ]
    assert contexts_finding(contexts, bandwidth=10e9).says == (
        "1000 tokens: a decode step 30.0 ms, of which its KV bytes explain 30.0 ms; "
        "prefill 0.50 ms a token",
        "3000 tokens: a decode step 36.0 ms, of which its KV bytes explain 34.0 ms; "
        "prefill 0.50 ms a token",
    )


def test_interference_compares_gaps_during_the_prompt_with_the_median_before() -> None:
    rounds = [
        Disturbance(ttft_s=2.0, before_s=(0.04, 0.05, 0.06), during_s=((0.1, 0.05), (0.3, 0.15))),
        Disturbance(ttft_s=3.0, before_s=(0.05,), during_s=((0.2, 0.1),)),
    ]
    assert interference_finding(rounds).says == (
        "ITL p99 of running streams while a long prompt arrives: 150 ms, 3.00 x their median of "
        "50 ms",
        "TTFT of the long prompt: 2.50 s",
    )


def test_the_prefix_cache_is_a_ratio_of_medians() -> None:
    def answers(*ttfts: float) -> list[Answer]:
        return [Answer(1.0, [1.0 + ttft]) for ttft in ttfts]

    (line,) = prefix_finding(answers(0.2, 0.1, 0.3), answers(0.9, 1.0, 0.8), 800).says
    assert "share 800 words: TTFT p50 200 ms with the prefix cache, 900 ms without, 4.50 x" in line


def test_memory_is_reported_for_each_process() -> None:
    samples = [
        MemorySample(answered=n, rss_bytes={"api": 100 * MIB, "worker": (900 + n) * MIB})
        for n in (0, 50, 100)
    ]
    assert memory_finding(samples).says == (
        "api: 100.0 MiB, and after 100 more requests 100.0 MiB",
        "worker: 900.0 MiB, and after 100 more requests 1000.0 MiB",
    )


@pytest.mark.parametrize(
    "finding",
    [
        lora_finding([STEP], bandwidth=10e9),
        interference_finding([Disturbance(ttft_s=1, before_s=(0.1,), during_s=((0.1, 0.1),))]),
    ],
    ids=lambda finding: finding.name,
)
def test_a_finding_is_written_with_its_machine_and_a_plot(finding: Finding, tmp_path: Path) -> None:
    data, plot = write_finding(finding, "tiny", tmp_path / "results")
    written = json.loads(data.read_bytes())
    assert written["says"] == list(finding.says)
    assert written["machine"]["commit"] in data.name
    assert finding.name in plot.name
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_numbers_are_read_from_a_comma_separated_list() -> None:
    assert read_numbers("--clients", "1,8,32") == [1, 8, 32]


@pytest.mark.parametrize("text", ["", "0", "1,", "1;2", "-1", "x"])
def test_invalid_lists_of_numbers_are_refused_with_the_flag(text: str) -> None:
    with pytest.raises(SettingsError, match="--clients"):
        read_numbers("--clients", text)


def test_a_failed_measurement_is_reported_with_its_last_output() -> None:
    with pytest.raises(MeasurementFailed, match="floor ended with 2"):
        run_module("compare.floor", "--no-such-flag")
