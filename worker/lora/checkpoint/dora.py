"""DoRA (Liu et al., arXiv:2402.09353): each row of a weight gets a trained length."""

import torch
from torch import Tensor

from worker.lora.base.base_weight import BaseWeight


@torch.no_grad()
def dora_scale(magnitude: Tensor, a: Tensor, b: Tensor, base: BaseWeight) -> Tensor:
    """`magnitude / ||W + B A||` for each row, in the dtype of the base's squares, on the CPU.

    The base's weight is never at hand as a whole: `||W + B A||^2 = ||W||^2 + 2 (W A^T) . B +
    B (A A^T) . B` row by row, where `W A^T` is what the base makes of the rows of A.

    Args:
        magnitude: `[out]`.
        a: `[r, in]`.
        b: `[out, r]`, scaled.
        base: of the linear.
    """
    device, dtype = base.squares.device, base.squares.dtype
    a = a.to(device)
    products = base.product(a).t().to(dtype)  # [out, r]
    a, b = a.to(dtype), b.to(device, dtype)
    lengths = (base.squares + ((2 * products + b @ (a @ a.t())) * b).sum(-1)).sqrt()
    return (magnitude.to(device, dtype) / lengths).cpu()
