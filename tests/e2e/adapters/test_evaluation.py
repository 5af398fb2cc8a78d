"""`lorikeet adapters evaluate` with real weights: a trained adapter against a random one."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from served_tiny import ANSWER, POLYGLOT, QUESTION, TinyModels
from servers import Server, run_lorikeet

pytestmark = pytest.mark.slow

NAME = "questions"
ASKED = {"messages": [{"role": "user", "content": QUESTION}], "max_tokens": 200}
Command = Callable[..., tuple[int, str]]


@pytest.fixture
def adapters(server: Server, models: TinyModels) -> Iterator[Command]:
    """Run `lorikeet adapters`, with an adapter of random weights loaded as `NAME`."""

    def run(*words: str) -> tuple[int, str]:
        done = run_lorikeet("adapters", "--url", server.url, *words)
        return done.returncode, done.stdout + done.stderr

    assert run("load", NAME, str(models.folder / "narrow"))[0] == 0
    yield run
    run("unload", NAME)


@pytest.fixture
def cases(tmp_path: Path) -> str:
    file = tmp_path / "cases.jsonl"
    rows = [{**ASKED, "expected": ANSWER}, {"prompt": "x", "max_tokens": 2, "pattern": ""}]
    file.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows))
    return str(file)


def current(server: Server) -> str:
    body = httpx.get(f"{server.url}/v1/adapters/{NAME}").json()
    return str(body["version"])


def test_a_better_candidate_is_promoted_and_a_worse_one_is_not(
    server: Server, models: TinyModels, adapters: Command, cases: str
) -> None:
    first = current(server)
    evaluate = ("evaluate", NAME, "--file", cases)
    assert adapters("canary", NAME, str(models.folder / POLYGLOT), "--percent", "0")[0] == 0
    status, shown = adapters(*evaluate)
    assert status == 0, shown
    assert "1 of 2" in shown
    assert "2 of 2" in shown
    assert "line 1" in shown
    assert current(server) == first, "nothing changes without --promote"
    assert adapters(*evaluate, "--promote")[0] == 0
    second = current(server)
    assert second != first

    assert adapters("canary", NAME, "--version", first, "--percent", "0")[0] == 0
    status, shown = adapters(*evaluate, "--promote")
    assert (status, current(server)) == (1, second)
    assert "the candidate is worse than the current version" in shown
    assert adapters("drop", NAME)[0] == 0
    status, shown = adapters(*evaluate, "--promote")
    assert status == 2
    assert "aren't both evaluated" in shown
    status, shown = adapters(*evaluate, "--version", first, "--version", second)
    assert (status, "previous" in shown) == (0, True)


def test_a_bad_file_names_its_line(adapters: Command, tmp_path: Path) -> None:
    file = tmp_path / "bad.jsonl"
    file.write_text('{"prompt": "x", "expected": "y"}\n{"prompt": "x"}')
    status, shown = adapters("evaluate", NAME, "--file", str(file))
    assert (status, "line 2: it must have exactly one of" in shown) == (2, True)
    status, shown = adapters("evaluate", NAME, "--file", str(tmp_path / "none"))
    assert (status, "--file: can't read" in shown) == (2, True)
