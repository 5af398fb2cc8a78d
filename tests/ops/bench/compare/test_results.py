"""The summary of measured figures."""

import math
from dataclasses import replace

import pytest
from bench_results import ADAPTERS, BASE, THREE, WITH_VLLM, repeat, report, results

from ops.bench.compare.results import summarise


def test_figures_are_medians_with_their_spread() -> None:
    base, adapters = summarise(THREE)
    assert (base.tokens_per_s.low, base.tokens_per_s.median, base.tokens_per_s.high) == (
        100, 110, 120
    )  # fmt: skip
    assert adapters.tokens_per_s.median == 90
    assert adapters.peft is not None
    assert adapters.peft.tokens_per_s.median == 30


def test_a_ratio_is_of_one_round_and_not_of_medians() -> None:
    _, adapters = summarise(results(repeat(1, 90, 30), repeat(1, 80, 20), repeat(1, 100, 50)))
    assert adapters.peft is not None
    ratio = adapters.peft.ratio
    assert (ratio.low, ratio.median, ratio.high) == (2, 3, 4)


def test_the_base_model_is_not_compared_with_peft() -> None:
    base, _ = summarise(THREE)
    assert base.peft is None
    assert base.lora_tax is None


def test_vllm_is_compared_by_throughput_and_ttft() -> None:
    base, adapters = summarise(WITH_VLLM)
    assert base.vllm is not None
    assert adapters.vllm is not None
    assert (base.vllm.ratio.median, adapters.vllm.ratio.median) == (2, 8)
    assert adapters.vllm.ttft_ratio is not None
    assert adapters.vllm.ttft_ratio.median == 8


def test_without_vllm_rows_have_no_vllm() -> None:
    assert [row.vllm for row in summarise(THREE)] == [None, None]


def test_the_tax_is_of_one_round_and_not_of_medians() -> None:
    _, adapters = summarise(results(repeat(100, 90, 1), repeat(200, 100, 1), repeat(50, 40, 1)))
    assert adapters.lora_tax is not None
    assert adapters.lora_tax.median == pytest.approx(0.2)
    assert adapters.lora_tax.high == pytest.approx(0.5)


def test_a_load_without_answers_has_errors_and_no_ratio() -> None:
    dead = replace(report(1, errors=("no",) * 16), tokens_per_s=0.0)
    failed = replace(repeat(100, 90, 30), vllm=((BASE, dead), (ADAPTERS, dead)))
    base, _ = summarise(results(failed))
    assert base.vllm is not None
    assert math.isnan(base.vllm.ratio.median)
    assert base.num_errors == 16


def test_errors_of_all_rounds_are_counted() -> None:
    assert [row.num_errors for row in summarise(THREE)] == [0, 1]
