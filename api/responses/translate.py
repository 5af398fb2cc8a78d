"""Translates requests to /v1/responses into chat requests. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from api.http.validation import validate
from api.requests.object_kinds import Kinds, refuse
from api.requests.unsupported_fields import NeutralValues, drop_unsupported
from api.requests.viewed import (
    ViewedRequest,
    chat_extras,
    fields_of_answers,
    image_paths,
    unknown_in_view,
    unused_in_view,
)
from api.responses.echo import echoed_fields
from api.responses.items import IMAGE_PART, Item, chat_messages, checked_items
from api.responses.known_fields import ITEMS, TOOL_CHOICE, TOOLS
from api.responses.tools import Tool, checked_tools, functions_of, joined_name, namespaces_of
from api.schema.base import MAX_LISTED
from api.schema.responses import ResponsePrompt, ResponseRequest, TextFormat
from shared.errors import ErrorCode, failed, invalid_param
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
"""Fields that aren't supported, with their neutral values. Some are fields of a chat request that
have another name in this API."""
PASSED_ON = (
    *("model", "temperature", "top_p", "parallel_tool_calls", "stream", "background"),
    *("service_tier", "user", "safety_identifier", "prompt_cache_key"),
)
"""Fields that have the same name in a chat request."""
PROMPT_EXTRAS = (
    *("chat_template_kwargs", "enable_thinking", "reasoning_effort"),
    *("add_generation_prompt", "continue_final_message"),
)
"""Fields of a chat request that change a prompt."""
OF_ANSWERS = fields_of_answers(ResponseRequest, PROMPT_EXTRAS)
"""Fields that don't change the prompt of a request."""
OBJECTS: Mapping[str, Kinds] = {"input": ITEMS, "tools": TOOLS, "tool_choice": TOOL_CHOICE}
"""For each field that no pydantic class validates, the kinds of the objects in it."""
NAMES = {
    r"messages\b.*": "input",
    r"tools\[(\d+)\]\.function": r"tools[\1]",
    r"tool_choice\.function": "tool_choice",
    r"response_format(\.json_schema)?": "text.format",
    r"max_(completion_)?tokens": "max_output_tokens",
    r"reasoning_effort": "reasoning.effort",
}


def parse_response(raw: Mapping[str, Any]) -> ResponseRequest:
    """Validate the body of a request, except for fields that `viewed_response` validates.

    Raises:
        JobFailed: a field is invalid or unsupported. The error names the field.
    """
    request = validate(ResponseRequest, drop_unsupported(raw, UNSUPPORTED))
    if request.background and request.store is False:
        raise invalid_param("store", "can't be false with background: true")
    return request


def parse_prompt(raw: Mapping[str, Any]) -> ResponsePrompt:
    """Validate a request to count tokens, except for fields that `viewed_prompt` validates.

    Raises:
        JobFailed: a field is invalid or unsupported. The error names the field.
    """
    unsupported = {**UNSUPPORTED, "personality": ()}
    return validate(ResponsePrompt, drop_unsupported(raw, unsupported))


def viewed_response(request: ResponseRequest, earlier: Sequence[Item]) -> ViewedRequest:
    """Convert a request into the form of a chat request.

    `earlier` are the items of the conversation before the input.

    Raises:
        JobFailed: a field is invalid or unsupported. The error names the field.
    """
    items = _items(earlier, request.input)
    tools = checked_tools(request.tools or ())
    chat = {
        **chat_extras(request),
        **{name: getattr(request, name) for name in PASSED_ON},
        **_chat_prompt(request, items, tools),
        "max_completion_tokens": request.max_output_tokens,
        "response_format": _response_format(request.text_format),
        **_logprobs(request),
    }
    stored: dict[str, Any] = {"echo": echoed_fields(request, tools)}
    if request.store is not False:
        stored["input"] = items
    if namespaces := namespaces_of(tools):
        stored["namespaces"] = namespaces
    return ViewedRequest(
        body=chat,
        view=View.RESPONSES,
        request=stored,
        names=NAMES,
        images=tuple(image_paths(request.input, "input", IMAGE_PART)),
        ignored=(*_ignored_options(request), *_ignored_of_prompt(request)),
        unknown=tuple(unknown_in_view(request, ResponseRequest, UNSUPPORTED, OBJECTS)),
    )


def viewed_prompt(prompt: ResponsePrompt, earlier: Sequence[Item]) -> ViewedRequest:
    """Convert a request for the token count of a prompt into the form of a chat request.

    `earlier` are the items of the conversation before the input. If there are any, the input may be
    null.

    Raises:
        JobFailed: a field is invalid or unsupported. The error names the field.
    """
    is_continued = bool(earlier) and prompt.input is None
    items = list(earlier) if is_continued else _items(earlier, prompt.input)
    extras = chat_extras(prompt)
    return ViewedRequest(
        body={
            **{name: value for name, value in extras.items() if name not in OF_ANSWERS},
            **_chat_prompt(prompt, items, checked_tools(prompt.tools or ())),
        },
        view=View.RESPONSES,
        names=NAMES,
        images=tuple(image_paths(prompt.input, "input", IMAGE_PART)),
        ignored=(
            *(name for name in prompt.model_extra or () if name in OF_ANSWERS),
            *_ignored_of_answer(prompt),
            *_ignored_of_prompt(prompt),
        ),
        unknown=tuple(unknown_in_view(prompt, ResponseRequest, UNSUPPORTED, OBJECTS)),
    )


def _items(earlier: Sequence[Item], given: Any) -> list[Item]:
    """Return the `earlier` items of a conversation, followed by the items of the request."""
    items = [*earlier, *checked_items(given)]
    if len(items) > MAX_LISTED:
        refuse("input", f"makes a conversation of {len(items)} items; the limit is {MAX_LISTED}")
    return items


def _chat_prompt(
    request: ResponsePrompt, items: Sequence[Item], tools: Sequence[Tool]
) -> dict[str, Any]:
    """Return the fields of a chat request that determine its prompt and the use of tools."""
    messages = chat_messages(items)
    if request.instructions:
        messages.insert(0, {"role": "system", "content": request.instructions})
    chat: dict[str, Any] = {
        "model": request.model,
        "messages": messages,
        "tools": [_chat_tool(tool) for tool in functions_of(tools)] or None,
        "tool_choice": _chat_tool_choice(request.tool_choice),
    }
    if request.reasoning and request.reasoning.effort is not None:
        chat["reasoning_effort"] = request.reasoning.effort
    return chat


def _ignored_options(request: ResponseRequest) -> Iterator[str]:
    """Yield the paths of options that concern the answer, and that are accepted without effect."""
    if set(request.include or ()) - {LOGPROBS}:
        yield "include"
    for name in ("max_tool_calls", "access_programs"):
        if getattr(request, name) is not None:
            yield name
    if request.stream_options and request.stream_options.include_obfuscation:
        yield "stream_options.include_obfuscation"


def _ignored_of_answer(prompt: ResponsePrompt) -> Iterator[str]:
    """Yield the paths of fields that don't change the prompt whose tokens are counted."""
    if prompt.parallel_tool_calls is not None:
        yield "parallel_tool_calls"
    if prompt.text_format.type != "text":
        yield "text.format"


def _ignored_of_prompt(request: ResponsePrompt) -> Iterator[str]:
    """Yield the paths of fields that concern the prompt, and that are accepted without effect."""
    for name in ("summary", "generate_summary", "context", "mode"):
        if getattr(request.reasoning, name, None) is not None:
            yield f"reasoning.{name}"
    yield from unused_in_view(request, OBJECTS)


def _chat_tool(tool: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "function", "function": {k: v for k, v in tool.items() if k != "type"}}


def _chat_tool_choice(choice: Any) -> Any:
    match choice:
        case {"type": "function", "namespace": str(namespace), "name": str(name)}:
            return _chat_tool_choice({"type": "function", "name": joined_name(namespace, name)})
        case {"type": "function", "name": name}:
            return {"type": "function", "function": {"name": name}}
        case {"type": "allowed_tools", "mode": mode, "tools": list(tools)}:
            named = [_chat_tool_choice(tool) for tool in tools]
            return {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": named}}
        case {"type": str(kind)}:
            message = f"tool_choice: the type {kind[:60]!r} isn't supported"
            raise failed(ErrorCode.UNSUPPORTED_PARAMETER, message, "tool_choice")
    return choice


def _response_format(given: TextFormat) -> dict[str, Any]:
    if given.type != "json_schema":
        return {"type": given.type}
    if given.schema_ is None:
        raise invalid_param("text.format.schema", "is required with the type json_schema")
    named = {"name": given.name or "output", "schema": given.schema_}
    return {"type": "json_schema", "json_schema": named}


def _logprobs(request: ResponseRequest) -> dict[str, Any]:
    if LOGPROBS not in (request.include or ()) and not request.top_logprobs:
        return {}
    return {"logprobs": True, "top_logprobs": request.top_logprobs or 0}
