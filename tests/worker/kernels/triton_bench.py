"""Runs the `gpu` benchmark on a CPU. `test_triton.py` runs this file under the interpreter."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from ops.lab.bench.gpu.clock import Clock
from ops.lab.bench.gpu.decode import decode_steps
from ops.lab.bench.gpu.kernels import accuracies, speeds
from ops.lab.bench.gpu.model import ServedModel
from ops.lab.bench.gpu.sizes import SIZES
from worker.kernels.interface import Kernels, LoRAPlan, LoRASites
from worker.kernels.reference import ReferenceKernels
from worker.kernels.triton.kernels import TritonKernels

CPU = torch.device("cpu")
CLOCK = Clock(CPU, repeats=1)
TINY = SIZES["tiny"]


def test_all_results_are_right() -> None:
    found = list(accuracies(TritonKernels(), TINY, torch.float32, CPU))
    assert [row.trial for row in found if not row.is_right] == []
    assert {row.trial.split(",")[0] for row in found} == {"attention", "KV store", "LoRA"}
    assert all(row.relative_error < 1e-5 for row in found)


def test_all_kernels_are_timed() -> None:
    found = list(speeds(TritonKernels(), TINY, torch.float32, CLOCK, 1e9, CPU))
    assert {row.trial.split(",")[0] for row in found} >= {"attention", "LoRA qkv", "LoRA down"}
    assert all(row.bandwidth_share == pytest.approx(row.gb_per_s) for row in found)


class WrongLoRA(TritonKernels):
    """Kernels that omit the LoRA terms."""

    def add_lora_(self, y: Tensor, x: Tensor, sites: LoRASites, plan: LoRAPlan) -> None:
        """Leave `y` unchanged."""


class BrokenLoRA(TritonKernels):
    """Kernels whose LoRA terms don't compile."""

    def add_lora_(self, y: Tensor, x: Tensor, sites: LoRASites, plan: LoRAPlan) -> None:
        """Raise as Triton does."""
        raise RuntimeError("out of resource: shared memory\nand more lines")


@pytest.mark.parametrize(
    ("kernels", "error"),
    [(WrongLoRA(), None), (BrokenLoRA(), "RuntimeError: out of resource: shared memory")],
    ids=["wrong", "broken"],
)
def test_wrong_and_broken_kernels_are_named_and_the_others_are_compared(
    kernels: Kernels, error: str | None
) -> None:
    found = list(accuracies(kernels, TINY, torch.float32, CPU))
    for row in found:
        assert row.is_right is not row.trial.startswith("LoRA")
        assert row.error == (None if row.is_right else error)


@pytest.mark.parametrize("kernels", [TritonKernels(), ReferenceKernels()], ids=["triton", "torch"])
def test_decode_steps_are_measured_with_their_floor(kernels: Kernels) -> None:
    sizes = replace(TINY, num_layers=1, decodes=((3, 0), (3, 2)), steps=1)
    model = ServedModel(sizes, kernels, torch.float32, CPU)
    base, adapted = decode_steps(model, CLOCK, 1e9)
    assert (base.batch, base.adapters, base.lora_ms) == (3, 0, 0.0)
    assert (adapted.batch, adapted.adapters) == (3, 2)
    assert adapted.floor_ms == adapted.weights_ms + adapted.kv_ms + adapted.lora_ms
    assert adapted.lora_ms == pytest.approx(1000 * 2 * model.adapter_bytes / 1e9)
