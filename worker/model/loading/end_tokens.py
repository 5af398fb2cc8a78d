"""Collects the tokens that end a base model's answers."""

from typing import Any


def end_token_ids(config: Any, generation: Any, tokenizer: Any) -> frozenset[int]:
    """Return the ids of the tokens that end an answer.

    `config` is that of the model's text part, and `generation` a `GenerationConfig` or None.
    """
    ids: set[int] = set()
    for source in (config, generation, tokenizer):
        value = getattr(source, "eos_token_id", None)
        ids.update(value if isinstance(value, list) else [] if value is None else [value])
    return frozenset(ids)
