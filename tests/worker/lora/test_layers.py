"""Served linears: joint products of siblings, and rows of mixed batches."""

from pathlib import Path

import pytest
import torch
from kernel_sets import SET_IDS, SETS, kernels_of
from lora import wrap
from tiny import save_adapter, tiny_model
from torch import nn

from worker.kernels.reference import ReferenceKernels
from worker.lora.batch import build_batch
from worker.lora.layers import ServedLinear, Siblings

IDS = torch.arange(6, 13)[None]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_linear_of_the_base_is_served_with_its_attributes_and_no_other_module(
    dtype: torch.dtype,
) -> None:
    case = wrap(tiny_model("llama").to(dtype))
    found = {n for n, m in case.model.named_modules() if isinstance(m, ServedLinear)}
    assert found == set(case.base.linears)
    linear = case.model.get_submodule("model.layers.0.self_attn.k_proj")
    assert (linear.in_features, linear.out_features) == (64, 32)
    assert (linear.weight.shape, linear.weight.dtype) == ((32, 64), dtype)
    with pytest.raises(AttributeError, match="no_such_thing"):
        _ = linear.no_such_thing


@torch.no_grad()
def test_without_a_batch_logits_keep_the_bases_bits_and_a_batch_of_another_size_is_an_error(
    tmp_path: Path,
) -> None:
    case = wrap(tiny_model("llama"))
    version = case.load(save_adapter(tmp_path, target_modules="all-linear"))
    assert torch.equal(case.model(IDS).logits, tiny_model("llama")(IDS).logits)
    case.context.batch = build_batch(case.pool, [(version, 5)])
    with pytest.raises(RuntimeError, match="7 rows in a batch of 5 tokens"):
        case.model(IDS)


@pytest.mark.parametrize("biases", [(False, False, False), (True, True, True), (True, False, True)])
@pytest.mark.parametrize(("kernels", "dtype"), SETS, ids=SET_IDS)
@torch.no_grad()
def test_siblings_compute_the_outputs_of_their_linears(
    kernels: str, dtype: torch.dtype, biases: tuple[bool, ...]
) -> None:
    outs = (40, 7, 16)
    linears = [nn.Linear(61, o, b).to(dtype) for o, b in zip(outs, biases, strict=True)]
    x = torch.randn(2, 5, 61).to(dtype)
    expected = [linear(x) for linear in linears]
    siblings = Siblings(["q", "k", "v"], linears, kernels_of(kernels, dtype))
    for order in ([0, 1, 2], [2, 0, 1]):
        again = x.clone()  # a new tensor, so the outputs are computed again
        got = {index: siblings.output(index, again) for index in order}
        for index, want in enumerate(expected):
            tolerance = {"rtol": 2e-2, "atol": 2e-2} if dtype.itemsize == 2 else {}
            torch.testing.assert_close(got[index], want, **tolerance)


@torch.no_grad()
def test_outputs_are_those_of_an_input_that_is_new_or_was_changed_in_place() -> None:
    linears = [nn.Linear(8, 4), nn.Linear(8, 4)]
    siblings = Siblings(["q", "k"], linears, ReferenceKernels())
    siblings.output(0, torch.zeros(3, 8))  # this forward is interrupted
    x = torch.randn(3, 8)
    for _ in range(2):
        for index, linear in enumerate(linears):
            torch.testing.assert_close(siblings.output(index, x), linear(x))
        x.mul_(2)
