"""Modules that replace many small operations of transformers with a few native ones."""

from typing import Any

import torch
from torch import Tensor, nn

from worker.kernels.cpu.layer import NormParams
from worker.kernels.cpu.native import NativeKernels
from worker.kernels.interface import AttentionParams
from worker.lora.layers import Siblings
from worker.model.attention import store_and_attend


class FusedRMSNorm(nn.Module):
    """Root-mean-square norm, computed in one pass."""

    def __init__(self, original: Any, kernels: NativeKernels, params: NormParams) -> None:
        super().__init__()
        self.weight = original.weight
        self.params = params
        self._kernels = kernels

    def forward(self, x: Tensor) -> Tensor:
        """Normalise `x`, `[..., dim]`, along its last dimension. The result has the same shape."""
        norm = self.params
        return self._kernels.rms_norm(
            x, self.weight, norm.epsilon, offset=norm.offset, round_first=norm.round_first
        )


class FusedGatedMLP(nn.Module):
    """Gated MLP `down(silu(gate(x)) * up(x))`. One product computes gate and up."""

    def __init__(self, original: Any, kernels: NativeKernels, siblings: Siblings) -> None:
        super().__init__()
        self.gate_proj = original.gate_proj
        self.up_proj = original.up_proj
        self.down_proj = original.down_proj
        self.siblings = siblings
        self._kernels = kernels

    def forward(self, x: Tensor) -> Tensor:
        """Apply the MLP to `x`, `[..., hidden]`. The result has the same shape."""
        gate, up = self.siblings.joint_output(x).chunk(2, dim=-1)
        hidden = self._kernels.silu_mul(gate.flatten(0, -2), up.flatten(0, -2))
        out: Tensor = self.down_proj(hidden.view(*x.shape[:-1], -1))
        return out


class FusedAttention(nn.Module):
    """Attention with rotary position encoding, as in Llama."""

    def __init__(
        self,
        original: Any,
        kernels: NativeKernels,
        siblings: Siblings,
        params: AttentionParams,
        head_dim: int,
    ) -> None:
        super().__init__()
        self.q_proj = original.q_proj
        self.k_proj = original.k_proj
        self.v_proj = original.v_proj
        self.o_proj = original.o_proj
        self.layer_idx = original.layer_idx
        self.siblings = siblings
        self.params = params
        self.head_dim = head_dim
        self.num_heads = [size // head_dim for size in siblings.sizes]
        self._kernels = kernels

    def forward(
        self, hidden_states: Tensor, *, position_embeddings: tuple[Tensor, Tensor], **_: Any
    ) -> tuple[Tensor, None]:
        """Apply attention to the hidden states `[1, T, hidden]` of the current step's tokens."""
        rows = self.siblings.joint_output(hidden_states)[0]
        heads = rows.view(len(rows), -1, self.head_dim)
        rotated = heads[:, : self.num_heads[0] + self.num_heads[1]]
        cosine, sine = position_embeddings
        self._kernels.rope_(rotated, cosine[0], sine[0])
        query, key, value = torch.split(heads, self.num_heads, dim=1)
        out = store_and_attend(self.layer_idx, query, key, value, self.params)
        projected: Tensor = self.o_proj(out.view(1, len(rows), -1))
        return projected, None
