"""Names that other servers have for fields of chat and completion requests. Pure."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from shared.errors import JobFailed, invalid_param

ALIASES: Mapping[str, str] = {
    # llama.cpp and LM Studio
    "grammar": "guided_grammar",
    "json_schema": "guided_json",
    "n_predict": "max_tokens",
    "repeat_penalty": "repetition_penalty",
    # SGLang, LMDeploy and Mistral
    "ebnf": "guided_grammar",
    "max_new_tokens": "max_tokens",
    "min_new_tokens": "min_tokens",
    "random_seed": "seed",
    "regex": "guided_regex",
    "sampling_seed": "seed",
}
"""For each alias, the field that has the same effect."""
_NO_VALUE: Mapping[str, tuple[Any, ...]] = {
    "grammar": ("",),
    "max_tokens": (-1, -2),
    "n_predict": (-1, -2),
}
"""For some fields, the values that stand for a missing field. To llama.cpp, a negative number of
tokens means no limit, and Ollama's programs send -2 for the rest of the context."""


@contextmanager
def without_aliases(raw: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the request with the usual names. Errors in the `with` block name the sent field.

    Raises:
        JobFailed: the request has a field under two names.
    """
    body = {name: value for name, value in raw.items() if not _is_missing(name, value)}
    sent = dict[str, str]()
    for alias, name in ALIASES.items():
        if alias not in body:
            continue
        if body.get(name) is not None:
            raise invalid_param(alias, f"can't be combined with {sent.get(name, name)}")
        body[name], sent[name] = body.pop(alias), alias
    try:
        yield body
    except JobFailed as failure:
        error = failure.error
        field = (error.param or "").partition(".")[0].partition("[")[0]
        if field not in sent:
            raise
        param = (error.param or "").replace(field, sent[field], 1)
        message = error.message.replace(field, sent[field], 1)
        raise JobFailed(replace(error, message=message, param=param)) from None


def _is_missing(name: str, value: Any) -> bool:
    if name in ALIASES and value is None:
        return True
    return not isinstance(value, bool | float) and value in _NO_VALUE.get(name, ())
