"""A decoder layer that one native call computes."""

from typing import Any

from torch import Tensor, nn

from worker.kernels.cpu.layer import HeadParams, NativeLayer, PackedLinear
from worker.kernels.cpu.native import NativeKernels
from worker.lora.base.linear import NativePacked
from worker.lora.layers import ServedLinear, Siblings
from worker.model.attention import current_step
from worker.model.fused import FusedAttention, FusedGatedMLP, FusedRMSNorm


class FusedLayer(nn.Module):
    """Decoder layer: norm, attention, norm and gated MLP, with two residual connections."""

    def __init__(
        self, original: Any, kernels: NativeKernels, siblings: list[Siblings], layer: NativeLayer
    ) -> None:
        """Create a replacement for the layer `original`, whose modules must already be fused.

        Args:
            original: the layer. Its modules keep their names.
            kernels: the native kernels.
            siblings: the siblings that compute q/k/v, o, gate/up and down, in this order.
            layer: the layer's parameters for the native call.
        """
        super().__init__()
        self.input_layernorm = original.input_layernorm
        self.self_attn = original.self_attn
        self.post_attention_layernorm = original.post_attention_layernorm
        self.mlp = original.mlp
        self.forward_by_modules = original.forward
        self._kernels = kernels
        self._siblings = siblings
        self._layer = layer

    def forward(
        self, hidden_states: Tensor, *, position_embeddings: tuple[Tensor, Tensor], **kwargs: Any
    ) -> Tensor:
        """Map `[1, T, hidden]` to the same shape.

        The T tokens must be those of the current attention step.
        """
        if self._siblings[0].has_side_weights:  # side weights may also change the norms
            out: Tensor = self.forward_by_modules(
                hidden_states, position_embeddings=position_embeddings, **kwargs
            )
            return out
        step = current_step()
        cosine, sine = position_embeddings
        num_tokens = hidden_states.shape[1]
        return self._kernels.decoder_layer(
            self._layer,
            hidden_states.contiguous(),
            (cosine.contiguous(), sine.contiguous()),
            step.cache.layer(self.self_attn.layer_idx),
            step.batch,
            [siblings.lora(num_tokens) for siblings in self._siblings],
        )


def fused_layer(layer: Any, kernels: NativeKernels) -> FusedLayer | None:
    """Return a replacement for a decoder layer, or None if a part of the layer isn't fused."""
    attention, mlp = layer.self_attn, layer.mlp
    norms = [layer.input_layernorm, layer.post_attention_layernorm]
    if not (isinstance(attention, FusedAttention) and isinstance(mlp, FusedGatedMLP)):
        return None
    if not all(isinstance(norm, FusedRMSNorm) for norm in norms):
        return None
    siblings = [attention.siblings, _single(attention.o_proj), mlp.siblings, _single(mlp.down_proj)]
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


def _single(linear: nn.Module) -> Siblings | None:
    """Return the `Siblings` of a served linear that has no other linear in its group.

    Return None for any other module.
    """
    if not isinstance(linear, ServedLinear) or len(linear.siblings.names) > 1:
        return None
    return linear.siblings


def _packed(siblings: Siblings) -> PackedLinear | None:
    base = siblings.base
    if not isinstance(base, NativePacked):
        return None
    sizes = (sum(base.out_features), base.in_features)
    return PackedLinear(base.weight, base.bias, *sizes, base.is_int8)
