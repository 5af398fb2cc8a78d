"""What else of an adapter's folder shapes its answers: chat template, end tokens, sampling."""

import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from shared.errors import AdapterRejected
from worker.lora.checkpoint.json_file import json_object

TEMPLATE = "chat_template.jinja"
TOKENIZER = "tokenizer_config.json"
GENERATION = "generation_config.json"

_SPECIAL_TOKENS = ("bos_token", "eos_token", "unk_token", "pad_token", "sep_token")
_BOUNDS = {
    "temperature": (0.0, math.inf),
    "top_p": (math.ulp(0.0), 1.0),
    "top_k": (0, math.inf),
    "min_p": (0.0, 1.0),
    "repetition_penalty": (1e-3, math.inf),
}
"""The fields of generation_config.json that stand in for what a request leaves out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompting:
    """How prompts of one adapter are made and how its answers are drawn, as far as it says."""

    templates: Mapping[str, str] = field(default_factory=dict)
    """Chat templates: `default`, and perhaps `tool_use`; empty means the base's."""
    special_tokens: Mapping[str, str] = field(default_factory=dict)
    """As templates name them: `bos_token`, ..."""
    token_ids: Mapping[str, int] = field(default_factory=dict)
    """Of added tokens that the templates mention."""
    eos_ids: tuple[int, ...] = ()
    """Tokens that end an answer, besides the base's."""
    sampling: Mapping[str, float] = field(default_factory=dict)
    """Values of sampling fields that a request leaves out."""
    unused: tuple[str, ...] = ()
    """Files that aren't used."""


def read_prompting(files: Mapping[str, bytes]) -> Prompting:
    """What an adapter's `files` say, by name.

    Raises:
        AdapterRejected: one of them makes no sense; names the file and the field.
    """
    tokenizer, generation = _object(files, TOKENIZER), _object(files, GENERATION)
    templates = _templates(files, tokenizer)
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
    return json_object(files[name], name)


def _templates(files: Mapping[str, bytes], tokenizer: Mapping[str, Any]) -> dict[str, str]:
    """As transformers reads them: the file first, then the tokenizer's field."""
    if TEMPLATE in files:
        try:
            return {"default": files[TEMPLATE].decode()}
        except UnicodeDecodeError as error:
            raise AdapterRejected(f"{TEMPLATE} isn't UTF-8: {error}") from None
    given = tokenizer.get("chat_template")
    if given is None:
        return {}
    named = given if isinstance(given, list) else [{"name": "default", "template": given}]
    try:
        templates = {entry["name"]: entry["template"] for entry in named}
        is_sane = all(isinstance(text, str) for text in templates.values())
    except (TypeError, KeyError):
        is_sane = False
    if not is_sane or "default" not in templates:
        raise AdapterRejected(f"{TOKENIZER}: chat_template is neither a text nor a list of them")
    return {name: templates[name] for name in ("default", "tool_use") if name in templates}


def _special_tokens(tokenizer: Mapping[str, Any]) -> dict[str, str]:
    found = {}
    for name in _SPECIAL_TOKENS:
        value = tokenizer.get(name)
        text = value.get("content") if isinstance(value, dict) else value
        if isinstance(text, str):
            found[name] = text
    return found


def _token_ids(tokenizer: Mapping[str, Any], templates: Mapping[str, str]) -> dict[str, int]:
    added = tokenizer.get("added_tokens_decoder") or {}
    try:
        ids = {entry["content"]: int(number) for number, entry in added.items()}
        is_sane = all(isinstance(token, str) for token in ids)
    except (AttributeError, KeyError, TypeError, ValueError):
        is_sane = False
    if not is_sane:
        raise AdapterRejected(f"{TOKENIZER}: added_tokens_decoder makes no sense")
    return {
        token: number
        for token, number in ids.items()
        if token and any(token in template for template in templates.values())
    }


def _eos_ids(generation: Mapping[str, Any]) -> tuple[int, ...]:
    value = generation.get("eos_token_id")
    ids = value if isinstance(value, list) else [] if value is None else [value]
    if not all(type(i) is int and i >= 0 for i in ids):
        raise AdapterRejected(f"{GENERATION}: eos_token_id={value!r} is no token id")
    return tuple(ids)


def _sampling(generation: Mapping[str, Any]) -> dict[str, float]:
    found: dict[str, float] = {}
    for name, (least, most) in _BOUNDS.items():
        value = generation.get(name)
        if value is None:
            continue
        is_number = type(value) is int or (type(value) is float and name != "top_k")
        # Comparisons, as math.isfinite raises for whole numbers that no float can hold.
        if not is_number or not least <= value <= min(most, sys.float_info.max):
            raise AdapterRejected(f"{GENERATION}: {name}={value!r} isn't served")
        found[name] = value
    if generation.get("do_sample") is False:
        found["temperature"] = 0.0
    return found
