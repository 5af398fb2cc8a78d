from pathlib import Path

import pytest
import torch
from lora import wrapped
from tiny import save_adapter, tiny_model
from torch import nn
from torch.nn import functional as F  # noqa: N812 - torch's own name for it

from worker.lora.batch import build_batch
from worker.lora.layers import LoRALinear, modules_not_called_once


def ids(length: int = 7) -> torch.Tensor:
    return torch.arange(6, 6 + length)[None]


def test_every_linear_of_the_base_is_wrapped_and_nothing_else() -> None:
    case = wrapped(tiny_model("llama"))
    found = {n for n, m in case.model.named_modules() if isinstance(m, LoRALinear)}
    assert found == set(case.base.linears)


def test_a_wrapped_linear_reads_like_its_base() -> None:
    case = wrapped(tiny_model("llama"))
    linear = case.model.get_submodule("model.layers.0.self_attn.k_proj")
    assert (linear.in_features, linear.out_features) == (64, 32)
    assert linear.weight.shape == (32, 64)
    with pytest.raises(AttributeError, match="no_such_thing"):
        _ = linear.no_such_thing


def test_without_a_batch_the_base_answers_bit_for_bit(tmp_path: Path) -> None:
    plain, case = tiny_model("llama"), wrapped(tiny_model("llama"))
    case.load(save_adapter(tmp_path, target_modules="all-linear"))
    with torch.no_grad():
        assert torch.equal(case.model(ids()).logits, plain(ids()).logits)


def test_base_rows_of_a_mixed_batch_are_left_bit_for_bit(tmp_path: Path) -> None:
    case = wrapped(tiny_model("llama"))
    version = case.load(save_adapter(tmp_path, target_modules="all-linear"))
    both = torch.cat([ids(), ids()])
    with torch.no_grad():
        plain = case.model(both).logits
        case.context.batch = build_batch(case.pool, [(None, 7), (version, 7)])
        mixed = case.model(both).logits
    assert torch.equal(mixed[0], plain[0])
    assert not torch.allclose(mixed[1], plain[1], atol=0.1)


def test_a_batch_of_another_size_is_an_error(tmp_path: Path) -> None:
    case = wrapped(tiny_model("llama"))
    version = case.load(save_adapter(tmp_path, target_modules=["q_proj"]))
    case.context.batch = build_batch(case.pool, [(version, 5)])
    with pytest.raises(RuntimeError, match="7 rows in a batch of 5 tokens"):
        case.model(ids(7))


@pytest.mark.parametrize("model_type", ["llama", "gpt_neox", "mixtral", "gpt2", "opt", "phi3"])
def test_served_models_call_each_linear_once(model_type: str) -> None:
    case = wrapped(tiny_model(model_type))
    with torch.no_grad():
        assert modules_not_called_once(case.pool, case.context, lambda: case.model(ids())) == []
    assert case.context.batch is None


def test_a_linear_whose_weight_is_used_without_a_call_is_found() -> None:
    model = tiny_model("llama")
    mlp = model.get_submodule("model.layers.1.mlp")
    assert isinstance(mlp, nn.Module)
    mlp.forward = lambda x: mlp.up_proj(x)[..., :64] + F.linear(x, mlp.gate_proj.weight)[..., :64]
    case = wrapped(model)
    with torch.no_grad():
        missed = modules_not_called_once(case.pool, case.context, lambda: case.model(ids()))
    assert missed == ["model.layers.1.mlp.gate_proj", "model.layers.1.mlp.down_proj"]
