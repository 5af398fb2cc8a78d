"""A whole decoder layer in one native call."""

from typing import Any

from torch import Tensor, nn

from worker.kernels.cpu.layer import HeadParams, NativeLayer, PackedLinear
from worker.kernels.cpu.native import NativeKernels
from worker.lora.base.linear import NativePacked
from worker.lora.layers import ServedLinear, Siblings
from worker.model.attention import current_step
from worker.model.fused import FusedAttention, FusedGatedMLP, FusedRMSNorm


class FusedLayer(nn.Module):
    """Norm and attention, norm and gated MLP, each added to its input."""

    def __init__(
        self, original: Any, kernels: NativeKernels, siblings: list[Siblings], layer: NativeLayer
    ) -> None:
        """Take the place of `original`, whose modules are fused.

        Args:
            original: its modules keep their names.
            kernels: what computes it.
            siblings: of q/k/v, o, gate/up and down.
            layer: its parameters.
        """
        super().__init__()
        self.input_layernorm = original.input_layernorm
        self.self_attn = original.self_attn
        self.post_attention_layernorm = original.post_attention_layernorm
        self.mlp = original.mlp
        self.by_modules = original.forward
        self._kernels = kernels
        self._siblings = siblings
        self._layer = layer

    def forward(
        self, hidden_states: Tensor, *, position_embeddings: tuple[Tensor, Tensor], **kwargs: Any
    ) -> Tensor:
        """`[1, T, hidden]` to the same; the tokens are those of the current attention step."""
        if self._siblings[0].is_changed:  # its norms, too, may have to be called
            out: Tensor = self.by_modules(
                hidden_states, position_embeddings=position_embeddings, **kwargs
            )
            return out
        step = current_step()
        x = hidden_states[0].contiguous()
        cosine, sine = position_embeddings
        y = self._kernels.decoder_layer(
            self._layer,
            x,
            (cosine[0].contiguous(), sine[0].contiguous()),
            step.cache.layer(self.self_attn.layer_idx),
            step.batch,
            [siblings.lora(len(x)) for siblings in self._siblings],
        )
        return y[None]


def fused_layer(layer: Any, kernels: NativeKernels) -> FusedLayer | None:
    """What may take the place of a decoder layer; None if not all of its parts are native."""
    attention, mlp = layer.self_attn, layer.mlp
    norms = [layer.input_layernorm, layer.post_attention_layernorm]
    if not (isinstance(attention, FusedAttention) and isinstance(mlp, FusedGatedMLP)):
        return None
    if not all(isinstance(norm, FusedRMSNorm) for norm in norms):
        return None
    siblings = [attention.siblings, _of(attention.o_proj), mlp.siblings, _of(mlp.down_proj)]
    linears = [_packed(one) for one in siblings if one is not None]
    packed = [linear for linear in linears if linear is not None]
    if len(packed) < len(siblings):
        return None
    heads = HeadParams(
        num_heads=attention.num_heads[0],
        num_kv_heads=attention.num_heads[1],
        head_dim=attention.head_dim,
        sliding_window=attention.params.sliding_window,
        scaling=attention.params.scaling,
        softcap=attention.params.softcap,
    )
    native = NativeLayer([norm.params for norm in norms], packed, heads)
    return FusedLayer(layer, kernels, [one for one in siblings if one is not None], native)


def _of(linear: nn.Module) -> Siblings | None:
    """The siblings of a linear that has none but itself."""
    if not isinstance(linear, ServedLinear) or len(linear.siblings.names) > 1:
        return None
    return linear.siblings


def _packed(siblings: Siblings) -> PackedLinear | None:
    base = siblings.base
    if not isinstance(base, NativePacked):
        return None
    return PackedLinear(base.weight, base.bias, sum(base.out_features), base.in_features)
