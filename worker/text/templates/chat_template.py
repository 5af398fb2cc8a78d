"""Renders chats with a model's chat template."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache, partial
from types import MappingProxyType
from typing import Any

from jinja2 import TemplateError

from shared.protocol.jobs import PromptEnd
from worker.text.templates.contents import has_later_system, without_later_system
from worker.text.templates.generic_tools import (
    instructions,
    with_tools_in_question,
    with_tools_in_system,
)

TEMPLATE_ERRORS = (
    *(TemplateError, TypeError, ValueError, LookupError, AttributeError),
    *(ArithmeticError, RecursionError),
)
"""Exceptions that rendering raises if the template is broken or rejects the messages."""

_LOOP = re.compile(r"\bfor\s+\w+\s+in\s[^%]*\bcontent\b")
"""Matches a loop over the parts of a message in a template.

Only templates with such a loop may need messages whose content is a list of parts."""
_PROBE = "probe-of-the-content"

_NO_TOKENS: Mapping[str, str] = MappingProxyType({})
_NO_VARIABLES: Mapping[str, Any] = MappingProxyType({})


def render_chat(
    hf_tokenizer: Any,
    messages: Sequence[Mapping[str, Any]],
    *,
    tools: Sequence[Mapping[str, Any]] | None = None,
    template: str | None = None,
    special_tokens: Mapping[str, str] = _NO_TOKENS,
    variables: Mapping[str, Any] = _NO_VARIABLES,
    prompt_end: PromptEnd = PromptEnd.ANSWER,
    is_generic: bool = False,
) -> str:
    """Render a chat to the text that the model reads.

    transformers runs the template, by default the tokenizer's own, in jinja2's sandbox. `messages`
    and `tools` are in OpenAI's form. `special_tokens`, such as `bos_token`, override variables of
    the tokenizer. `variables` override all other variables. They can't have the names of
    transformers' own parameters. `prompt_end` determines how the text ends. Some templates show a
    message's content only if it is a list of parts, so they get lists.

    With `is_generic`, one of the messages describes the tools. It is the system message, or the
    first user message if the template rejects or ignores the system message. If the template
    rejects system messages after the first message, these become parts of user messages.

    Raises:
        TEMPLATE_ERRORS: the template is broken or rejects the messages.
    """
    render = partial(
        _render,
        hf_tokenizer,
        template=template,
        special_tokens=special_tokens,
        variables=variables,
        prompt_end=prompt_end,
    )
    show = partial(_described, render, tools=tools) if is_generic else partial(render, tools=tools)
    try:
        return show(messages)
    except TEMPLATE_ERRORS:
        if not has_later_system(messages):
            raise
    return show(without_later_system(messages))


def _described(
    render: Callable[..., str],
    messages: Sequence[Mapping[str, Any]],
    *,
    tools: Sequence[Mapping[str, Any]] | None,
) -> str:
    """Render a chat with a description of the tools in one of its messages.

    The description is in the system message, or in the first user message if the template rejects
    or ignores the system message.
    """
    described = instructions(tools or ())
    with suppress(*TEMPLATE_ERRORS):
        text = render(with_tools_in_system(messages, described), tools=None)
        if described in text:
            return text
    return render(with_tools_in_question(messages, described), tools=None)


def _render(
    hf_tokenizer: Any,
    messages: Sequence[Mapping[str, Any]],
    *,
    tools: Sequence[Mapping[str, Any]] | None,
    template: str | None,
    special_tokens: Mapping[str, str],
    variables: Mapping[str, Any],
    prompt_end: PromptEnd,
) -> str:
    render: Callable[[list[Mapping[str, Any]]], str] = partial(
        hf_tokenizer.apply_chat_template,
        tools=None if tools is None else list(tools),
        chat_template=template,
        tokenize=False,
        add_generation_prompt=prompt_end is PromptEnd.ANSWER,
        continue_final_message=prompt_end is PromptEnd.MESSAGE,
        **{**special_tokens, **variables},
    )
    chosen = template or hf_tokenizer.chat_template
    if isinstance(chosen, str) and _LOOP.search(chosen) and _needs_parts(hf_tokenizer, chosen):
        messages = [_with_parts(message) for message in messages]
    try:
        return render(list(messages))
    except TypeError:
        # DeepSeek's templates append the arguments of earlier calls to text.
        as_text = [_with_json_arguments(message) for message in messages]
        if as_text == list(messages):
            raise
        return render(as_text)


@lru_cache(maxsize=16)
def _needs_parts(hf_tokenizer: Any, template: str) -> bool:
    """Return whether `template` shows a message's content only if it is a list of parts."""

    def shows(message: Mapping[str, Any]) -> bool:
        try:
            text = hf_tokenizer.apply_chat_template(
                [message], chat_template=template, tokenize=False
            )
        except TEMPLATE_ERRORS:
            return False
        return _PROBE in text

    message = {"role": "user", "content": _PROBE}
    return not shows(message) and shows(_with_parts(message))


def _with_parts(message: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the message with content that is a list of parts."""
    content = message.get("content")
    if isinstance(content, list):
        return message
    return {**message, "content": [{"type": "text", "text": content}] if content else []}


def _with_json_arguments(message: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the message with JSON text as the arguments of its tool calls."""
    if not message.get("tool_calls"):
        return message
    calls = []
    for call in message["tool_calls"]:
        function = call["function"]
        if isinstance(function["arguments"], dict):
            text = json.dumps(function["arguments"], ensure_ascii=False)
            function = {**function, "arguments": text}
        calls.append({**call, "function": function})
    return {**message, "tool_calls": calls}
