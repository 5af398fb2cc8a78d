"""`lorikeet bench` and `lorikeet eval-demo` against minimal servers."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import lorikeet
from rich.text import Text
from sse_events import sse_bytes
from threaded_server import LocalServer, QuietHandler, running

from ops.demo.evaluate import EvaluationFailed
from ops.demo.tasks import TASKS
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
    with pytest.raises(Exception, match=r"3 of 3 requests to \S+ failed:\nHTTP 404"):
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


KEY = "k" * 16
WANTED = {example.prompt: example.answer for task in TASKS.values() for example in task.held_out()}


class ScriptedDemo(LocalServer):
    """Adapters give the expected answer, the base another one, and model `failing` an error."""

    request_queue_size = 64

    def __init__(self) -> None:
        super().__init__(_Handler)
        self.models = ["base", *TASKS]
        self.failing: str | None = None
        self.received: list[tuple[str, str]] = []
        self.keys: set[str | None] = set()


class _Handler(QuietHandler):
    server: ScriptedDemo

    def do_GET(self) -> None:
        self.reply(200, {"data": [{"id": name} for name in self.server.models]})

    def do_POST(self) -> None:
        body = json.loads(self.read_body())
        model, prompt = body["model"], body["messages"][0]["content"]
        self.server.received.append((model, prompt))
        self.server.keys.add(self.headers["authorization"])
        if model == self.server.failing:
            self.reply(503, {"error": {"message": "no worker"}})
        else:
            text = WANTED[prompt] if model != "base" else "Sure!"
            self.reply(200, {"choices": [{"message": {"content": text}}]})


@pytest.fixture
def server() -> Iterator[ScriptedDemo]:
    with running(ScriptedDemo()) as server:
        yield server


def eval_demo(server: ScriptedDemo, *flags: str) -> str:
    return lorikeet("eval-demo", "--url", server.url, "--api-key", KEY, *flags)


def test_it_prints_shares_and_writes_answers_and_a_plot(
    server: ScriptedDemo, tmp_path: Path
) -> None:
    figures, plot = tmp_path / "answers.json", tmp_path / "plot.png"
    shown = eval_demo(server, "--most=6", f"--json={figures}", f"--plot={plot}")
    scores = {score["task"]: score["answers"] for score in json.loads(figures.read_bytes())}
    assert list(scores) == list(TASKS)
    for name in ("extract", "sentiment", "sql"):
        cells = next(line.split() for line in shown.splitlines() if line.split()[:1] == [name])
        assert cells == [name, str(len(scores[name])), "0.0%", "100.0%"]
    assert {answer["base"] for answers in scores.values() for answer in answers} == {"Sure!"}
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_adapters_and_base_get_the_same_prompts_mixed(server: ScriptedDemo) -> None:
    eval_demo(server, "--most=6", "--clients=4")
    by_adapters = sorted(prompt for model, prompt in server.received if model != "base")
    assert by_adapters == sorted(prompt for model, prompt in server.received if model == "base")
    first = [model for model, _ in server.received[: len(server.received) // 2]]
    assert set(first) == {"base", *TASKS}
    assert server.keys == {f"Bearer {KEY}"}


def test_failed_requests_end_it_with_their_reason(server: ScriptedDemo) -> None:
    server.failing = "sql"
    with pytest.raises(EvaluationFailed, match=r"requests failed:\nsql: HTTP 503: .*no worker"):
        eval_demo(server, "--most=2")


def test_a_server_without_the_demo_is_refused_before_a_request(server: ScriptedDemo) -> None:
    server.models.remove("sql")
    with pytest.raises(SettingsError, match="doesn't serve sql; `lorikeet up` without a model"):
        eval_demo(server)
    assert not server.received
