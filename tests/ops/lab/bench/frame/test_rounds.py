"""Rounds of variants, their summary, and the JSON file and plot that are written for it."""

import json
from pathlib import Path

import pytest

from ops.lab.bench.frame.finding import write_finding
from ops.lab.bench.frame.measurement_process import MeasurementFailed, run_module
from ops.lab.bench.frame.options import sizes_of
from ops.lab.bench.frame.rounds import QUICK, Measure, Sizes, measure_rounds, rounds_finding

SIZES = Sizes(rounds=3)


def recording(calls: list[str], speed: float) -> Measure:
    def measure(seed: str) -> dict[str, float]:
        calls.append(seed)
        return {"base, tokens/s": speed * (1 + int(seed[0]))}

    return measure


def test_variants_are_measured_in_an_order_that_alternates(
    capsys: pytest.CaptureFixture[str],
) -> None:
    calls: list[str] = []
    rounds = measure_rounds({"a": recording(calls, 10), "b": recording(calls, 20)}, 3)
    assert calls == ["0/a", "0/b", "1/b", "1/a", "2/a", "2/b"]
    assert [list(one) for one in rounds] == [["a", "b"]] * 3
    assert capsys.readouterr().out.splitlines()[0] == "round 1, a: base, tokens/s 10.0"


def test_a_ratio_is_of_one_round_and_not_of_medians() -> None:
    rounds = [{"a": {"ms": a}, "b": {"ms": b}} for a, b in ((90, 30), (80, 20), (100, 50))]
    (line,) = rounds_finding("x", rounds, SIZES, [("a", "b")]).says
    assert line == "ms: a 90.0, b 30.0; ratio 3.000, 2.000 to 4.000 in 3 rounds"


def test_rounds_without_a_variant_or_a_figure_are_left_out_of_its_ratios() -> None:
    rounds = [
        {"a": {"ms": 4.0, "s": 1.0}, "b": {"ms": 2.0}, "c": {"ms": 1.0}},
        {"a": {"ms": 6.0, "s": 3.0}, "b": {"ms": 2.0}},
    ]
    finding = rounds_finding("x", rounds, SIZES, [("a", "b"), ("a", "c")], ["a note"])
    assert finding.says == (
        "ms: a 5.00, b 2.00; ratio 2.500, 2.000 to 3.000 in 2 rounds",
        "ms: a 4.00, c 1.00; ratio 4.000, 4.000 to 4.000 in 1 rounds",
        "s: a 2.00",
        "a note",
    )
    assert finding.chart.series == {"ms: a / b": [(1, 2.0), (2, 3.0)], "ms: a / c": [(1, 4.0)]}


def test_a_variant_without_another_is_shown_alone() -> None:
    finding = rounds_finding("x", [{"now": {"us": 1234.5}}], SIZES, [("now", "before")])
    assert finding.says == ("us: now 1,234",)


def test_a_finding_is_written_with_its_machine_and_a_plot(tmp_path: Path) -> None:
    rounds = [{"a": {"ms": 4.0}, "b": {"ms": 2.0}}]
    finding = rounds_finding("x", rounds, SIZES, [("a", "b")])
    data, plot = write_finding(finding, "tiny", tmp_path / "results")
    written = json.loads(data.read_bytes())
    assert written["says"] == list(finding.says)
    assert written["figures"]["rounds"] == rounds
    assert written["figures"]["sizes"]["clients"] == 32
    assert written["machine"]["commit"] in data.name
    assert plot.name.endswith("-x.png")
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_options_change_the_sizes() -> None:
    assert sizes_of(SIZES, None, quick=False) == SIZES
    assert sizes_of(SIZES, 5, quick=False).rounds == 5
    assert sizes_of(SIZES, 5, quick=True).rounds == 5
    assert sizes_of(SIZES, None, quick=True) == QUICK


def test_a_failed_measurement_is_reported_with_its_last_output() -> None:
    with pytest.raises(MeasurementFailed, match=r"engine.process ended with 2"):
        run_module("engine.process", "--no-such-flag")
