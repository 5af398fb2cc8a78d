"""What a load sends, by seed, and the reports of its answers."""

import math
import statistics
from collections import Counter
from io import StringIO
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from ops.load.answers import Answer
from ops.load.arrivals import Closed, Open, due_times_s
from ops.load.lengths import Length, parse_length
from ops.load.load import Load
from ops.load.output import load_lines, load_table
from ops.load.percentiles import percentile, percentiles
from ops.load.plot import plot_load
from ops.load.popularity import Popularity, pick, probabilities
from ops.load.prompts import WORDS, prompt
from ops.load.report import Slo, report
from shared.errors import SettingsError

rates = st.floats(0.01, 1000)
shapes = st.floats(0.2, 50)
counts = st.integers(1, 200)
exponents = st.floats(0, 4)


@given(rates, shapes, st.text(), st.integers(0, 50))
def test_arrivals_are_in_order_and_the_same_for_the_same_seed(
    rate: float, burstiness: float, seed: str, number: int
) -> None:
    arrivals = Open(rate=rate, burstiness=burstiness)
    times = due_times_s(arrivals, number, seed)
    assert len(times) == number
    assert times == sorted(times)
    assert all(time >= 0 for time in times)
    assert times == due_times_s(arrivals, number, seed)


@given(rates, shapes)
def test_a_faster_rate_is_the_same_pattern_in_less_time(rate: float, burstiness: float) -> None:
    slow = due_times_s(Open(rate=rate, burstiness=burstiness), 20, "s")
    fast = due_times_s(Open(rate=4 * rate, burstiness=burstiness), 20, "s")
    assert [4 * time for time in fast] == pytest.approx(slow)
    assert fast != due_times_s(Open(rate=4 * rate, burstiness=burstiness), 20, "t")


@pytest.mark.parametrize("burstiness", [0.25, 1.0, 4.0])
def test_gaps_have_the_mean_and_the_variation_of_their_gamma_distribution(
    burstiness: float,
) -> None:
    times = due_times_s(Open(rate=5.0, burstiness=burstiness), 20_000, "")
    gaps = [b - a for a, b in pairwise([0.0, *times])]
    mean = statistics.fmean(gaps)
    assert mean == pytest.approx(1 / 5, rel=0.05)
    assert statistics.stdev(gaps) / mean == pytest.approx(burstiness**-0.5, rel=0.05)
    if burstiness == 1:  # a Poisson process, whose gaps are over t with probability e^-t
        assert sum(5 * gap > 1 for gap in gaps) / 20_000 == pytest.approx(0.3679, rel=0.05)
        assert sum(5 * gap > 2 for gap in gaps) / 20_000 == pytest.approx(0.1353, rel=0.1)


@given(counts, exponents)
def test_zipf_follows_its_formula(num_models: int, s: float) -> None:
    shares = probabilities(num_models, s)
    assert sum(shares) == pytest.approx(1)
    assert all(p / shares[0] == pytest.approx(k**-s) for k, p in enumerate(shares, start=1))


@given(st.sampled_from(Popularity), counts, st.integers(0, 10**6), exponents, st.text())
def test_a_pick_is_a_model_and_the_same_for_the_same_seed(
    popularity: Popularity, num_models: int, number: int, s: float, seed: str
) -> None:
    picked = pick(popularity, num_models, number, zipf_s=s, seed=seed)
    assert 0 <= picked < num_models
    assert picked == pick(popularity, num_models, number, zipf_s=s, seed=seed)


@given(counts, st.integers(0, 10**6))
def test_distinct_gives_neighbours_distinct_models_and_identical_the_first(
    num_models: int, first: int
) -> None:
    numbers = range(first, first + num_models)
    distinct, identical = (
        {pick(popularity, num_models, number, zipf_s=1.0, seed="") for number in numbers}
        for popularity in (Popularity.DISTINCT, Popularity.IDENTICAL)
    )
    assert (len(distinct), identical) == (num_models, {0})


@pytest.mark.parametrize(
    ("popularity", "shares"),
    [
        (Popularity.UNIFORM, [0.25, 0.25, 0.25, 0.25]),
        (Popularity.ZIPF, [0.48, 0.24, 0.16, 0.12]),
    ],
)
def test_picks_have_the_frequencies_of_the_formula(
    popularity: Popularity, shares: list[float]
) -> None:
    picks = Counter(pick(popularity, 4, n, zipf_s=1.0, seed="x") for n in range(5000))
    assert [picks[k] / 5000 for k in range(4)] == pytest.approx(shares, abs=0.03)


@pytest.mark.parametrize(
    ("text", "length"),
    [("1", Length(1, 1)), ("128", Length(128, 128)), ("64-256", Length(64, 256))],
)
def test_a_length_is_one_number_or_a_range(text: str, length: Length) -> None:
    assert parse_length("--input", text) == length


@pytest.mark.parametrize("text", ["", "0", "-5", "9-3", "0-3", "1-2-3", "12a", "1.5", "a-b"])
def test_an_invalid_length_is_refused_with_flag_and_value(text: str) -> None:
    with pytest.raises(SettingsError, match=f"--input {text}"):
        parse_length("--input", text)


@given(st.integers(1, 99), st.integers(0, 99), st.text())
def test_a_sample_is_within_the_range_and_the_same_for_the_same_seed(
    low: int, width: int, seed: str
) -> None:
    length = Length(low, low + width)
    assert low <= length.sample(seed) <= low + width
    assert length.sample(seed) == length.sample(seed)


def test_every_length_of_a_range_is_sampled() -> None:
    assert {Length(3, 6).sample(str(n)) for n in range(100)} == {3, 4, 5, 6}


def test_a_prompt_has_the_number_of_words_and_depends_on_seed_and_index_alone() -> None:
    words = prompt("", 0, 128).split(" ")
    assert len(words) == 128
    assert set(words) <= set(WORDS)
    assert len(WORDS) == len(set(WORDS))
    assert prompt("1", 2, 20) == prompt("1", 2, 20)
    assert len({prompt(str(seed), index, 20) for seed in range(5) for index in range(5)}) == 25


@pytest.mark.parametrize(
    ("percent", "expected"), [(0, 1), (1, 1), (50, 50), (50.5, 51), (95, 95), (99, 99), (100, 100)]
)
def test_a_percentile_is_the_value_of_the_nearest_rank(percent: float, expected: int) -> None:
    assert percentile([float(n) for n in range(100, 0, -1)], percent) == expected


def test_percentiles_of_one_value_are_that_value_and_of_nothing_not_a_number() -> None:
    found = percentiles([3.0])
    assert (found.p50, found.p95, found.p99) == (3.0, 3.0, 3.0)
    assert math.isnan(percentiles([]).p99)


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
