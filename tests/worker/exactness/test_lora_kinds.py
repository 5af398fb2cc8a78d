"""Logits of each kind of adapter equal those of PEFT, alone and in a batch with all others."""

from itertools import product
from pathlib import Path

import pytest
import torch
from kinds import kinds
from parity import check_alone, check_batch, maker
from slow_cases import slow_unless
from tiny import ARCHITECTURES

from worker.lora.base.modules import base_modules
from worker.lora.checkpoint.adapter_files import AdapterFiles
from worker.lora.checkpoint.header_report import report_headers

MODEL_TYPES = (*ARCHITECTURES, "gpt2", "phi3", "glm4", "phi")
REPRESENTATIVE = {"llama", "gpt2"}
TOLERANCE = {torch.float64: 1e-9, torch.float32: 2e-5}


@pytest.mark.parametrize(
    ("model_type", "kind"),
    slow_unless(
        lambda model_type, _: model_type in REPRESENTATIVE,
        [(t, k) for t in MODEL_TYPES for k in kinds(t)],
    ),
)
def test_logits_equal_those_of_peft(model_type: str, kind: str, tmp_path: Path) -> None:
    make, tolerance = maker(model_type, is_rough=True), TOLERANCE[torch.float64]
    check_alone(make, kinds(model_type)[kind], tmp_path, tolerance)
    found = report_headers(AdapterFiles(tmp_path), base_modules(make()))
    assert found.matched
    assert found.unmatched == ()
    assert found.ranks


@pytest.mark.parametrize(
    ("model_type", "dtype"),
    # `test_kinds_in_one_batch.py` checks such batches in float32.
    slow_unless(
        lambda model_type, dtype: model_type in REPRESENTATIVE and dtype == torch.float64,
        product(MODEL_TYPES, TOLERANCE),
    ),
    ids=str,
)
def test_all_kinds_in_one_batch_with_the_base(
    model_type: str, dtype: torch.dtype, tmp_path: Path
) -> None:
    configs = list(kinds(model_type).values())
    make = maker(model_type, is_rough=True)
    check_batch(make, configs, dtype, tmp_path, TOLERANCE[dtype])
