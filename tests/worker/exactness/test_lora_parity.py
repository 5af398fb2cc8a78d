"""Logits of LoRA adapters equal those of PEFT, for all ranks, scalings and target selections.

float64 rounds so little that any other difference is visible. Mixed batches are also tested in
float32.
"""

from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from lora import wrap
from parity import NUM_ROWS, assert_same, check_alone, check_batch, inputs, maker, peft_logits
from reference import with_adapter
from slow_cases import slow_unless
from tiny import ARCHITECTURES, save_adapter

ATTENTION = {
    "gpt_neox": ["query_key_value", "dense"],
    "gpt2": ["c_attn"],
    "phi3": ["qkv_proj", "o_proj"],
}
QKVO = ["q_proj", "k_proj", "v_proj", "o_proj"]
FUSED = {
    "gpt_neox": ["query_key_value"],
    "gpt2": ["c_attn"],
    "phi3": ["qkv_proj", "gate_up_proj"],
    "glm4": ["gate_up_proj"],
}
"""Modules that join several linears, by model type."""
MODEL_TYPES = (*ARCHITECTURES, "gpt2", "phi3", "glm4")
REPRESENTATIVE = {"llama", "gpt2"}
TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5}


def attention(model_type: str) -> list[str]:
    return ATTENTION.get(model_type, QKVO)


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


KINDS: dict[str, Callable[[str], dict[str, Any]]] = {
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
    "regex": lambda t: config(t, target_modules=rf".*\.1\..*\.({'|'.join(attention(t))})"),
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


CANNOT_HAVE = {
    # PEFT treats the experts as linears, but they aren't modules.
    ("mixtral", "all-linear"),
    ("mixtral", "all-linear but attention"),
    # PEFT has no default for these, or drops it (phi3).
    ("mixtral", "PEFT's default targets"),
    ("glm4", "PEFT's default targets"),
    ("phi3", "PEFT's default targets"),
    *((t, "fused modules alone") for t in MODEL_TYPES if t not in FUSED),
    *((t, kind) for t in ATTENTION for kind in ("keys alone", "values alone")),
}
CASES = [(t, kind) for t in MODEL_TYPES for kind in KINDS if (t, kind) not in CANNOT_HAVE]


@pytest.mark.parametrize(
    ("model_type", "kind"),
    slow_unless(lambda model_type, _: model_type in REPRESENTATIVE, CASES),
)
def test_logits_equal_those_of_peft(model_type: str, kind: str, tmp_path: Path) -> None:
    tolerance = TOLERANCE[torch.float64]
    check_alone(maker(model_type), KINDS[kind](model_type), tmp_path, tolerance)


@pytest.mark.parametrize(
    ("model_type", "dtype"),
    # `test_engine.py` checks such batches in float32.
    slow_unless(lambda _, dtype: dtype == torch.float64, product(MODEL_TYPES, TOLERANCE)),
    ids=str,
)
def test_each_row_of_a_mixed_batch_uses_its_own_adapter(
    model_type: str, dtype: torch.dtype, tmp_path: Path
) -> None:
    kinds = ["rank 1", "rslora", "rank and alpha patterns", "one layer", "regex", "rank 48"]
    configs = [KINDS[kind](model_type) for kind in kinds]
    check_batch(maker(model_type), configs, dtype, tmp_path, TOLERANCE[dtype])


@torch.no_grad()
def test_weights_stored_in_half_precision_keep_their_values(tmp_path: Path) -> None:
    make = maker("llama")
    folder = save_adapter(tmp_path, target_modules=QKVO)
    with_adapter(make(), folder).half().save_pretrained(tmp_path / "half")
    case = wrap(make().double())
    got = case.logits(inputs(), [case.load(tmp_path / "half")] * NUM_ROWS)
    wanted = peft_logits(make, tmp_path / "half", inputs())
    assert_same(got, wanted, TOLERANCE[torch.float64])
