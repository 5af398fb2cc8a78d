"""Reads an adapter's chat templates, end tokens and sampling defaults. Pure."""

import math
import sys
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, field
from typing import Any

from shared.errors import AdapterRejected
from shared.json_budget import JsonBudget
from worker.lora.checkpoint.json_file import json_object

TEMPLATE = "chat_template.jinja"
TOKENIZER = "tokenizer_config.json"
GENERATION = "generation_config.json"

_MAX_NODES = 1 << 17
"""Maximum number of arrays, objects and strings in a file.

The file with Gemma's 6,000 added tokens has 56,000 of them."""
MAX_TEMPLATE_CHARS = 32_768
"""Maximum total number of characters of an adapter's chat templates."""
MAX_TOKEN_LENGTHS = 48
"""Maximum number of different lengths of added tokens.

Each length takes one pass over the templates."""

_SPECIAL_TOKENS = ("bos_token", "eos_token", "unk_token", "pad_token", "sep_token")
_BOUNDS = {
    "temperature": (0.0, math.inf, "a number of at least 0"),
    "top_p": (math.ulp(0.0), 1.0, "a number above 0 and at most 1"),
    "top_k": (0, math.inf, "an integer of at least 0"),
    "min_p": (0.0, 1.0, "a number from 0 to 1"),
    "repetition_penalty": (1e-3, math.inf, "a number of at least 0.001"),
}
"""Lowest and highest value of each field of generation_config.json that sets a default.

The names must also be fields of `SamplingParams`.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompting:
    """An adapter's own settings for rendering prompts and sampling tokens."""

    templates: Mapping[str, str] = field(default_factory=dict)
    """Chat templates by name (`default`, `tool_use`). If empty, the base's templates apply."""
    special_tokens: Mapping[str, str] = field(default_factory=dict)
    """Special tokens by their variable names in templates, such as `bos_token`."""
    token_ids: Mapping[str, int] = field(default_factory=dict)
    """Ids of the added tokens that occur in the templates, by token text."""
    eos_ids: tuple[int, ...] = ()
    """Ids of tokens that end an answer, in addition to the base model's end tokens."""
    sampling: Mapping[str, float] = field(default_factory=dict)
    """Defaults for sampling fields that a request doesn't set."""
    unused: tuple[str, ...] = ()
    """Names of prompt files that are ignored."""


def read_prompting(files: Mapping[str, bytes]) -> Prompting:
    """Parse an adapter's prompt files. `files` maps file names to contents.

    Raises:
        AdapterRejected: a file is malformed. The message names the file and the field.
    """
    tokenizer, generation = _object(files, TOKENIZER), _object(files, GENERATION)
    templates = _templates(files, tokenizer)
    if sum(map(len, templates.values())) > MAX_TEMPLATE_CHARS:
        raise AdapterRejected(f"its chat templates have more than {MAX_TEMPLATE_CHARS} characters")
    return Prompting(
        templates=templates,
        special_tokens=_special_tokens(tokenizer),
        token_ids=_token_ids(tokenizer, templates),
        eos_ids=_eos_ids(generation),
        sampling=_sampling(generation),
        unused=tuple(sorted(files.keys() - {TEMPLATE, TOKENIZER, GENERATION})),
    )


def _object(files: Mapping[str, bytes], name: str) -> dict[str, Any]:
    if name not in files:
        return {}
    return json_object(files[name], name, JsonBudget(_MAX_NODES))


def _templates(files: Mapping[str, bytes], tokenizer: Mapping[str, Any]) -> dict[str, str]:
    """Return the chat templates by name. A template file takes precedence, as in transformers."""
    if TEMPLATE in files:
        try:
            return {"default": files[TEMPLATE].decode()}
        except UnicodeDecodeError as error:
            raise AdapterRejected(f"{TEMPLATE} isn't UTF-8: {error}") from None
    field_value = tokenizer.get("chat_template")
    if field_value is None:
        return {}
    entries = (
        field_value
        if isinstance(field_value, list)
        else [{"name": "default", "template": field_value}]
    )
    try:
        templates = {entry["name"]: entry["template"] for entry in entries}
        is_valid = all(isinstance(text, str) for text in templates.values())
    except (TypeError, KeyError):
        is_valid = False
    if not is_valid or "default" not in templates:
        raise AdapterRejected(
            f"{TOKENIZER}: chat_template is neither a string nor a list of named templates with a "
            "'default'"
        )
    return {name: templates[name] for name in ("default", "tool_use") if name in templates}


def _special_tokens(tokenizer: Mapping[str, Any]) -> dict[str, str]:
    tokens = {}
    for name in _SPECIAL_TOKENS:
        value = tokenizer.get(name)
        text = value.get("content") if isinstance(value, dict) else value
        if isinstance(text, str):
            tokens[name] = text
    return tokens


def _token_ids(tokenizer: Mapping[str, Any], templates: Mapping[str, str]) -> dict[str, int]:
    """Return, by text, the ids of the adapter's added tokens that occur in its chat templates."""
    added = tokenizer.get("added_tokens_decoder") or {}
    try:
        ids = {entry["content"]: int(number) for number, entry in added.items()}
        is_valid = all(isinstance(token, str) for token in ids)
    except (AttributeError, KeyError, TypeError, ValueError):
        is_valid = False
    if not is_valid:
        raise AdapterRejected(
            f"{TOKENIZER}: added_tokens_decoder isn't an object of token ids and their 'content'"
        )
    return {token: ids[token] for token in sorted(_occurring(ids.keys(), templates.values()))}


def _occurring(tokens: Set[str], templates: Iterable[str]) -> set[str]:
    """Return the tokens that occur in any template. Takes linear time in the templates' length."""
    by_length: dict[int, set[str]] = {}
    for token in tokens - {""}:
        by_length.setdefault(len(token), set()).add(token)
    if len(by_length) > MAX_TOKEN_LENGTHS:
        raise AdapterRejected(
            f"{TOKENIZER}: added_tokens_decoder has tokens of more than {MAX_TOKEN_LENGTHS} "
            "different lengths"
        )
    return {
        token
        for template in templates
        for length, same in by_length.items()
        for token in same.intersection(
            template[start : start + length] for start in range(len(template) - length + 1)
        )
    }


def _eos_ids(generation: Mapping[str, Any]) -> tuple[int, ...]:
    value = generation.get("eos_token_id")
    ids = value if isinstance(value, list) else [] if value is None else [value]
    if not all(type(i) is int and i >= 0 for i in ids):
        raise AdapterRejected(
            f"{GENERATION}: eos_token_id={repr(value)[:80]} isn't a token id or a list of token ids"
        )
    return tuple(ids)


def _sampling(generation: Mapping[str, Any]) -> dict[str, float]:
    sampling: dict[str, float] = {}
    for name, (lowest, highest, expected) in _BOUNDS.items():
        value = generation.get(name)
        if value is None:
            continue
        is_number = type(value) is int or (type(value) is float and name != "top_k")
        # Compare, because math.isfinite raises for integers that no float can hold.
        if not is_number or not lowest <= value <= min(highest, sys.float_info.max):
            raise AdapterRejected(
                f"{GENERATION}: {name}={repr(value)[:80]} isn't supported: expected {expected}"
            )
        sampling[name] = value
    if generation.get("do_sample") is False:  # transformers then decodes greedily
        sampling["temperature"] = 0.0
    return sampling
