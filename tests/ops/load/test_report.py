"""Reports of answers, and their output."""

import math
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from ops.load.answers import Answer
from ops.load.distributions import Closed
from ops.load.load import Load
from ops.load.plot import plot_load
from ops.load.report import Slo, load_lines, load_table, report

LOAD = Load(url="http://127.0.0.1/v1", models=("a",), arrivals=Closed(clients=1), requests=4)


def answer(sent_s: float, *text_s: float) -> Answer:
    return Answer(sent_s, list(text_s), end_s=text_s[-1], input_tokens=7, output_tokens=len(text_s))


QUICK = answer(0.0, 0.1, 0.2, 0.3)
LATE = answer(0.0, 1.0, 1.1, 1.2)
SLOW = answer(1.0, 1.1, 1.9, 3.0)
FAILED = Answer(0.5, [0.6], end_s=9.0, output_tokens=1, error="HTTP 503")
ALL = [QUICK, LATE, SLOW, FAILED]


def test_rates_count_full_answers_and_latencies_the_first_text_each_gap_and_the_end() -> None:
    found = report(LOAD, ALL)
    assert (found.answered, found.errors) == (3, ("HTTP 503",))
    assert (found.input_tokens, found.output_tokens, found.seconds) == (21, 9, 3.0)
    assert (found.tokens_per_s, found.requests_per_s) == (3.0, 1.0)
    assert found.ttft_s.p99 == 1.0
    assert found.itl_s.p99 == pytest.approx(1.1)
    assert found.e2e_s.p50 == pytest.approx(1.2)


@pytest.mark.parametrize(
    ("slo", "num_met"),
    [
        (Slo(ttft_ms=100), 2),
        (Slo(itl_ms=200), 2),
        (Slo(ttft_ms=500, itl_ms=500), 1),
        (Slo(ttft_ms=5000, itl_ms=5000), 3),
    ],
)
def test_goodput_counts_answers_that_meet_the_whole_slo(slo: Slo, num_met: int) -> None:
    answers = [QUICK, LATE, answer(1.0, 1.09, 1.9, 3.0), FAILED]
    assert report(LOAD, answers, slo).goodput_per_s == pytest.approx(num_met / 3.0)


def test_tokens_that_come_in_one_piece_share_its_time() -> None:
    packed = Answer(0.0, [0.1, 0.4], end_s=0.4, output_tokens=4)
    assert packed.mean_itl_s == pytest.approx(0.1)


def test_whole_answers_have_an_end_and_no_first_token_and_failed_ones_rates_of_zero() -> None:
    found = report(LOAD, [Answer(0.0, end_s=2.0, output_tokens=4)])
    assert (found.e2e_s.p50, found.tokens_per_s) == (2.0, 2.0)
    assert math.isnan(found.ttft_s.p50)
    assert math.isnan(found.itl_s.p50)
    found = report(LOAD, [FAILED], Slo(ttft_ms=1))
    assert (found.tokens_per_s, found.goodput_per_s) == (0.0, 0.0)


def test_the_terminal_shows_percentiles_and_goodput() -> None:
    found = report(LOAD, ALL, Slo(ttft_ms=500, itl_ms=500))
    out = StringIO()
    Console(file=out, width=80).print(load_table(found))
    assert "1,000.0" in out.getvalue()
    assert load_lines(found) == [
        "3 of 4 requests answered in 3.0 s: 1.00 requests/s",
        "3.0 output tokens/s; 21 tokens in, 9 out",
        "goodput 0.33 requests/s with TTFT <= 500 ms and ITL <= 500 ms",
    ]


@pytest.mark.parametrize("answers", [ALL, [FAILED], [Answer(0.0, end_s=2.0, output_tokens=4)]])
def test_the_plot_is_a_png_file(answers: list[Answer], tmp_path: Path) -> None:
    plot_load(report(LOAD, answers, Slo(ttft_ms=500)), answers, tmp_path / "load.png")
    assert (tmp_path / "load.png").read_bytes().startswith(b"\x89PNG")
