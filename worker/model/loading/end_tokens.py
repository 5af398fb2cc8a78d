"""Collects the tokens that end a base model's answers."""

from typing import Any


def end_token_ids(config: Any, generation: Any, tokenizer: Any) -> frozenset[int]:
    """Return the ids of the tokens that end an answer.

    Args:
        config: the model's configuration of its text part.
        generation: the model's `GenerationConfig`, or None.
        tokenizer: the model's tokenizer.
    """
    ids: set[int] = set()
    for source in (config, generation, tokenizer):
        value = getattr(source, "eos_token_id", None)
        ids.update(value if isinstance(value, list) else [] if value is None else [value])
    return frozenset(ids)
