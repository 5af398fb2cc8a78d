"""Logits of each kind of adapter equal those of PEFT, alone and in a batch with all others."""

from pathlib import Path

import pytest
import torch
from kinds import kinds
from parity import Make, check_alone, check_batch
from slow_cases import slow_unless
from tiny import ARCHITECTURES, roughen, save_adapter, tiny_model
from transformers import PreTrainedModel

from worker.lora.base.modules import base_modules
from worker.lora.checkpoint.adapter_files import AdapterFiles
from worker.lora.checkpoint.header_report import report_headers

MODEL_TYPES = (*ARCHITECTURES, "gpt2", "phi3", "glm4", "phi")
REPRESENTATIVE = {"llama", "gpt2"}
TOLERANCE = {torch.float64: 1e-9, torch.float32: 2e-5}


def maker(model_type: str) -> Make:
    """Return a function that makes the base model."""

    def make() -> PreTrainedModel:
        model = roughen(tiny_model(model_type))
        if model_type == "mixtral":
            model.set_experts_implementation("eager")  # others don't support float64
        return model

    return make


@pytest.mark.parametrize(
    ("model_type", "kind"),
    slow_unless(
        lambda model_type, _: model_type in REPRESENTATIVE,
        [(t, k) for t in MODEL_TYPES for k in kinds(t)],
    ),
)
def test_logits_equal_those_of_peft(model_type: str, kind: str, tmp_path: Path) -> None:
    tolerance = TOLERANCE[torch.float64]
    check_alone(maker(model_type), kinds(model_type)[kind], tmp_path, tolerance)


@pytest.mark.parametrize("kind", kinds("llama"))
def test_every_tensor_is_reported_as_matching_the_base(kind: str, tmp_path: Path) -> None:
    make = maker("llama")
    folder = save_adapter(tmp_path, base=make(), **kinds("llama")[kind])
    found = report_headers(AdapterFiles(folder), base_modules(make()))
    assert found.matched
    assert found.unmatched == ()
    assert found.ranks


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize(
    "model_type",
    slow_unless(lambda model_type: model_type in REPRESENTATIVE, [(t,) for t in MODEL_TYPES]),
)
def test_all_kinds_in_one_batch_with_the_base(
    model_type: str, dtype: torch.dtype, tmp_path: Path
) -> None:
    configs = list(kinds(model_type).values())
    check_batch(maker(model_type), configs, dtype, tmp_path, TOLERANCE[dtype])
