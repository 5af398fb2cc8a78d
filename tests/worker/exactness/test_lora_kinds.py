"""Logits of each kind of adapter equal those of PEFT, alone and in a batch with all others."""

from pathlib import Path

import pytest
import torch
from kinds import kinds
from lora import wrap
from reference import with_adapter
from slow_cases import slow_unless
from tiny import ARCHITECTURES, roughen, save_adapter, tiny_model
from transformers import PreTrainedModel

from shared.protocol.ids import AdapterVersion
from worker.lora.base.modules import base_modules
from worker.lora.checkpoint.adapter_files import AdapterFiles
from worker.lora.checkpoint.header_report import report_headers

MODEL_TYPES = (*ARCHITECTURES, "gpt2", "phi3", "glm4", "phi")
REPRESENTATIVE = {"llama", "gpt2"}
NUM_ROWS, LENGTH = 2, 9
TOLERANCE = {torch.float64: 1e-9, torch.float32: 2e-5}


def base_of(model_type: str) -> PreTrainedModel:
    model = roughen(tiny_model(model_type))
    if model_type == "mixtral":
        model.set_experts_implementation("eager")  # other implementations don't support float64
    return model


def inputs(num_rows: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(5)
    return torch.randint(6, 250, (num_rows, LENGTH), generator=generator)


def expected(model_type: str, folder: Path, ids: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    logits: torch.Tensor = with_adapter(base_of(model_type), folder).to(dtype)(input_ids=ids).logits
    return logits


def assert_same(got: torch.Tensor, wanted: torch.Tensor) -> None:
    tolerance = TOLERANCE[wanted.dtype] * float(wanted.abs().max())
    torch.testing.assert_close(got, wanted, rtol=0, atol=tolerance)


@pytest.mark.parametrize(
    ("model_type", "kind"),
    slow_unless(
        lambda model_type, _: model_type in REPRESENTATIVE,
        [(t, k) for t in MODEL_TYPES for k in kinds(t)],
    ),
)
@torch.no_grad()
def test_logits_equal_those_of_peft(model_type: str, kind: str, tmp_path: Path) -> None:
    config = kinds(model_type)[kind]
    folder = save_adapter(tmp_path, base=base_of(model_type), **config)
    case = wrap(base_of(model_type).double())
    ids = inputs(NUM_ROWS)
    without = case.model(input_ids=ids).logits
    got = case.logits(ids, [case.load(folder)] * NUM_ROWS)
    assert_same(got, expected(model_type, folder, ids, torch.float64))
    assert (got - without).abs().max() > 0.1, "the adapter changes the logits too little for a test"


@pytest.mark.parametrize("kind", kinds("llama"))
def test_every_tensor_is_reported_as_matching_the_base(kind: str, tmp_path: Path) -> None:
    base = base_of("llama")
    folder = save_adapter(tmp_path, base=base_of("llama"), **kinds("llama")[kind])
    found = report_headers(AdapterFiles(folder), base_modules(base))
    assert found.matched
    assert found.unmatched == ()
    assert found.ranks


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize(
    "model_type",
    slow_unless(lambda model_type: model_type in REPRESENTATIVE, [(t,) for t in MODEL_TYPES]),
)
@torch.no_grad()
def test_all_kinds_in_one_batch_with_the_base(
    model_type: str, dtype: torch.dtype, tmp_path: Path
) -> None:
    case = wrap(base_of(model_type).to(dtype))
    configs = list(kinds(model_type).values())
    ids = inputs(1 + 2 * len(configs))
    rows: list[AdapterVersion | None] = [None]
    wanted = [case.model(input_ids=ids[:1]).logits]
    for seed, config in enumerate(configs):
        folder = save_adapter(
            tmp_path / str(seed), base=base_of(model_type), seed=seed, scale=0.1, **config
        )
        wanted.append(expected(model_type, folder, ids[1 + 2 * seed : 3 + 2 * seed], dtype))
        rows += [case.load(folder, f"a{seed}")] * 2
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(1))
    got = case.logits(ids[order], [rows[i] for i in order])
    assert_same(got, torch.cat(wanted)[order])
