"""DoRA's scale, computed from packed weights."""

import pytest
import torch
from kernel_sets import SET_IDS, SETS, kernels_of
from torch import nn
from transformers.pytorch_utils import Conv1D

from worker.lora.base.base_weight import BaseWeight
from worker.lora.checkpoint.side_reader import dora_scale
from worker.lora.layers import Siblings

RANK, IN = 5, 96
TOLERANCE = {torch.float32: 1e-6, torch.bfloat16: 1e-3, torch.float16: 1e-3}


def expected(weight: torch.Tensor, magnitude: torch.Tensor, ab: list[torch.Tensor]) -> torch.Tensor:
    a, b = (part.double() for part in ab)
    return magnitude.double() / (weight.double() + b @ a).norm(dim=1)


@pytest.mark.parametrize(("name", "dtype"), SETS, ids=SET_IDS)
@torch.no_grad()
def test_magnitudes_are_divided_by_the_row_lengths_of_the_updated_weight(
    name: str, dtype: torch.dtype
) -> None:
    torch.manual_seed(0)
    linears = [nn.Linear(IN, out, bias=out != 7).to(dtype) for out in (40, 7, 16)]
    weights = [linear.weight.clone() for linear in linears]
    siblings = Siblings(["q", "k", "v"], linears, kernels_of(name, dtype))
    for index, weight in enumerate(weights):
        a = torch.randn(RANK, IN).to(dtype)
        b = (torch.randn(len(weight), RANK) * 0.02).to(dtype)
        magnitude = torch.rand(len(weight)) + 0.5
        base = siblings.weight(index)
        assert base is not None
        got = dora_scale(magnitude, a, b, base)
        assert got.dtype is torch.float32
        wanted = expected(weight, magnitude, [a, b])
        torch.testing.assert_close(got.double(), wanted, rtol=TOLERANCE[dtype], atol=0)


@torch.no_grad()
def test_a_conv1d_is_treated_as_a_linear() -> None:
    torch.manual_seed(0)
    conv = Conv1D(12, IN)
    siblings = Siblings(["c"], [conv], kernels_of("torch", torch.float32))
    a, b, magnitude = torch.randn(RANK, IN), torch.randn(12, RANK) * 0.1, torch.ones(12)
    base = siblings.weight(0)
    assert isinstance(base, BaseWeight)
    wanted = expected(conv.weight.t(), magnitude, [a, b])
    torch.testing.assert_close(
        dora_scale(magnitude, a, b, base).double(), wanted, rtol=1e-6, atol=0
    )


def test_a_quantised_linear_has_no_readable_weight() -> None:
    class Quantised(nn.Linear):
        pass

    siblings = Siblings(["q"], [Quantised(4, 4)], kernels_of("torch", torch.float32))
    assert siblings.weight(0) is None
