"""Lists request fields that are accepted but ignored, and builds the warning header. Pure.

The module `unsupported_fields` lists the fields that are refused unless their value is neutral.
"""

from typing import Any

from api.schema.chat import ChatCompletionRequest
from api.schema.generation import GenerationRequest

_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "metadata": ({},),
    "prediction": (),
    "prompt_cache_key": (),
    "prompt_cache_options": (),
    "prompt_cache_retention": (),
    "safety_identifier": (),
    "store": (False,),
    "user": (),
}
"""For each ignored field, the values that don't cause a warning, in addition to null.

These fields are ignored rather than refused, because some clients send them to every server.
"""


def warning(request: GenerationRequest) -> str | None:
    """Return the value of the warning header, or None if no field is ignored."""
    names = [name for name, neutral in _NEUTRAL.items() if _is_ignored(request, name, neutral)]
    if isinstance(request, ChatCompletionRequest):
        names += _ignored_strict(request)
    return f"not used: {', '.join(names)}" if names else None


def _is_ignored(request: GenerationRequest, name: str, neutral: tuple[Any, ...]) -> bool:
    value = getattr(request, name, None)
    return value is not None and value not in neutral


def _ignored_strict(request: ChatCompletionRequest) -> list[str]:
    """Return the paths of the `strict` fields that are ignored.

    The server enforces the schema of a tool's arguments only if `tool_choice` requires a call.
    """
    tools = request.tools or () if request.tool_choice in (None, "auto") else ()
    return [f"tools[{i}].function.strict" for i, tool in enumerate(tools) if tool.function.strict]
