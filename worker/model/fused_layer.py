"""Decoder layers, and stacks of decoder layers. One native call computes a layer or a stack."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from worker.kernels.cpu.layer import HeadParams, NativeLayer, NativeLayers, PackedLinear
from worker.kernels.cpu.native import NativeKernels
from worker.lora.base.linear import NativePacked
from worker.lora.layers import ServedLinear, Siblings
from worker.model.attention import current_step
from worker.model.fused import FusedAttention, FusedGatedMLP, FusedRMSNorm
from worker.upstream.outputs import BaseModelOutputWithPast


class FusedLayer(nn.Module):
    """Decoder layer: norm, attention, norm and gated MLP, with two residual connections."""

    def __init__(
        self, original: Any, kernels: NativeKernels, siblings: list[Siblings], layer: NativeLayer
    ) -> None:
        """Create a replacement for the layer `original`. Its modules must already be fused.

        `siblings` compute q/k/v, o, gate/up and down, in this order. The layer's modules have the
        same names as in `original`.
        """
        super().__init__()
        self.input_layernorm = original.input_layernorm
        self.self_attn = original.self_attn
        self.post_attention_layernorm = original.post_attention_layernorm
        self.mlp = original.mlp
        self.forward_by_modules = original.forward
        self.siblings = siblings
        self.native = layer
        self._alone = LayerRun([self], kernels)

    def forward(
        self, hidden_states: Tensor, *, position_embeddings: tuple[Tensor, Tensor], **kwargs: Any
    ) -> Tensor:
        """Run the layers on the hidden states `[1, T, hidden]` of the current step's tokens."""
        if self._alone.has_side_weights:  # they may also change the norms
            out: Tensor = self.forward_by_modules(
                hidden_states, position_embeddings=position_embeddings, **kwargs
            )
            return out
        return self._alone(hidden_states, position_embeddings)


class LayerRun:
    """Consecutive layers that one native call computes. Only for batches without side weights."""

    def __init__(self, layers: Sequence[FusedLayer], kernels: NativeKernels) -> None:
        self._kernels = kernels
        self._native = NativeLayers([layer.native for layer in layers])
        self._indices = [layer.self_attn.layer_idx for layer in layers]
        self._siblings = [one for layer in layers for one in layer.siblings]

    @property
    def has_side_weights(self) -> bool:
        """Whether an adapter in the current batch has side weights."""
        return self._siblings[0].has_side_weights

    def __call__(self, hidden: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
        """Run the layers on the hidden states `[1, T, hidden]` of the current step's tokens.

        `rotation` is the cosines and the sines for their positions, each `[1, T, head_dim]`.
        """
        step = current_step()
        cosine, sine = rotation
        num_tokens, has_adapters = hidden.shape[1], self._siblings[0].has_adapters
        lora = [siblings.lora(num_tokens) for siblings in self._siblings] if has_adapters else []
        return self._kernels.decoder_layers(
            self._native,
            hidden.contiguous(),
            (cosine.contiguous(), sine.contiguous()),
            [step.cache.layer(index) for index in self._indices],
            step.batch,
            lora,
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
    num_heads, num_kv_heads, _ = attention.num_heads
    heads = HeadParams(num_heads, num_kv_heads, attention.head_dim)
    native = NativeLayer([norm.params for norm in norms], packed, heads, attention.params)
    return FusedLayer(layer, kernels, [one for one in siblings if one is not None], native)


def _single(linear: nn.Module) -> Siblings | None:
    """Return the `Siblings` of a served linear without siblings; None for any other module."""
    if not isinstance(linear, ServedLinear) or len(linear.siblings.names) > 1:
        return None
    return linear.siblings


def _packed(siblings: Siblings) -> PackedLinear | None:
    base = siblings.base
    if not isinstance(base, NativePacked):
        return None
    sizes = (sum(base.out_features), base.in_features)
    return PackedLinear(base.weight, base.bias, *sizes, base.is_int8)


class FusedStack(nn.Module):
    """Embedding, decoder layers and final norm. Avoids transformers' overhead of 1 ms per step."""

    def __init__(self, original: Any, kernels: NativeKernels) -> None:
        """Create a replacement for `original`, a stack of `FusedLayer`s.

        The stack's modules have the same names as in `original`.
        """
        super().__init__()
        self.embed_tokens = original.embed_tokens
        self.layers = original.layers
        self.norm = original.norm
        self.rotary_emb = original.rotary_emb
        self.config = original.config
        self._run = LayerRun([*original.layers], kernels)

    def get_input_embeddings(self) -> nn.Module:
        """Return the embedding. Models that contain the stack call this method."""
        embedding: nn.Module = self.embed_tokens
        return embedding

    def forward(
        self,
        input_ids: Tensor | None = None,
        *,
        position_ids: Tensor,
        inputs_embeds: Tensor | None = None,
        **_: Any,
    ) -> BaseModelOutputWithPast:
        """Map token ids and positions, each `[1, T]`, to hidden states `[1, T, hidden]`.

        The embeddings of the ids, `[1, T, hidden]`, may take the place of the ids.
        """
        hidden = self.embed_tokens(input_ids) if inputs_embeds is None else inputs_embeds
        rotation = self.rotary_emb(hidden, position_ids=position_ids)
        return BaseModelOutputWithPast(
            last_hidden_state=self.norm(self.run_layers(hidden, rotation))
        )

    def run_layers(self, hidden: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
        """Map hidden states `[1, T, hidden]` to the last layer's output; see `LayerRun`."""
        if not self._run.has_side_weights:
            return self._run(hidden, rotation)
        for layer in self.layers:
            hidden = layer(hidden, position_embeddings=rotation, attention_mask=None)
        return hidden


def fused_stack(original: Any, kernels: NativeKernels) -> FusedStack | None:
    """Return a replacement for `original`, or None if one of its layers isn't fused."""
    if not all(isinstance(layer, FusedLayer) for layer in original.layers):
        return None
    return FusedStack(original, kernels)
