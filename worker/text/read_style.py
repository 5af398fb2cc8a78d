"""Fits what an adapter's folder says of prompts and answers to the base's tokenizer."""

from typing import TYPE_CHECKING, Any

from jinja2 import TemplateSyntaxError

from shared.errors import AdapterRejected
from shared.protocol.tools import ToolForm
from worker.text.prompt_style import Style
from worker.text.tool_call_format import ToolSetting, form_of_template

if TYPE_CHECKING:  # its package imports torch
    from worker.lora.checkpoint.prompting import Prompting


def style_of(
    prompting: "Prompting",
    hf_tokenizer: Any,
    *,
    vocab_size: int,
    tool_setting: ToolSetting,
) -> Style:
    """The style that an adapter's folder asks for; `tool_setting` is --tool-call-parser.

    Raises:
        AdapterRejected: the base's tokenizer can't write its prompts, or a template is broken.
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
                f"generation_config.json: eos_token_id {number} is outside of the vocabulary"
            )
    return Style(
        templates=prompting.templates,
        special_tokens=prompting.special_tokens if prompting.templates else {},
        tool_form=_tool_form(prompting, hf_tokenizer, tool_setting),
        eos_ids=frozenset(prompting.eos_ids) | _end(prompting, hf_tokenizer),
        sampling=prompting.sampling,
    )


def _tool_form(prompting: "Prompting", hf_tokenizer: Any, setting: ToolSetting) -> ToolForm | None:
    form = None
    for template in prompting.templates.values():
        try:
            form = form_of_template(hf_tokenizer, template, prompting.special_tokens, setting)
        except TemplateSyntaxError as error:
            raise AdapterRejected(f"the chat template is broken: {error}") from None
    return form


def _end(prompting: "Prompting", hf_tokenizer: Any) -> frozenset[int]:
    """The id of the tokenizer's end token, if the base's tokenizer knows it."""
    token = prompting.special_tokens.get("eos_token")
    if token is None:
        return frozenset()
    number = hf_tokenizer.convert_tokens_to_ids(token)
    is_known = number is not None and hf_tokenizer.convert_ids_to_tokens(number) == token
    return frozenset({int(number)}) if is_known else frozenset()
