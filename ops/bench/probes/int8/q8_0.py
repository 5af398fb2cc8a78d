"""Rounds a model as llama.cpp's format Q8_0 does: int8 with a scale for each 32 numbers."""

import torch
import torch.nn.functional as F  # noqa: N812  (torch's own name for it)
from torch import Tensor, nn

GROUP = 32


def rounded(values: Tensor) -> Tensor:
    """Return float32 `values` after rounding to Q8_0, in groups along the last dimension.

    As in llama.cpp's `quantize_row_q8_0`, the largest magnitude of a group becomes 127, and scales
    are stored in float16.
    """
    width = values.shape[-1]
    padded = F.pad(values, (0, -width % GROUP))
    groups = padded.reshape(*padded.shape[:-1], -1, GROUP)
    scales = groups.abs().amax(-1, keepdim=True) / 127
    integers = torch.where(scales > 0, groups / scales, 0.0).round()
    return (integers * scales.half().float()).reshape(padded.shape)[..., :width]


@torch.no_grad()
def round_linears_(model: nn.Module, *, inputs: bool) -> None:
    """Round the weights of all linears of a float32 model, the output head included.

    With `inputs`, each linear rounds its inputs too, as llama.cpp does on a CPU.
    """
    for linear in [module for module in model.modules() if isinstance(module, nn.Linear)]:
        # A new parameter, because the head may share its weight with the embedding.
        linear.weight = nn.Parameter(rounded(linear.weight.data), requires_grad=False)
        if inputs:
            linear.register_forward_pre_hook(lambda _, args: (rounded(args[0]),))
