"""A method of transformers' cache that no stand-in knows refuses the model, by name."""

import copy
import functools
from typing import Any

import pytest
from engines import load
from recurrent import recurrent_model
from torch import nn

from shared.errors import ModelRejected
from worker.model.recurrent import mixers
from worker.upstream.caches import CacheStandIn


@pytest.mark.parametrize("model_type", ["qwen3_5_text", "mamba2"])
def test_a_recurrent_layer_that_calls_an_unknown_method_is_refused(
    model_type: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = recurrent_model(model_type)
    layer_class = type(mixers(model)[0])
    original = layer_class.forward

    @functools.wraps(original)
    def forward(self: nn.Module, *args: Any, cache: Any = None, **others: Any) -> Any:
        if cache is not None:
            cache.begin_segment(0)
        return original(self, *args, cache=cache, **others)

    monkeypatch.setattr(layer_class, "forward", forward)
    with pytest.raises(ModelRejected, match="`begin_segment` of the cache of transformers"):
        load(model)


def test_a_stand_in_can_be_copied() -> None:
    class Named(CacheStandIn):
        name = "states"

    assert copy.deepcopy(Named()).name == "states"
