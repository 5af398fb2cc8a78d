"""Runs the `gpu` benchmark on a CPU. `test_triton.py` runs this file under the interpreter."""

import json
from pathlib import Path

import pytest
import torch
from tiny import save_tiny_model, tiny_model, tiny_tokenizer
from torch import Tensor

from ops.bench.gpu.clock import Clock
from ops.bench.gpu.measure import measure_gpu, measure_kernel
from ops.bench.gpu.trials import Sizes, trials
from ops.bench.probes.finding import write_finding
from worker.kernels.interface import LoRAPlan, LoRASites
from worker.kernels.triton.kernels import TritonKernels
from worker.model.loader import LoadedModel, prepare_model

CPU = torch.device("cpu")
SIZES = Sizes(
    hidden=64,
    num_heads=4,
    num_kv_heads=2,
    head_dim=16,
    rank=3,
    batch=2,
    context=5,
    prefill=3,
    adapters=(1, 2),
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("tiny"), num_hidden_layers=1)


@pytest.fixture(scope="module")
def loaded() -> LoadedModel:
    return prepare_model(
        tiny_model(num_hidden_layers=1),
        tiny_tokenizer(),
        name="tiny",
        digest="0" * 64,
        source="tiny",
        kernels=TritonKernels(),
    )


def peft(folder: Path, sequences: int, new_tokens: int) -> float:
    assert len(list(folder.iterdir())) == sequences == 2
    return 10.0 * new_tokens


def short_prompts(seed: str, sequences: int) -> list[str]:
    return [f"{seed} {index}" for index in range(sequences)]


def test_everything_is_measured_and_reported(
    model: Path, loaded: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ops.bench.gpu.measure.prompts", short_prompts)
    reported: list[str] = []
    finding = measure_gpu(
        loaded,
        model,
        tmp_path,
        peft,
        sizes=SIZES,
        clock=Clock(CPU, repeats=1),
        steps=1,
        new_tokens=3,
        report=reported.append,
    )
    assert [line.split(":")[0] for line in reported] == [
        "cpu",
        "KV store",
        "attention, decode",
        "attention, prefill",
        "LoRA, decode, 1 adapters",
        "LoRA, decode, 2 adapters",
        "LoRA, prefill, 1 adapters",
        "decode of 2, base",
        "decode of 2, 1 adapters",
        "decode of 2, 2 adapters",
        "2 sequences, an adapter each",
    ]
    assert not any("WRONG" in line for line in reported)
    assert all(kernel["deviation"] < 1e-5 for kernel in finding.figures["kernels"])
    data, plot = write_finding(finding, "tiny", tmp_path)
    assert json.loads(data.read_text())["figures"]["beside_peft"]["peft_tokens_per_s"] == 30.0
    assert plot.stat().st_size > 1000


class WrongLoRA(TritonKernels):
    """Kernels that omit the LoRA terms."""

    def add_lora_(self, y: Tensor, x: Tensor, sites: LoRASites, plan: LoRAPlan) -> None:
        """Leave `y` unchanged."""


def test_a_wrong_kernel_is_named() -> None:
    trial = trials(SIZES, CPU)[-1]
    clock = Clock(CPU, repeats=1)
    figures = measure_kernel(trial, WrongLoRA(), torch.float32, clock, bandwidth=1e9)
    assert not figures.is_right
    assert "LoRA, prefill, 1 adapters: WRONG: off by" in str(figures)
