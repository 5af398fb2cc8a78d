"""Logits of adapters equal those of PEFT, for all kinds, ranks, scalings and target selections.

float64 rounds so little that any other difference is visible. `test_engine.py` has mixed batches.
"""

import functools
from collections.abc import Callable
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
TOLERANCE, KINDS_TOLERANCE = 1e-10, 1e-9
"""Of plain LoRA, and of the other kinds of adapters."""


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


def inputs() -> torch.Tensor:
    return torch.randint(6, 250, (3, 11), generator=torch.Generator().manual_seed(5))


class Served:
    """A base model in float64 that computes one adapter after another."""

    @torch.no_grad()
    def __init__(self, model_type: str) -> None:
        self.model_type = model_type
        self.case = wrap(base_of(model_type).double())
        self.base_logits = self.case.model(input_ids=inputs()).logits
        self.modules = base_modules(base_of(model_type))

    @torch.no_grad()
    def check(self, folder: Path, tolerance: float = TOLERANCE) -> None:
        """Compare the logits of the adapter in `folder` with PEFT's."""
        version = self.case.load(folder)
        got = self.case.logits(inputs(), [version] * len(inputs()))
        self.case.context.batch = None
        self.case.pool.remove(version)
        wanted = with_adapter(base_of(self.model_type), folder).double()(inputs()).logits
        atol = tolerance * float(wanted.abs().max())
        torch.testing.assert_close(got, wanted, rtol=0, atol=atol)
        change = (got - self.base_logits).abs().max()
        assert change > 0.1, "the adapter changes the logits too little for a test"


served = functools.cache(Served)
"""One model of each type for all its adapters."""


@pytest.mark.parametrize(
    ("model_type", "kind"),
    slow_unless(lambda model_type, _: model_type in REPRESENTATIVE, CASES),
)
def test_logits_equal_those_of_peft(model_type: str, kind: str, tmp_path: Path) -> None:
    is_plain = kind in LORA
    fields = LORA[kind](model_type) if is_plain else kinds(model_type)[kind]
    save_adapter(tmp_path, base=base_of(model_type), **fields)
    served(model_type).check(tmp_path, TOLERANCE if is_plain else KINDS_TOLERANCE)
    found = report_headers(AdapterFiles(tmp_path), served(model_type).modules)
    assert found.matched
    assert found.unmatched == ()
    assert found.ranks


def test_weights_stored_in_half_precision_keep_their_values(tmp_path: Path) -> None:
    folder = save_adapter(tmp_path, target_modules=attention("llama"))
    with_adapter(base_of("llama"), folder).half().save_pretrained(tmp_path / "half")
    served("llama").check(tmp_path / "half")
