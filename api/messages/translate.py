"""Translates requests to /v1/messages into chat requests. Pure."""

from collections.abc import Iterator, Mapping
from typing import Any

from api.adapters.candidate_key import USER_ID
from api.http.validation import validate
from api.messages.conversation import chat_messages, chat_tools, left_out_blocks
from api.messages.known_fields import MESSAGES, TEXTS, TOOLS
from api.requests.object_kinds import Kinds
from api.requests.template_options import thinking_switch
from api.requests.unknown_fields import UnknownField
from api.requests.unsupported_fields import NeutralValues, drop_unsupported
from api.requests.viewed import (
    ViewedRequest,
    chat_extras,
    fields_of_answers,
    image_paths,
    unknown_in_view,
    unused_in_view,
)
from api.schema.anthropic import MessageRequest, MessageToolChoice, PromptRequest
from shared.errors import invalid_param
from shared.protocol.jobs import View

UNSUPPORTED: NeutralValues = {
    "container": (),
    "echo": (False,),
    "enable_thinking": (),
    "include_stop_str_in_output": (False,),
    "logprobs": (False,),
    "max_completion_tokens": (),
    "mcp_servers": ([],),
    "n": (1,),
    "response_format": (),
    "return_token_ids": (False,),
    "stop": (),
    "thread": (),
    "top_logprobs": (),
}
"""Fields that aren't supported, with their neutral values. Some are fields of a chat request that
have another name in this API."""
TOLERATED = (
    "anthropic_beta",
    "betas",
    "billing_policy",
    "compaction",
    "context_management",
    "diagnostics",
    "fallback_credit_token",
    "fallbacks",
    "inference_geo",
    "speed",
    "user_profile_id",
    "workspace_id",
)
"""Fields of Anthropic's API that are accepted and have no effect."""
IGNORED = ("cache_control", "service_tier")
"""Fields of Anthropic's API that are validated and have no effect."""
PROMPT_EXTRAS = ("chat_template_kwargs", "include_reasoning")
"""Fields of a chat request that change the prompt or control the reasoning."""
OF_ANSWERS = fields_of_answers(MessageRequest, PROMPT_EXTRAS)
"""Fields that don't change the prompt of a request."""
OBJECTS: Mapping[str, Kinds] = {"system": TEXTS, "messages": MESSAGES, "tools": TOOLS}
"""For each field that no pydantic class validates, the kinds of the objects in it."""
PASSED_ON = ("temperature", "top_p", "top_k", "stream", "background", "metadata")
"""Fields that have the same name in a chat request."""
NAMES = {
    r"messages\[\d+\]\.content\[\d+\]\.image_url.*": "messages",  # other messages may precede
    r"tools\[(\d+)\]\.function\.parameters": r"tools[\1].input_schema",
    r"tools\[(\d+)\]\.function": r"tools[\1]",
    r"tool_choice\.function": "tool_choice",
    r"response_format(\.json_schema)?": "output_config.format",
    r"max_completion_tokens": "max_tokens",
    r"stop\b": "stop_sequences",
    r"reasoning_effort": "output_config.effort",
}
_MODES = {"auto": "auto", "any": "required", "none": "none"}


def viewed_message(raw: Mapping[str, Any]) -> ViewedRequest:
    """Convert a request into the form of a chat request.

    Raises:
        JobFailed: a field is invalid or unsupported. The error names the field.
    """
    known = {name: value for name, value in raw.items() if name not in TOLERATED}
    request = validate(MessageRequest, drop_unsupported(known, UNSUPPORTED))
    chat = {
        **chat_extras(request),
        **chat_prompt(request),
        **{name: getattr(request, name) for name in PASSED_ON},
        "max_completion_tokens": request.max_tokens,
    }
    unused = ["metadata"] if (request.metadata or {}).keys() - {USER_ID} else []
    if request.metadata is not None:
        chat["metadata"] = {}  # its values may have types that chat requests refuse
    stops = request.stop_sequences or []
    if stops:
        # The output keeps the stop sequence that ended it. Rendering reports and removes it.
        chat |= {"stop": stops, "include_stop_str_in_output": True}
    return ViewedRequest(
        body=chat,
        view=View.MESSAGES,
        request={"stop_sequences": stops},
        names=NAMES,
        images=tuple(image_paths(raw.get("messages"), "messages", "image")),
        ignored=(*_ignored(raw, request), *unused),
        unknown=tuple(_unknown(request)),
    )


def viewed_prompt(raw: Mapping[str, Any]) -> ViewedRequest:
    """Convert a request for the token count of a prompt into the form of a chat request.

    Raises:
        JobFailed: a field is invalid or unsupported. The error names the field.
    """
    known = {name: value for name, value in raw.items() if name not in TOLERATED}
    request = validate(PromptRequest, drop_unsupported(known, UNSUPPORTED))
    extras = chat_extras(request)
    ignored = [name for name in request.model_extra or () if name in OF_ANSWERS - {*IGNORED}]
    if request.output_config and request.output_config.format:
        ignored.append("output_config.format")  # formats don't change the prompt
    return ViewedRequest(
        body={
            **{name: value for name, value in extras.items() if name not in OF_ANSWERS},
            **chat_prompt(request),
        },
        view=View.MESSAGES,
        names=NAMES,
        images=tuple(image_paths(raw.get("messages"), "messages", "image")),
        ignored=(*_ignored(raw, request), *ignored),
        unknown=tuple(_unknown(request)),
    )


def _ignored(raw: Mapping[str, Any], request: PromptRequest) -> Iterator[str]:
    """Yield the paths of the fields of this API that are accepted and have no effect."""
    for name in (*TOLERATED, *IGNORED):
        if raw.get(name) not in (None, [], {}):
            yield name
    for name in ("budget_tokens", "display", "block_binding"):
        if getattr(request.thinking, name, None) is not None:
            yield f"thinking.{name}"
    if request.output_config and request.output_config.task_budget is not None:
        yield "output_config.task_budget"
    yield from unused_in_view(request, OBJECTS)
    yield from left_out_blocks(request.messages)


def _unknown(request: PromptRequest) -> Iterator[UnknownField]:
    """Yield the unknown fields of a request, except those of blocks that are left out."""
    left_out = {f"{path}." for path in left_out_blocks(request.messages)}
    for unknown in unknown_in_view(request, MessageRequest, UNSUPPORTED, OBJECTS):
        if unknown.prefix not in left_out:
            yield unknown


def chat_prompt(request: PromptRequest) -> dict[str, Any]:
    """Return the fields of a chat request that determine its prompt and the use of tools.

    If the assistant wrote the last message, the answer continues it.

    Raises:
        JobFailed: a message or a tool is invalid or unsupported. The error names it.
    """
    messages = chat_messages(request.system, request.messages)
    thinks = request.thinking is not None and request.thinking.type != "disabled"
    extra = request.model_extra or {}
    kwargs = extra.get("chat_template_kwargs")
    if kwargs is None or isinstance(kwargs, dict):
        kwargs = {**thinking_switch(thinks), **(kwargs or {})}
    chat: dict[str, Any] = {
        "model": request.model,
        "messages": messages,
        "tools": chat_tools(request.tools or ()) or None,
        "chat_template_kwargs": kwargs,
        "include_reasoning": extra.get("include_reasoning", thinks),
        **_tool_choice(request.tool_choice),
        **_output(request),
    }
    last = messages[-1]
    if last["role"] == "assistant" and "tool_calls" not in last:
        chat |= {"continue_final_message": True, "add_generation_prompt": False}
    return chat


def _tool_choice(choice: MessageToolChoice | None) -> dict[str, Any]:
    if choice is None:
        return {}
    disabled = choice.disable_parallel_tool_use
    parallel = None if disabled is None else not disabled
    if choice.type != "tool":
        return {"tool_choice": _MODES[choice.type], "parallel_tool_calls": parallel}
    if choice.name is None:
        raise invalid_param("tool_choice.name", "is required with the type tool")
    named = {"type": "function", "function": {"name": choice.name}}
    return {"tool_choice": named, "parallel_tool_calls": parallel}


def _output(request: PromptRequest) -> dict[str, Any]:
    config = request.output_config
    chat: dict[str, Any] = {}
    if config and config.effort is not None:
        chat["reasoning_effort"] = config.effort
    if config and config.format:
        named = {"name": "output", "schema": config.format.schema_}
        chat["response_format"] = {"type": "json_schema", "json_schema": named}
    return chat
