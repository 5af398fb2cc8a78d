"""Rounds of variants, their summary and files, and the load of streams."""

import asyncio
import json
import math
import statistics
from pathlib import Path

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from queue_support import eventually

from ops.lab.bench.frame.finding import write_finding
from ops.lab.bench.frame.measurement_process import MeasurementFailed, run_module
from ops.lab.bench.frame.rounds import (
    QUICK,
    Measure,
    Sizes,
    measure_rounds,
    median_interval,
    ratio_text,
    rounds_finding,
)
from ops.lab.bench.frame.run import sizes_of
from ops.lab.bench.streams.received_stream import ReceivedStream
from ops.lab.bench.streams.stream_load import StreamLoad

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


def test_a_ratio_is_the_median_of_those_of_the_rounds_that_have_both_figures() -> None:
    rounds = [
        {"a": {"ms": 90.0, "s": 1.0}, "b": {"ms": 30.0}, "c": {"ms": 1.0}},
        {"a": {"ms": 80.0, "s": 3.0}, "b": {"ms": 20.0}},
        {"a": {"ms": 1000.0}, "b": {"ms": 500.0}},
    ]
    finding = rounds_finding("x", rounds, SIZES, [("a", "b"), ("a", "c")], ["a note"])
    assert finding.says == (
        "ms: a 90.0, b 30.0; ratio 3.000, 2.000 to 4.000 in 3 rounds",
        "ms: a 90.0, c 1.00; ratio 90.000, 90.000 to 90.000 in 1 rounds",
        "s: a 2.00",
        "a note",
    )
    assert finding.chart.series["ms: a / c"] == [(1, 90.0)]


@given(st.lists(st.floats(0.1, 10.0), min_size=6, max_size=40))
def test_the_interval_holds_the_median(values: list[float]) -> None:
    low, high = median_interval(values)
    assert min(values) <= low <= statistics.median(values) <= high <= max(values)


def test_the_text_of_six_ratios_says_whether_their_interval_includes_1() -> None:
    assert median_interval([1.0] * 5) == (-math.inf, math.inf)
    assert ratio_text([0.9, 0.95, 1.0, 1.0, 1.05, 1.1]) == (
        "ratio 1.000, 95 % interval 0.900 to 1.100 includes 1"
    )
    assert ratio_text([1.5] * 6) == "ratio 1.500, 95 % interval 1.500 to 1.500 excludes 1"


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
    assert sizes_of(SIZES, 5, quick=True).rounds == 5
    assert sizes_of(SIZES, None, quick=True) == QUICK


def test_a_failed_measurement_is_reported_with_its_last_output() -> None:
    with pytest.raises(MeasurementFailed, match=r"engine.process ended with 2"):
        run_module("engine.process", "--no-such-flag")


def event(text: str) -> bytes:
    return b"id: 1\ndata: " + orjson.dumps({"choices": [{"text": text}]}) + b"\n\n"


def test_each_token_of_a_chunk_has_its_arrival_time() -> None:
    counted: list[int] = []
    received = ReceivedStream(on_tokens=lambda _, num_new: counted.append(num_new))
    received.begin(200, "job")
    received.receive(b": keep-alive\n\n")
    received.receive(event("00000000") + event("1111111122222222"))
    received.receive(event("") + b"data: [DONE]\n\n")
    assert (counted, len(received.token_s), received.error) == ([3], 3, None)
    assert received.first_token_s >= 0


@pytest.mark.parametrize(
    ("status", "piece", "error"),
    [
        (429, b"full", "HTTP 429: full"),
        (200, b'data: {"error": {"code": "internal"}}\n\n', "{'code': 'internal'}"),
    ],
)
def test_refusals_and_errors_are_kept(status: int, piece: bytes, error: str) -> None:
    received = ReceivedStream()
    received.begin(status, "job")
    received.receive(piece)
    assert received.error == error


async def send_one_token_less(body: bytes, received: ReceivedStream) -> None:
    received.begin(200, "job")
    await asyncio.sleep(0)
    received.receive(event("0" * 8 * (orjson.loads(body)["max_tokens"] - 1)))


async def test_an_incomplete_answer_is_an_error() -> None:
    load = StreamLoad(send_one_token_less, ["a"], 4)
    load.start(1)
    await eventually(lambda: len(load.totals.errors) > 3)  # the first job may be shorter
    await load.drain()
    assert load.totals.jobs == 0
    assert load.totals.errors[-1] == "4 tokens requested, 3 received"
