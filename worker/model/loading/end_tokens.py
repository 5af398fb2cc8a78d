"""Collects the tokens that end a base model's answers."""

from typing import Any


def end_token_ids(config: Any, generation: Any, tokenizer: Any) -> frozenset[int]:
    """Return the ids of the tokens that end an answer.

    `config` is the configuration of the model's text part, and `generation` is a `GenerationConfig`
    or None. The result includes tokens that, according to the tokenizer, end a turn or a message.
    """
    values = [getattr(source, "eos_token_id", None) for source in (config, generation, tokenizer)]
    values += [getattr(tokenizer, name, None) for name in ("eot_token_id", "eom_token_id")]
    ids: set[int] = set()
    for value in values:
        ids.update(value if isinstance(value, list) else [] if value is None else [value])
    return frozenset(ids)
