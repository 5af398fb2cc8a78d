"""What of a request is accepted and not used, as its client is told. Pure."""

from typing import Any

from api.schema.chat import ChatCompletionRequest
from api.schema.generation import GenerationRequest

WARNING_HEADER = "X-Lorikeet-Warning"
_IGNORED: dict[str, tuple[Any, ...]] = {
    "metadata": ({},),
    "prediction": (),
    "prompt_cache_key": (),
    "prompt_cache_options": (),
    "prompt_cache_retention": (),
    "safety_identifier": (),
    "service_tier": ("auto", "default"),
    "store": (False,),
    "user": (),
}
"""Field -> values beside null that ask for nothing. Clients send these whatever the server is."""


def warning(request: GenerationRequest) -> str | None:
    """The value of the warning header; None when all of the request is used."""
    names = [name for name, neutral in _IGNORED.items() if _is_asked(request, name, neutral)]
    if isinstance(request, ChatCompletionRequest):
        names += _strict_tools(request)
    return f"not used: {', '.join(names)}" if names else None


def _is_asked(request: GenerationRequest, name: str, neutral: tuple[Any, ...]) -> bool:
    value = getattr(request, name, None)
    return value is not None and value not in neutral


def _strict_tools(request: ChatCompletionRequest) -> list[str]:
    """Where `strict` is asked for, and the model is free to write other arguments."""
    is_free = request.tool_choice in (None, "auto")
    tools = request.tools or () if is_free else ()
    return [f"tools[{i}].function.strict" for i, tool in enumerate(tools) if tool.function.strict]
