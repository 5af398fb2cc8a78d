"""Checks the prompting files of an adapter, and returns their prompt style."""

from typing import Any

from jinja2 import TemplateSyntaxError

from shared.errors import AdapterRejected
from shared.protocol.tools import ToolForm, ToolSettings
from shared.reasoning_form import ReasoningSetting
from worker.lora.checkpoint.prompting import Prompting
from worker.text.prompt_style import PromptStyle
from worker.text.reasoning_format import base_reasoning_form, reasoning_form
from worker.text.templates.sandbox import TemplateTooCostly
from worker.text.tool_call_format import adapter_tool_form


def adapter_style(
    prompting: Prompting,
    hf_tokenizer: Any,
    *,
    vocab_size: int,
    tool_settings: ToolSettings,
    reasoning_setting: ReasoningSetting,
) -> PromptStyle:
    """Return the style that an adapter's folder defines.

    `vocab_size` is the number of rows in the base model's embedding. The settings are the values of
    --tool-call-parser and --reasoning-parser.

    Raises:
        AdapterRejected: the base model's tokenizer lacks a token that the templates need, an
            end token is outside the vocabulary, or a template has a syntax error or takes too much
            time.
    """
    for token, number in prompting.token_ids.items():
        if hf_tokenizer.convert_tokens_to_ids(token) != number:
            raise AdapterRejected(
                f"tokenizer_config.json: the chat template needs the token {token!r} ({number}), "
                "which the base model's tokenizer doesn't have"
            )
    for number in prompting.eos_ids:
        if number >= vocab_size:
            raise AdapterRejected(
                f"generation_config.json: eos_token_id {number} is outside the vocabulary of "
                f"{vocab_size} tokens"
            )
    return PromptStyle(
        templates=prompting.templates,
        special_tokens=prompting.special_tokens if prompting.templates else {},
        tool_form=_tool_form(prompting, hf_tokenizer, tool_settings),
        reasoning=(
            reasoning_form(prompting.templates.values(), reasoning_setting)
            if prompting.templates
            else base_reasoning_form(hf_tokenizer, reasoning_setting)
        ),
        eos_ids=frozenset(prompting.eos_ids) | _eos_of_tokenizer(prompting, hf_tokenizer),
        sampling=prompting.sampling,
    )


def _tool_form(prompting: Prompting, hf_tokenizer: Any, settings: ToolSettings) -> ToolForm | None:
    """Return the form of tool calls in the adapter's last template.

    This template is used for requests with tools.
    """
    form = None
    for template in prompting.templates.values():
        try:
            form = adapter_tool_form(hf_tokenizer, template, prompting.special_tokens, settings)
        except TemplateSyntaxError as error:
            raise AdapterRejected(f"the chat template has a syntax error: {error}") from None
        except TemplateTooCostly as error:
            raise AdapterRejected(f"the chat template can't be used: {error}") from None
    return form


def _eos_of_tokenizer(prompting: Prompting, hf_tokenizer: Any) -> frozenset[int]:
    """Return the id of the adapter's `eos_token`, if the base model's tokenizer has this token."""
    token = prompting.special_tokens.get("eos_token")
    if token is None:
        return frozenset()
    number = hf_tokenizer.convert_tokens_to_ids(token)
    is_known = number is not None and hf_tokenizer.convert_ids_to_tokens(number) == token
    return frozenset({int(number)}) if is_known else frozenset()
