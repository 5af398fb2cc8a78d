"""Renders chats with a model's chat template."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from types import MappingProxyType
from typing import Any

from jinja2 import TemplateError

from shared.protocol.jobs import PromptEnd

TEMPLATE_ERRORS = (
    *(TemplateError, TypeError, ValueError, LookupError, AttributeError),
    *(ArithmeticError, RecursionError),
)
"""Exceptions that rendering raises if the template is broken or rejects the messages."""

_LOOP = re.compile(r"\bfor\s+\w+\s+in\s[^%]*\bcontent\b")
"""A loop over the parts of a message. Only templates with such a loop may need parts."""
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
) -> str:
    """Render a chat to the text that the model reads.

    transformers runs the template, by default the tokenizer's own, in jinja2's sandbox. `messages`
    and `tools` are in OpenAI's form. `special_tokens`, such as `bos_token`, override variables of
    the tokenizer, and `variables` override all others. Variables can't have the names of
    transformers' own parameters. `prompt_end` says how the text ends. Templates of models that
    also read images may show a content only as a list of parts. They get such lists.

    Raises:
        TEMPLATE_ERRORS: the template is broken or rejects the messages.
    """
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
    """Return whether `template` shows a content only if it is a list of parts."""

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
    """Return the message with its content as a list of parts."""
    content = message.get("content")
    if isinstance(content, list):
        return message
    return {**message, "content": [{"type": "text", "text": content}] if content else []}


def _with_json_arguments(message: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the message with the arguments of its tool calls as JSON text."""
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
