"""The computed sizes in ops/docs/gpu.md."""

import pytest
import torch

from ops.lab.generate.gpu_sizes import (
    CARDS_GIB,
    MODELS,
    PAGE,
    Shape,
    cards_needed,
    sizes,
)
from worker.lora.base.modules import BaseModules, ModuleShape
from worker.lora.memory.layout import GroupPages, PoolLayout
from worker.lora.memory.pages import UNIT_BYTES, pages_of_rank
from worker.model.kv_cache import KVShape
from worker.model.memory_policy import GIB

SMALL, MIDDLE, LARGE = MODELS


@pytest.mark.parametrize(
    ("model", "weights"),
    [(SMALL, 1_235_814_400), (MIDDLE, 8_030_261_248), (LARGE, 70_553_706_496)],
)
def test_weights_are_those_of_the_published_models(model: Shape, weights: int) -> None:
    assert model.weight_bytes == 2 * weights


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
@pytest.mark.parametrize("rank", [8, 16, 64])
def test_adapters_and_tokens_take_the_memory_that_the_engine_gives_them(
    model: Shape, rank: int
) -> None:
    linears = {
        f"layers.{layer}.{index}": ModuleShape(width, out)
        for layer in range(model.layers)
        for index, (width, out) in enumerate(model.linears)
    }
    base = BaseModules(
        model_type="made", linears=linears, conv1d=frozenset(), others={}, all_linear=frozenset()
    )
    layout = PoolLayout(base, torch.bfloat16)
    blocks = [
        layout.blocks(GroupPages(group, pages_of_rank(rank))) for group in range(len(layout.groups))
    ]
    assert model.adapter_bytes(rank) == sum(b.number * b.units for b in blocks) * UNIT_BYTES
    of_layer = KVShape(model.kv_heads, model.head_dim, model.head_dim)
    assert model.kv_bytes == model.layers * of_layer.num_bytes(torch.bfloat16)


def test_a_model_fits_on_one_card_or_needs_several() -> None:
    assert "| Llama-3.1-8B | 80 GiB |" in PAGE.read_text()
    for model in MODELS:
        for card in CARDS_GIB:
            found = sizes(model, card)
            assert (found is None) == (cards_needed(model, card) > 1)
            if found is not None:
                taken = model.weight_bytes + found.parts.kv + found.parts.adapters
                assert taken + found.step_bytes <= 0.9 * card * GIB
