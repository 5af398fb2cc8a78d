"""Translates requests to /v1/responses into chat requests. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from api.http.validation import validate
from api.requests.unknown_fields import unknown_fields
from api.requests.unsupported_fields import NeutralValues, drop_unsupported
from api.requests.viewed import ViewedRequest
from api.responses.items import Item, chat_messages, checked_items
from api.responses.schema import ResponseRequest, TextFormat
from api.schema.tools import MAX_DEPTH, is_deep
from shared.errors import ErrorCode, JobError, JobFailed, invalid_param
from shared.protocol.jobs import View

LOGPROBS = "message.output_text.logprobs"
UNSUPPORTED: NeutralValues = {
    "background_options": ({},),
    "context_management": ([],),
    "conversation": (),
    "echo": (False,),
    "enable_response_messages": (False,),
    "image": (),
    "logprobs": (False,),
    "max_completion_tokens": (),
    "max_tokens": (),
    "messages": (),
    "moderation": (),
    "n": (1,),
    "previous_input_messages": ([],),
    "previous_response": (),
    "prompt": (),
    "response_format": (),
}
"""Fields that aren't supported, and fields of a chat request that have other names here."""
PASSED_ON = (
    *("model", "temperature", "top_p", "parallel_tool_calls", "stream", "background"),
    *("service_tier", "user", "safety_identifier", "prompt_cache_key"),
)
"""Fields that a chat request has as well."""
NAMES = {
    r"messages\b.*": "input",
    r"tools\[(\d+)\]\.function": r"tools[\1]",
    r"tool_choice\.function": "tool_choice",
    r"response_format\.json_schema": "text.format",
    r"response_format": "text.format",
    r"max_completion_tokens": "max_output_tokens",
    r"max_tokens": "max_output_tokens",
    r"reasoning_effort": "reasoning.effort",
}


def parse_response(raw: Mapping[str, Any]) -> ResponseRequest:
    """Validate the body of a request, except for what `viewed_response` validates.

    Raises:
        JobFailed: a field is invalid or unsupported. The error names the field.
    """
    request = validate(ResponseRequest, drop_unsupported(raw, UNSUPPORTED))
    if request.background and request.store is False:
        raise invalid_param("store", "can't be false with background: true")
    if is_deep(request.tool_choice):
        raise invalid_param("tool_choice", f"can't be nested in more than {MAX_DEPTH} levels")
    return request


def viewed_response(request: ResponseRequest, earlier: Sequence[Item]) -> ViewedRequest:
    """Return the request in the form of a chat request.

    `earlier` are the items of the conversation before the input.

    Raises:
        JobFailed: a field is invalid or unsupported. The error names the field.
    """
    items = [*earlier, *checked_items(request.input)]
    messages = chat_messages(items)
    if request.instructions:
        messages.insert(0, {"role": "system", "content": request.instructions})
    tools = [_function(tool, f"tools[{i}]") for i, tool in enumerate(request.tools or ())]
    chat = {
        **(request.model_extra or {}),
        **{name: getattr(request, name) for name in PASSED_ON},
        "messages": messages,
        "max_completion_tokens": request.max_output_tokens,
        "tools": [_chat_tool(tool) for tool in tools] or None,
        "tool_choice": _chat_tool_choice(request.tool_choice),
        "response_format": _response_format(_format(request)),
        **_logprobs(request),
    }
    if request.reasoning and request.reasoning.effort is not None:
        chat["reasoning_effort"] = request.reasoning.effort
    stored: dict[str, Any] = {"echo": _echo(request, tools)}
    if request.store is not False:
        stored["input"] = items
    ignored = tuple(_ignored(request))
    return ViewedRequest(
        chat=chat, view=View.RESPONSES, request=stored, names=NAMES, ignored=ignored
    )


def _ignored(request: ResponseRequest) -> Iterator[str]:
    """Yield the paths of fields that are accepted and have no effect, except those of `chat`."""
    if set(request.include or ()) - {LOGPROBS}:
        yield "include"
    if request.max_tool_calls is not None:
        yield "max_tool_calls"
    for name in ("summary", "generate_summary"):
        if getattr(request.reasoning, name, None) is not None:
            yield f"reasoning.{name}"
    if request.stream_options and request.stream_options.include_obfuscation:
        yield "stream_options.include_obfuscation"
    yield from (field.path for field in unknown_fields(request) if field.prefix)


def _function(tool: Mapping[str, Any], path: str) -> dict[str, Any]:
    """Return a tool without unknown fields."""
    kind = tool.get("type")
    if kind != "function":
        message = f"{path}.type: tools of type {kind!r:.60} aren't supported; send functions"
        code = ErrorCode.UNSUPPORTED_PARAMETER
        raise JobFailed(JobError(code=code, message=message, param=f"{path}.type"))
    names = ("name", "description", "parameters", "strict")
    return {"type": kind, **{name: tool[name] for name in names if name in tool}}


def _chat_tool(tool: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "function", "function": {k: v for k, v in tool.items() if k != "type"}}


def _chat_tool_choice(choice: Any) -> Any:
    match choice:
        case {"type": "function", "name": name}:
            return {"type": "function", "function": {"name": name}}
        case {"type": "allowed_tools", "mode": mode, "tools": list(tools)}:
            named = [_chat_tool_choice(tool) for tool in tools]
            return {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": named}}
        case {"type": str(kind)}:
            message = f"tool_choice: the type {kind[:60]!r} isn't supported"
            code = ErrorCode.UNSUPPORTED_PARAMETER
            raise JobFailed(JobError(code=code, message=message, param="tool_choice"))
    return choice


def _format(request: ResponseRequest) -> TextFormat:
    given = request.text.format if request.text else None
    return given or TextFormat.model_validate({})


def _response_format(given: TextFormat) -> dict[str, Any]:
    if given.type != "json_schema":
        return {"type": given.type}
    if given.schema_ is None:
        raise invalid_param("text.format.schema", "is required with the type json_schema")
    if is_deep(given.schema_):
        raise invalid_param(
            "text.format.schema", f"can't be nested in more than {MAX_DEPTH} levels"
        )
    named = {"name": given.name or "output", "schema": given.schema_}
    return {"type": "json_schema", "json_schema": named}


def _logprobs(request: ResponseRequest) -> dict[str, Any]:
    if LOGPROBS not in (request.include or ()) and not request.top_logprobs:
        return {}
    return {"logprobs": True, "top_logprobs": request.top_logprobs or 0}


def _echo(request: ResponseRequest, tools: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the fields of the request that response objects repeat, with their defaults."""
    reasoning = request.reasoning
    return {
        "background": bool(request.background),
        "instructions": request.instructions,
        "max_output_tokens": request.max_output_tokens,
        "metadata": request.metadata or {},
        "parallel_tool_calls": request.parallel_tool_calls is not False,
        "previous_response_id": request.previous_response_id,
        "reasoning": {"effort": reasoning.effort if reasoning else None, "summary": None},
        "store": request.store is not False,
        "temperature": _or(request.temperature, 1.0),
        "text": {"format": _echoed_format(_format(request)), "verbosity": "medium"},
        "tool_choice": "auto" if request.tool_choice is None else request.tool_choice,
        "tools": [{"description": None, "parameters": None, "strict": None, **t} for t in tools],
        "top_logprobs": request.top_logprobs or 0,
        "top_p": _or(request.top_p, 1.0),
        "truncation": "disabled",
        "user": request.user,
    }


def _echoed_format(given: TextFormat) -> dict[str, Any]:
    if given.type != "json_schema":
        return {"type": given.type}
    return {
        "type": given.type,
        "name": given.name or "output",
        "description": given.description,
        "schema": given.schema_,
        "strict": True,
    }


def _or(value: float | None, default: float) -> float:
    return default if value is None else value
