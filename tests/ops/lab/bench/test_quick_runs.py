"""The whole measurements at tiny sizes, at which their figures are meaningless."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tiny

from ops.lab.machine import ROOT
from ops.lab.server_processes import clean_environment
from worker.kernels.cpu.levels import cpu_flags, usable_levels

pytestmark = [
    pytest.mark.timeout(300),  # the started processes import torch
    pytest.mark.skipif(sys.platform != "linux", reason="binds processes to cores"),
]
NEEDS_KERNELS = pytest.mark.skipif(
    not usable_levels(cpu_flags()), reason="needs an x86 CPU with AVX2"
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # 128 words are about 600 tokens of the byte-level tokenizer.
    return tiny.save_tiny_model(tmp_path_factory.mktemp("tiny"), max_position_embeddings=4096)


def measured(folder: Path, *words: object) -> list[dict[str, dict[str, float]]]:
    """Return the rounds of a measurement that `python -m ops.lab.bench` wrote to `folder`."""
    command = [sys.executable, "-m", "ops.lab.bench", *map(str, words), "--results", str(folder)]
    subprocess.run(command, cwd=ROOT, env=clean_environment(), check=True)
    (result,) = folder.glob("*.json")
    rounds: list[dict[str, Any]] = json.loads(result.read_bytes())["figures"]["rounds"]
    assert all(f >= 0 for one in rounds for figures in one.values() for f in figures.values())
    return rounds


@pytest.mark.long
def test_without_a_command_lorikeet_is_compared_with_peft(model: Path, tmp_path: Path) -> None:
    (found,) = measured(tmp_path, "--quick", "--model", model)
    assert list(found) == ["PEFT", "Lorikeet"]
    label = "2 adapters, 2 clients, tokens/s"
    assert found["PEFT"][label] > 0 < found["Lorikeet"][label]
    assert found["Lorikeet"]["base, 2 clients, tokens/s"] > 0


@pytest.mark.long
@NEEDS_KERNELS
def test_two_checkouts_and_two_levels_are_measured(model: Path, tmp_path: Path) -> None:
    flags = ("--baseline", ROOT, "--level", "avx2")
    (found,) = measured(tmp_path, "pairs", "--quick", "--model", model, *flags)
    assert list(found) == ["now", "before", "avx2"]
    for figures in found.values():
        assert figures["decode step of 32, 2 adapters, ms"] > 0
        assert figures["base, 1 client, tokens/s"] > 0


@pytest.mark.long
@NEEDS_KERNELS
def test_int8_is_compared_with_bfloat16(model: Path, tmp_path: Path) -> None:
    (found,) = measured(tmp_path, "int8", "--quick", "--model", model)
    assert found["int8"]["weights, MiB"] < found["bfloat16"]["weights, MiB"]
    assert found["int8"]["2 adapters, 2 clients, tokens/s"] > 0


@pytest.mark.long
def test_a_pool_is_measured_beside_a_busy_loop(model: Path, tmp_path: Path) -> None:
    rounds = measured(tmp_path, "neighbour", "--quick", "--model", model)
    # Loads this short last only a few of the ticks that CPU time is counted in. A share may then be
    # 0, and it may exceed 100 %.
    (undisturbed, same, other) = rounds[0].values()
    assert undisturbed.keys() < same.keys() == other.keys()


@pytest.mark.long
def test_updates_are_measured_as_trainers_send_them(model: Path, tmp_path: Path) -> None:
    (found,) = measured(tmp_path, "updates", "--quick", "--model", model)
    assert list(found) == ["TRL", "verl", "miles", "AReaL"]
    for figures in found.values():
        published = figures["first call to last response, p50, ms"]
        assert 0 < published < figures["first call to first answer, p50, ms"]


@pytest.mark.long
def test_a_batch_is_compared_with_a_closed_loop(model: Path, tmp_path: Path) -> None:
    (found,) = measured(tmp_path, "batches", "--quick", "--model", model)
    assert found["batch"]["tokens/s"] > 0 < found["closed loop"]["tokens/s"]
    assert found["beside a batch"]["TTFT p95 in ms"] > 0


@pytest.mark.long
def test_two_api_processes_are_measured_in_each_round(tmp_path: Path) -> None:
    (found,) = measured(tmp_path, "api-cpu", "--quick", "--baseline", ROOT)
    assert list(found) == ["now", "before"]


@pytest.mark.long
def test_a_large_pool_is_compared_with_a_small_one(tmp_path: Path) -> None:
    (found,) = measured(tmp_path, "scale", "--quick")
    assert list(found) == ["1 workers, 2 adapters", "4 workers, 8 adapters"]
    assert all(figures["2 streams, tokens/s"] > 0 for figures in found.values())


@pytest.mark.long
@pytest.mark.demo
def test_all_workloads_are_answered_by_both_engines(tmp_path: Path) -> None:
    (found,) = measured(tmp_path, "speculation", "--quick")
    label = "extract under its schema, 1 at a time"
    assert found["speculating"][f"{label}, tokens/s"] > 0 < found["plain"][f"{label}, tokens/s"]
    assert found["speculating"][f"{label}, forced, %"] > 0
