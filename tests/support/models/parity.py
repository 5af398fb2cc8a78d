"""Comparisons of logits with those of PEFT, alone and in a batch of several adapters."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from lora import wrap
from reference import with_adapter
from tiny import roughen, save_adapter, tiny_model
from transformers import PreTrainedModel

from shared.protocol.ids import AdapterVersion

Make = Callable[[], PreTrainedModel]
"""Makes the base model, in float32."""
NUM_ROWS, LENGTH = 3, 11


def maker(model_type: str, *, is_rough: bool = False) -> Make:
    """Return a function that makes the tiny model of this type, roughened if `is_rough`."""

    def make() -> PreTrainedModel:
        model = tiny_model(model_type)
        if model_type == "mixtral":
            model.set_experts_implementation("eager")  # others don't support float64
        return roughen(model) if is_rough else model

    return make


def inputs(num_rows: int = NUM_ROWS) -> torch.Tensor:
    generator = torch.Generator().manual_seed(5)
    return torch.randint(6, 250, (num_rows, LENGTH), generator=generator)


def peft_logits(
    make: Make, folder: Path, ids: torch.Tensor, dtype: torch.dtype = torch.float64
) -> torch.Tensor:
    logits: torch.Tensor = with_adapter(make(), folder).to(dtype)(input_ids=ids).logits
    return logits


def assert_same(got: torch.Tensor, wanted: torch.Tensor, tolerance: float) -> None:
    atol = tolerance * float(wanted.abs().max())
    torch.testing.assert_close(got, wanted, rtol=0, atol=atol)


@torch.no_grad()
def check_alone(make: Make, config: dict[str, Any], folder: Path, tolerance: float) -> None:
    """Check the logits of an adapter with this configuration, in float64."""
    save_adapter(folder, base=make(), **config)
    case, ids = wrap(make().double()), inputs()
    without = case.model(input_ids=ids).logits
    got = case.logits(ids, [case.load(folder)] * NUM_ROWS)
    assert_same(got, peft_logits(make, folder, ids), tolerance)
    assert (got - without).abs().max() > 0.1, "the adapter changes the logits too little for a test"


@torch.no_grad()
def check_batch(
    make: Make,
    configs: Sequence[dict[str, Any]],
    dtype: torch.dtype,
    folder: Path,
    tolerance: float,
) -> None:
    """Check the logits of a batch with two rows for each configuration and one for the base."""
    case, ids = wrap(make().to(dtype)), inputs(1 + 2 * len(configs))
    rows: list[AdapterVersion | None] = [None]
    wanted = [case.model(input_ids=ids[:1]).logits]
    for seed, config in enumerate(configs):
        one = save_adapter(folder / str(seed), base=make(), seed=seed, scale=0.1, **config)
        wanted.append(peft_logits(make, one, ids[1 + 2 * seed : 3 + 2 * seed], dtype))
        rows += [case.load(one, f"a{seed}")] * 2
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(1))
    got = case.logits(ids[order], [rows[i] for i in order])
    assert_same(got, torch.cat(wanted)[order], tolerance)
