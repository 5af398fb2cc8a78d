"""Finds out what a model keeps of each sequence between steps, by a trial run."""

from transformers import PreTrainedModel

from worker.model.attention import PAGED_ATTENTION, LayerProbe, probe_layers
from worker.model.cache_shape import CacheShape
from worker.model.kv_cache import KVShape
from worker.model.loading.refusals import attention_refusal, layers_refusal
from worker.model.recurrent import recording_states

_STATELESS = {"mlp", "moe"}
"""Entries of a configuration's `layer_types` for layers that keep nothing between steps."""
_NO_KV = KVShape(0, 0, 0)


def probe_cache(source: str, model: PreTrainedModel) -> tuple[LayerProbe, CacheShape]:
    """Let the model use paged attention. Return its attention layers, and what they keep.

    Raises:
        ModelRejected: a layer keeps something that isn't known here, or uses attention with a
            feature that isn't implemented.
    """
    model.set_attn_implementation(PAGED_ATTENTION)
    config = model.config.get_text_config()
    num_layers = int(config.num_hidden_layers)
    try:
        with recording_states(model) as states:
            probe = probe_layers(model)
    except NotImplementedError as error:
        raise attention_refusal(source, model, error) from None
    stateless = {
        layer
        for layer, kind in enumerate(getattr(config, "layer_types", None) or ())
        if kind in _STATELESS
    }
    known = probe.shapes.keys() | {key.layer for key in states} | stateless
    if probe.num_calls != len(probe.shapes) or known != set(range(num_layers)):
        raise layers_refusal(source, model, num_layers, probe.num_calls)
    kv = [probe.shapes.get(layer, _NO_KV) for layer in range(num_layers)]
    return probe, CacheShape(kv, model.dtype, states)
