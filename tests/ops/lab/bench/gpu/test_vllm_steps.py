"""vLLM is measured in a process of its own. Here, a package of the same interface stands in."""

import time
from collections.abc import Generator
from pathlib import Path

import pytest
import torch
from child_processes import is_alive

from ops.lab.bench.gpu.part import NotMeasured
from ops.lab.bench.gpu.peers.vllm_steps import Vllm, vllm_steps
from ops.lab.bench.gpu.sizes import SIZES

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
