"""Translates the options of Ollama's requests into fields of OpenAI's requests. Pure."""

from collections.abc import Iterator
from typing import Any

from api.requests.unsupported_fields import NeutralValues
from api.schema.ollama import OllamaOptions

UNSUPPORTED: NeutralValues = {"typical_p": (1, 0)}
"""Options that aren't supported."""
SAME = ("temperature", "top_k", "top_p", "min_p", "presence_penalty", "frequency_penalty")
"""Options that have the same name in OpenAI's requests."""
_UNUSED = (
    *("num_ctx", "num_batch", "num_gpu", "num_keep", "num_thread", "main_gpu", "use_mmap"),
    *("draft_num_predict", "embedding_only", "f16_kv", "logits_all", "low_vram", "numa"),
    *("mirostat_eta", "mirostat_tau", "penalize_newline", "use_mlock", "vocab_only"),
)
"""Options that have no effect in Lorikeet. Ollama itself now ignores many of them."""
_UNUSED_UNLESS: NeutralValues = {"mirostat": (0,), "tfs_z": (1, 0), "repeat_last_n": (-1, 0)}
"""Further options that have no effect. For each, the values for which no warning is sent."""


def sampling_fields(options: OllamaOptions | None, max_tokens: str) -> dict[str, Any]:
    """Return the fields of an OpenAI request that have the effect of `options`.

    `max_tokens` is the name of the field that limits the answer.
    """
    if options is None:
        return {}
    limit = options.num_predict
    return {
        **{name: getattr(options, name) for name in SAME},
        "repetition_penalty": _repetition_penalty(options),
        "seed": None if options.seed == -1 else options.seed,
        "stop": options.stop,
        max_tokens: limit if limit and limit > 0 else None,
    }


def unused_options(options: OllamaOptions | None) -> Iterator[str]:
    """Yield the paths of the known options that have no effect."""
    for name in (*_UNUSED, *_UNUSED_UNLESS):
        value = getattr(options, name, None)
        if value is not None and value not in _UNUSED_UNLESS.get(name, ()):
            yield f"options.{name}"


def _repetition_penalty(options: OllamaOptions) -> float | None:
    """Return the penalty, or None if it is switched off. Clients without this setting send 0."""
    is_off = options.repeat_last_n == 0 or options.repeat_penalty == 0
    return None if is_off else options.repeat_penalty
