"""Logits of adapters equal those of PEFT, for all kinds, ranks, scalings and target selections.

float64 rounds so little that any other difference is visible. Mixed batches are also tested in
float32.
"""

from collections.abc import Callable, Iterable, Mapping
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from kinds import attention, kinds
from lora import wrap
from reference import with_adapter
from slow_cases import slow_unless
from tiny import ARCHITECTURES, roughen, save_adapter, tiny_model
from transformers import PreTrainedModel

from shared.protocol.ids import AdapterVersion
from worker.lora.base.modules import base_modules
from worker.lora.checkpoint.adapter_files import AdapterFiles
from worker.lora.checkpoint.header_report import report_headers

FUSED = {
    "gpt_neox": ["query_key_value"],
    "gpt2": ["c_attn"],
    "phi3": ["qkv_proj", "gate_up_proj"],
    "glm4": ["gate_up_proj"],
}
"""Modules that join several linears, by model type."""
MODEL_TYPES = (*ARCHITECTURES, "gpt2", "phi3", "glm4", "phi")
REPRESENTATIVE = {"llama", "gpt2"}
TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5}
KINDS_TOLERANCE = {torch.float64: 1e-9, torch.float32: 2e-5}
"""For kinds of adapters beside plain LoRA."""
NUM_ROWS, LENGTH = 3, 11


def config(model_type: str, **fields: Any) -> dict[str, Any]:
    """Return the configuration of an adapter on attention, with `fields` replaced."""
    return {
        "r": 8,
        "lora_alpha": 12,
        "target_modules": attention(model_type),
        "fan_in_fan_out": model_type == "gpt2",
        **fields,
    }


def patterns(model_type: str) -> dict[str, Any]:
    first = attention(model_type)[0]
    return config(
        model_type,
        rank_pattern={rf".*\.1\..*{first}": 5, first: 24},
        alpha_pattern={first: 40},
    )


LORA: dict[str, Callable[[str], dict[str, Any]]] = {
    "alpha over r": config,
    "rslora": lambda t: config(t, r=16, use_rslora=True),
    "rslora with patterns": lambda t: patterns(t) | {"use_rslora": True},
    "rank 1": lambda t: config(t, r=1),
    "rank 3": lambda t: config(t, r=3),
    "rank 24": lambda t: config(t, r=24),
    "rank 48": lambda t: config(t, r=48),
    "rank and alpha patterns": patterns,
    "one layer": lambda t: config(t, layers_to_transform=[1]),
    "one layer by its number": lambda t: config(t, layers_to_transform=0),
    "layers pattern": lambda t: config(
        t,
        layers_to_transform=[1],
        layers_pattern={"gpt2": "h"}.get(t, "layers"),
    ),
    "regex": lambda t: config(t, target_modules=rf".*\.1\.(.*\.)?({'|'.join(attention(t))})"),
    "all-linear": lambda t: config(t, target_modules="all-linear"),
    "all-linear but attention": lambda t: config(
        t, target_modules="all-linear", exclude_modules=attention(t)
    ),
    "excluded by regex": lambda t: config(t, exclude_modules=r".*\.0\..*"),
    "fused modules alone": lambda t: config(t, r=24, target_modules=FUSED[t]),
    "keys alone": lambda t: config(t, target_modules=["k_proj"]),
    "values alone": lambda t: config(t, target_modules=["v_proj"]),
    "one module": lambda t: config(t, target_modules=attention(t)[-1:]),
    "PEFT's default targets": lambda t: config(t, target_modules=None),
}
"""Configurations of plain LoRA. Those of other kinds are in `kinds`."""
CANNOT_HAVE = {
    # PEFT treats the experts as linears, but they aren't modules.
    ("mixtral", "all-linear"),
    ("mixtral", "all-linear but attention"),
    # PEFT has no default for these, or drops it (phi3).
    ("mixtral", "PEFT's default targets"),
    ("glm4", "PEFT's default targets"),
    ("phi3", "PEFT's default targets"),
    *((t, "fused modules alone") for t in MODEL_TYPES if t not in FUSED),
    *((t, kind) for t in ("gpt_neox", "gpt2", "phi3") for kind in ("keys alone", "values alone")),
}
CASES = [
    (t, kind) for t in MODEL_TYPES for kind in (*LORA, *kinds(t)) if (t, kind) not in CANNOT_HAVE
]


def base_of(model_type: str) -> PreTrainedModel:
    model = roughen(tiny_model(model_type))
    if model_type == "mixtral":
        model.set_experts_implementation("eager")  # others don't support float64
    return model


def inputs(num_rows: int = NUM_ROWS) -> torch.Tensor:
    generator = torch.Generator().manual_seed(5)
    return torch.randint(6, 250, (num_rows, LENGTH), generator=generator)


def peft_logits(
    model_type: str, folder: Path, ids: torch.Tensor, dtype: torch.dtype = torch.float64
) -> torch.Tensor:
    logits: torch.Tensor = with_adapter(base_of(model_type), folder).to(dtype)(ids).logits
    return logits


def assert_same(
    got: torch.Tensor, wanted: torch.Tensor, tolerance: Mapping[torch.dtype, float]
) -> None:
    atol = tolerance[wanted.dtype] * float(wanted.abs().max())
    torch.testing.assert_close(got, wanted, rtol=0, atol=atol)


@pytest.mark.parametrize(
    ("model_type", "kind"),
    slow_unless(lambda model_type, _: model_type in REPRESENTATIVE, CASES),
)
@torch.no_grad()
def test_logits_equal_those_of_peft(model_type: str, kind: str, tmp_path: Path) -> None:
    is_plain = kind in LORA
    fields = LORA[kind](model_type) if is_plain else kinds(model_type)[kind]
    save_adapter(tmp_path, base=base_of(model_type), **fields)
    case, ids = wrap(base_of(model_type).double()), inputs()
    without = case.model(input_ids=ids).logits
    got = case.logits(ids, [case.load(tmp_path)] * NUM_ROWS)
    wanted = peft_logits(model_type, tmp_path, ids)
    assert_same(got, wanted, TOLERANCE if is_plain else KINDS_TOLERANCE)
    assert (got - without).abs().max() > 0.1, "the adapter changes the logits too little for a test"
    found = report_headers(AdapterFiles(tmp_path), base_modules(base_of(model_type)))
    assert found.matched
    assert found.unmatched == ()
    assert found.ranks


@torch.no_grad()
def batch_logits(
    model_type: str, configs: Iterable[dict[str, Any]], dtype: torch.dtype, folder: Path
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return logits of the base and two rows for each configuration, in one batch and by PEFT."""
    configs = list(configs)
    case, ids = wrap(base_of(model_type).to(dtype)), inputs(1 + 2 * len(configs))
    rows: list[AdapterVersion | None] = [None]
    wanted = [case.model(input_ids=ids[:1]).logits]
    for seed, fields in enumerate(configs):
        one = folder / str(seed)
        save_adapter(one, base=base_of(model_type), seed=seed, scale=0.1, **fields)
        wanted.append(peft_logits(model_type, one, ids[1 + 2 * seed : 3 + 2 * seed], dtype))
        rows += [case.load(one, f"a{seed}")] * 2
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(1))
    return case.logits(ids[order], [rows[i] for i in order]), torch.cat(wanted)[order]


@pytest.mark.parametrize(
    ("model_type", "dtype"),
    # `test_engine.py` checks such batches in float32.
    slow_unless(lambda _, dtype: dtype == torch.float64, product(MODEL_TYPES, TOLERANCE)),
    ids=str,
)
def test_each_row_of_a_mixed_batch_uses_its_own_adapter(
    model_type: str, dtype: torch.dtype, tmp_path: Path
) -> None:
    names = ["rank 1", "rslora", "rank and alpha patterns", "one layer", "regex", "rank 48"]
    configs = (LORA[name](model_type) for name in names)
    assert_same(*batch_logits(model_type, configs, dtype, tmp_path), TOLERANCE)


@pytest.mark.parametrize(
    ("model_type", "dtype"),
    # `test_engine.py` checks such batches in float32.
    slow_unless(
        lambda model_type, dtype: model_type in REPRESENTATIVE and dtype == torch.float64,
        product(MODEL_TYPES, TOLERANCE),
    ),
    ids=str,
)
def test_all_kinds_in_one_batch_with_the_base(
    model_type: str, dtype: torch.dtype, tmp_path: Path
) -> None:
    configs = kinds(model_type).values()
    assert_same(*batch_logits(model_type, configs, dtype, tmp_path), KINDS_TOLERANCE)


@torch.no_grad()
def test_weights_stored_in_half_precision_keep_their_values(tmp_path: Path) -> None:
    folder = save_adapter(tmp_path, target_modules=attention("llama"))
    with_adapter(base_of("llama"), folder).half().save_pretrained(tmp_path / "half")
    case = wrap(base_of("llama").double())
    got = case.logits(inputs(), [case.load(tmp_path / "half")] * NUM_ROWS)
    assert_same(got, peft_logits("llama", tmp_path / "half", inputs()), TOLERANCE)
