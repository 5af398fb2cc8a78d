"""Costly work ends with its process, whatever it does."""

import sys
from pathlib import Path

import pytest

from shared.sandbox import MAX_CPU_S, START_CPU_S, TOO_COSTLY, SandboxAnswer, ask_sandbox

PROGRAM = """
from shared.sandbox import answer_once

def work(question):
    exec(question.decode(), globals())
    return result

answer_once(work, rejections=(ValueError,))
"""


@pytest.fixture
def ask(tmp_path: Path, monkeypatch):
    """Function that runs a program in the sandbox, and returns the answer with its `result`."""
    (tmp_path / "scripted_sandbox.py").write_text(PROGRAM)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{Path(__file__).parents[2]}")
    assert not sys.flags.ignore_environment
    return lambda code: ask_sandbox("scripted_sandbox", code.encode())


@pytest.mark.parametrize(
    ("code", "text", "error"),
    [
        ("result = '\u2603'", "\u2603", ""),
        ("raise ValueError('no good')", "", "no good"),
        ("f = lambda: f()\nf()", "", "it is nested too deeply"),
    ],
)
def test_a_result_or_the_message_of_a_rejection_is_returned_with_its_cpu_time(
    ask, code: str, text: str, error: str
) -> None:
    answer: SandboxAnswer = ask(code)
    assert (answer.text, answer.error) == (text, error)
    assert 0 < answer.cpu_s < 60


@pytest.mark.parametrize(
    "code",
    [
        "while True: pass",
        "import re; re.match('(a+)+b', 'a' * 100)",
        "result = b'x' * (1 << 30)",
        "import os; os.abort()",
    ],
)
def test_work_beyond_a_limit_is_ended(ask, code: str) -> None:
    answer: SandboxAnswer = ask(code)
    assert answer == SandboxAnswer("", TOO_COSTLY, START_CPU_S + MAX_CPU_S)
