"""What the load generator sends, by seed, to a server that its model's name selects; reports."""

import asyncio
import json
import math
import statistics
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from io import StringIO
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from ops.load.answers import Answer
from ops.load.distributions import (
    Closed,
    Length,
    Open,
    Popularity,
    due_times_s,
    parse_length,
    pick,
    probabilities,
)
from ops.load.load import Load, OnDone, body_of, send_load
from ops.load.plot import plot_load
from ops.load.prompts import WORDS, prompt
from ops.load.report import LoadReport, Slo, load_lines, load_table, percentile, percentiles
from ops.load.report import report as report_of
from shared.errors import SettingsError

SEPARATORS = "\u2028 \u0085 \x0c"
"""Characters at which Python's splitlines ends a line and SSE doesn't."""


@dataclass
class StandIn:
    """A server that records requests and the highest number in flight."""

    barrier: asyncio.Barrier
    """`patient` models answer when this many requests are in flight."""
    url: str = ""
    bodies: list[dict[str, Any]] = field(default_factory=list)
    in_flight: int = 0
    most_in_flight: int = 0
    heads: list[bytes] = field(default_factory=list)

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
        body = json.loads(await reader.readexactly(length))
        self.heads.append(head)
        self.bodies.append(body)
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        if body["model"] == "patient":
            await self.barrier.wait()
        await self._answer(body, writer)
        self.in_flight -= 1
        writer.close()
        await writer.wait_closed()

    async def _answer(self, body: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        if body["model"] == "refuses":
            writer.write(b"HTTP/1.1 429 Too Many Requests\r\nconnection: close\r\n\r\nfull")
            return
        writer.write(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n")
        if not body["stream"]:
            usage = {"prompt_tokens": 3, "completion_tokens": body["max_tokens"]}
            writer.write(json.dumps({"choices": [{"text": "all"}], "usage": usage}).encode())
            return
        writer.write(b": hello\n\n")
        if body["model"] == "breaks":
            send(writer, {"error": {"message": "the worker is gone"}})
            return
        tokens = body["max_tokens"] - (body["model"] == "short")
        for _ in range(tokens):
            send(writer, {"choices": [{"index": 0, "text": SEPARATORS}]})
            await writer.drain()
        send(writer, {"choices": [], "usage": {"completion_tokens": tokens}})
        writer.write(b"data: [DONE]\n\n")


def send(writer: asyncio.StreamWriter, chunk: dict[str, Any]) -> None:
    writer.write(b"data: " + json.dumps(chunk, ensure_ascii=False).encode() + b"\n\n")


@pytest.fixture
async def server() -> AsyncIterator[StandIn]:
    stand_in = StandIn(asyncio.Barrier(3))
    listening = await asyncio.start_server(stand_in.handle, "127.0.0.1", 0)
    async with listening:
        stand_in.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/v1"
        yield stand_in


def load(server: StandIn, *models: str, clients: int = 3, requests: int = 9) -> Load:
    return Load(
        url=server.url,
        models=models,
        arrivals=Closed(clients=clients),
        requests=requests,
        output_tokens=Length(5, 5),
    )


async def run_load(wanted: Load, on_done: OnDone = lambda: None) -> LoadReport:
    return report_of(wanted, await send_load(wanted, on_done))


async def test_every_request_is_sent_and_answered_once_and_its_times_add_up(
    server: StandIn,
) -> None:
    report = await run_load(load(server, "good"))
    assert len(server.bodies) == report.answered == 9
    assert (report.output_tokens, report.errors) == (45, ())
    assert 0 < report.ttft_s.p50 <= report.ttft_s.p99 <= report.seconds
    assert 0 <= report.itl_s.p50 <= report.itl_s.p95 <= report.itl_s.p99
    assert report.tokens_per_s == report.output_tokens / report.seconds


async def test_models_are_taken_in_turn(server: StandIn) -> None:
    await run_load(load(server, "a", "b", "c", clients=1))
    assert [body["model"] for body in server.bodies] == ["a", "b", "c"] * 3


async def test_each_client_has_exactly_one_request_in_flight(server: StandIn) -> None:
    await run_load(load(server, "patient", clients=3, requests=30))
    assert server.most_in_flight == 3


async def test_requests_ask_for_an_exact_number_of_greedy_tokens(server: StandIn) -> None:
    await send_load(load(server, "good", requests=1), api_key="secret")
    assert b"authorization: bearer secret" in server.heads[0].lower()
    assert server.bodies == [
        {
            "model": "good",
            "prompt": prompt("", 0, 128),
            "max_tokens": 5,
            "temperature": 0,
            "ignore_eos": True,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
    ]


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        ("refuses", "HTTP 429: full"),
        ("breaks", "the worker is gone"),
        ("short", "5 tokens requested, 4 received"),
    ],
)
async def test_a_failed_request_is_counted_and_its_tokens_are_not(
    server: StandIn, model: str, reason: str
) -> None:
    calls: list[None] = []
    asked = load(server, "good", model, clients=1, requests=4)
    report = await run_load(asked, lambda: calls.append(None))
    assert (len(report.errors), len(calls)) == (2, 4)
    assert all(reason in error for error in report.errors)
    assert (report.answered, report.output_tokens) == (2, 10)


async def test_a_server_that_is_not_there_is_an_error_of_each_request() -> None:
    nowhere = load(StandIn(asyncio.Barrier(1), "http://127.0.0.1:1/v1"), "good", requests=4)
    report = await run_load(nowhere)
    assert len(report.errors) == 4
    assert report.tokens_per_s == 0


async def test_an_open_loop_sends_while_requests_are_unanswered(server: StandIn) -> None:
    # In a closed loop of fewer than 3 clients the barrier would never open.
    open_loop = replace(load(server, "patient", requests=3), arrivals=Open(rate=1000.0))
    report = await run_load(open_loop)
    assert (report.answered, server.most_in_flight) == (3, 3)


async def test_an_open_loop_keeps_to_its_times(server: StandIn) -> None:
    open_loop = replace(load(server, "good", requests=20), arrivals=Open(rate=100.0))
    answers = await send_load(open_loop)
    sent = [answer.sent_s - answers[0].sent_s for answer in answers]
    due = due_times_s(Open(rate=100.0), 20, "")
    assert sent == pytest.approx([time - due[0] for time in due])


async def test_whole_answers_are_timed_to_their_end(server: StandIn) -> None:
    report = await run_load(replace(load(server, "good"), stream=False))
    assert (report.answered, report.output_tokens, report.input_tokens) == (9, 45, 27)
    assert 0 < report.e2e_s.p50 <= report.seconds


def test_each_request_has_a_length_a_model_and_words_beside_the_shared_ones(
    server: StandIn,
) -> None:
    ranges = {"input_words": Length(2, 9), "output_tokens": Length(1, 4), "shared_words": 20}
    zipf = {"popularity": Popularity.ZIPF, "zipf_s": 3.0}
    asked = replace(load(server, "a", "b"), **ranges, **zipf)
    bodies = [body_of(asked, number) for number in range(50)]
    prompts = [body["prompt"].split() for body in bodies]
    assert {len(words) for words in prompts} == set(range(22, 30))
    assert {body["max_tokens"] for body in bodies} == {1, 2, 3, 4}
    assert len({tuple(words[:20]) for words in prompts}) == 1
    assert len({tuple(words[20:]) for words in prompts}) == 50
    assert [body["model"] for body in bodies].count("a") > 30


def test_a_server_gets_the_further_fields_of_the_requests_model(server: StandIn) -> None:
    adapter = [{"id": 0, "scale": 1.0}]
    further = replace(load(server, "a0", "base"), fields={"a0": {"lora": adapter}})
    assert [body_of(further, number).get("lora") for number in range(2)] == [adapter, None]


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
    found = report_of(LOAD, ALL)
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
    assert report_of(LOAD, answers, slo).goodput_per_s == pytest.approx(num_met / 3.0)


def test_tokens_that_come_in_one_piece_share_its_time() -> None:
    packed = Answer(0.0, [0.1, 0.4], end_s=0.4, output_tokens=4)
    assert packed.mean_itl_s == pytest.approx(0.1)


def test_whole_answers_have_an_end_and_no_first_token_and_failed_ones_rates_of_zero() -> None:
    found = report_of(LOAD, [Answer(0.0, end_s=2.0, output_tokens=4)])
    assert (found.e2e_s.p50, found.tokens_per_s) == (2.0, 2.0)
    assert math.isnan(found.ttft_s.p50)
    assert math.isnan(found.itl_s.p50)
    found = report_of(LOAD, [FAILED], Slo(ttft_ms=1))
    assert (found.tokens_per_s, found.goodput_per_s) == (0.0, 0.0)


def test_the_terminal_shows_percentiles_and_goodput() -> None:
    found = report_of(LOAD, ALL, Slo(ttft_ms=500, itl_ms=500))
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
    plot_load(report_of(LOAD, answers, Slo(ttft_ms=500)), answers, tmp_path / "load.png")
    assert (tmp_path / "load.png").read_bytes().startswith(b"\x89PNG")
