"""An engine with the Triton kernels, and the `gpu` benchmark on a CPU.

`test_triton.py` runs this file under the interpreter.
"""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from engines import engine_of, greedy_request, load, random_prompt, run
from reference import check_greedy_along, logits_along, models_of
from tiny import save_adapters, tiny_model
from torch import Tensor

from ops.lab.bench.gpu.clock import Clock
from ops.lab.bench.gpu.kernels import accuracies, speeds
from ops.lab.bench.gpu.model import ServedModel
from ops.lab.bench.gpu.sizes import SIZES
from ops.lab.bench.gpu.steps import decode_steps
from worker.kernels.interface import Kernels, LoRAPlan, LoRASites
from worker.kernels.reference import ReferenceKernels
from worker.kernels.triton import lora
from worker.kernels.triton.check import NotUsable, usable_kernels
from worker.kernels.triton.kernels import TritonKernels
from worker.startup.warm_up import warm_up

NUM_TOKENS = 6
CPU = torch.device("cpu")
ADAPTERS = {
    "plain": {"r": 3, "target_modules": ["q_proj", "v_proj", "down_proj"]},
    "rslora": {"r": 24, "use_rslora": True, "target_modules": "all-linear"},
}
PROMPTS = {"base": 20, "plain": 7, "rslora": 33}
"""Length of each model's prompt, in tokens."""


def test_a_mixed_batch_in_chunks_equals_transformers_and_peft(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lora, "MAX_SPLIT_TOKENS", 20)  # makes the steps of the warm-up small
    folders, kernels = save_adapters(tmp_path, ADAPTERS, "gemma2"), TritonKernels()
    loaded = load(tiny_model("gemma2"), kernels=kernels)
    assert loaded.kernels is kernels
    warm_up(loaded)
    served, versions = engine_of(loaded, folders, budget=23)
    prompts = {name: random_prompt(seed, n) for seed, (name, n) in enumerate(PROMPTS.items())}
    requests = [
        greedy_request(name, prompt, NUM_TOKENS, versions.get(name))
        for name, prompt in prompts.items()
    ]
    tokens = run(served, requests)
    for name, model in models_of(folders, "gemma2").items():
        check_greedy_along(logits_along(model, prompts[name], tokens[name]), tokens[name])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_kernels_that_agree_with_torch_are_usable(dtype: torch.dtype) -> None:
    assert usable_kernels(CPU, dtype).name == "triton"


class WrongLoRA(TritonKernels):
    """Kernels that omit the LoRA terms."""

    def add_lora_(self, y: Tensor, x: Tensor, sites: LoRASites, plan: LoRAPlan) -> None:
        """Leave `y` unchanged."""


def test_kernels_that_differ_from_torch_are_not_usable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.kernels.triton.check.TritonKernels", WrongLoRA)
    with pytest.raises(NotUsable, match=r"LoRA, 3 x 64, in torch.float32, is off by"):
        usable_kernels(CPU, torch.float32)


CLOCK = Clock(CPU, repeats=1)
TINY = SIZES["tiny"]


class BrokenLoRA(TritonKernels):
    """Kernels whose LoRA terms don't compile."""

    def add_lora_(self, y: Tensor, x: Tensor, sites: LoRASites, plan: LoRAPlan) -> None:
        """Raise as Triton does."""
        raise RuntimeError("out of resource: shared memory\nand more lines")


def test_all_kernels_are_right_and_timed() -> None:
    found = list(accuracies(TritonKernels(), TINY, torch.float32, CPU))
    assert [row.trial for row in found if not row.is_right] == []
    assert {row.trial.split(",")[0] for row in found} == {"attention", "KV store", "LoRA"}
    assert all(row.relative_error < 1e-5 for row in found)
    timed = list(speeds(TritonKernels(), TINY, torch.float32, CLOCK, 1e9, CPU))
    assert {row.trial.split(",")[0] for row in timed} >= {"attention", "LoRA qkv", "LoRA down"}
    assert all(row.bandwidth_share == pytest.approx(row.gb_per_s) for row in timed)


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
