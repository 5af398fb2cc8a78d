"""Renders chats with a model's chat template."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from jinja2 import TemplateError

TEMPLATE_ERRORS = (
    *(TemplateError, TypeError, ValueError, LookupError, AttributeError),
    *(ArithmeticError, RecursionError),
)
"""Exceptions that rendering raises if the template is broken or rejects the messages."""

_NO_TOKENS: Mapping[str, str] = MappingProxyType({})


def render_chat(
    hf_tokenizer: Any,
    messages: Sequence[Mapping[str, Any]],
    *,
    tools: Sequence[Mapping[str, Any]] | None = None,
    template: str | None = None,
    special_tokens: Mapping[str, str] = _NO_TOKENS,
    add_generation_prompt: bool = True,
) -> str:
    """Render a chat to the text that the model reads.

    transformers runs the template in jinja2's sandbox.

    Args:
        hf_tokenizer: the base model's Hugging Face tokenizer.
        messages: the chat, in OpenAI's form.
        tools: the tools that the template offers to the model, in OpenAI's form.
        template: a chat template; None selects the tokenizer's own.
        special_tokens: template variables that override the tokenizer's, such as `bos_token`.
        add_generation_prompt: whether the text ends with the header of the answer.

    Raises:
        TEMPLATE_ERRORS: the template is broken or rejects the messages.
    """
    text: str = hf_tokenizer.apply_chat_template(
        list(messages),
        tools=None if tools is None else list(tools),
        chat_template=template,
        tokenize=False,
        add_generation_prompt=add_generation_prompt,
        **special_tokens,
    )
    return text
