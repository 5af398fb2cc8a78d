"""The request field `chat_template_kwargs`: further variables of the chat template."""

from typing import Annotated, Any, Literal

import orjson
from pydantic import AfterValidator

MAX_KWARGS_BYTES = 64 << 10
MAX_KWARGS_DEPTH = 16
RESERVED = frozenset(
    (
        *("messages", "conversation", "conversations", "tools", "self"),
        *("chat_template", "add_generation_prompt", "continue_final_message"),
        *("tokenize", "tokenizer_kwargs", "sanitize_control_tokens"),
        *("padding", "truncation", "max_length"),
        *("return_tensors", "return_dict", "return_assistant_tokens_mask"),
    )
)
"""Names that aren't variables of the template: parameters of transformers, and other fields."""
ReasoningEffort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]


def is_deep(value: Any, max_depth: int) -> bool:
    """Return whether lists and objects in `value` are nested more than `max_depth` levels deep."""
    if not isinstance(value, dict | list):
        return False
    children = value.values() if isinstance(value, dict) else value
    return max_depth == 0 or any(is_deep(child, max_depth - 1) for child in children)


def check_kwargs(kwargs: dict[str, Any]) -> dict[str, Any]:
    """Check variables of the chat template, and return them unchanged.

    Raises:
        ValueError: a name is reserved, or the variables are too large or nested too deeply.
    """
    if reserved := RESERVED & kwargs.keys():
        raise ValueError(f"can't set {min(reserved)!r}, which isn't a variable of the template")
    if len(orjson.dumps(kwargs)) > MAX_KWARGS_BYTES:
        raise ValueError(f"can have at most {MAX_KWARGS_BYTES} bytes as JSON")
    if is_deep(kwargs, MAX_KWARGS_DEPTH):
        raise ValueError(f"can't be nested in more than {MAX_KWARGS_DEPTH} levels")
    return kwargs


TemplateKwargs = Annotated[dict[str, Any], AfterValidator(check_kwargs)]
