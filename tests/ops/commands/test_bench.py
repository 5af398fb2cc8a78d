"""`lorikeet bench` against a minimal server."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import lorikeet
from rich.text import Text
from sse_events import sse_bytes
from threaded_server import LocalServer, QuietHandler, running

from ops.load.distributions import FORMULA
from shared.errors import SettingsError


class Handler(QuietHandler):
    def do_POST(self) -> None:
        body = json.loads(self.read_body())
        chunks = [{"choices": [{"text": "x"}]}] * body["max_tokens"]
        usage = {"prompt_tokens": 2, "completion_tokens": len(chunks)}
        events = sse_bytes(*chunks, {"choices": [], "usage": usage})
        self.reply(200 if body["model"] != "gone" else 404, events)


@pytest.fixture
def url() -> Iterator[str]:
    with running(LocalServer(Handler)) as server:
        yield server.url


def test_it_prints_a_table_and_writes_figures_and_a_plot(url: str, tmp_path: Path) -> None:
    figures, plot = tmp_path / "figures.json", tmp_path / "plot.png"
    output = lorikeet(
        "bench", url, "a", "b", "--requests=6", "--output=2-4", "--rate=500", "--popularity=zipf",
        "--slo-ttft-ms=60000", f"--json={figures}", f"--plot={plot}",
    )  # fmt: skip
    assert "time to first token" in output
    assert "6 of 6 requests answered" in output
    assert "goodput" in output
    written = json.loads(figures.read_bytes())
    assert written["load"]["arrivals"] == {"rate": 500.0, "burstiness": 1.0}
    assert written["goodput_per_s"] == pytest.approx(written["requests_per_s"])
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_failed_requests_end_it_with_an_error(url: str) -> None:
    with pytest.raises(Exception, match="3 of 3 requests failed:\nHTTP 404"):
        lorikeet("bench", url, "gone", "--requests=3", "--output=1")


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--rate=1", "--clients=2"], "--clients makes a closed loop and --rate an open one"),
        (["--input=9-3"], "--input 9-3 is no length"),
        (["--output=0"], "--output 0 is no length"),
        (["--no-stream", "--slo-ttft-ms=5"], "need --stream"),
    ],
)
def test_contradictory_options_are_refused_before_a_request(
    arguments: list[str], reason: str
) -> None:
    with pytest.raises(SettingsError, match=reason):
        lorikeet("bench", "http://127.0.0.1:1", "a", *arguments)


def test_the_help_states_the_formula_of_popularity(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("TERM", "dumb")
    words = Text.from_ansi(lorikeet("bench", "--help")).plain.replace("│", " ").split()
    assert FORMULA in " ".join(words)
