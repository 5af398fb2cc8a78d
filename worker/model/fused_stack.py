"""The part of a model before its output head, without the overhead of transformers' own code.

That code builds masks that paged attention doesn't read, and calls each layer from Python. Without
it, a decode step of a small model takes about 1 ms less.
"""

from typing import Any

from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutputWithPast

from worker.kernels.cpu.native import NativeKernels
from worker.model.fused_layer import FusedLayer, LayerRun


class FusedStack(nn.Module):
    """Embedding, decoder layers and final norm."""

    def __init__(self, original: Any, kernels: NativeKernels) -> None:
        """Create a replacement for `original`, whose layers must be `FusedLayer` modules.

        Its modules keep their names.
        """
        super().__init__()
        self.embed_tokens = original.embed_tokens
        self.layers = original.layers
        self.norm = original.norm
        self.rotary_emb = original.rotary_emb
        self._run = LayerRun([*original.layers], kernels)

    def forward(
        self, input_ids: Tensor, *, position_ids: Tensor, **_: Any
    ) -> BaseModelOutputWithPast:
        """Map token ids and positions, each `[1, T]`, to hidden states `[1, T, hidden]`.

        The T tokens must be those of the current attention step.
        """
        hidden = self.embed_tokens(input_ids)
        rotation = self.rotary_emb(hidden, position_ids=position_ids)
        return BaseModelOutputWithPast(
            last_hidden_state=self.norm(self.run_layers(hidden, rotation))
        )

    def run_layers(self, hidden: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
        """Map hidden states `[1, T, hidden]` to those after the last layer; see `LayerRun`."""
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
