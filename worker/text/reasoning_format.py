"""Detects the form of a model's reasoning in its chat template. Pure."""

from collections.abc import Iterable
from typing import Any

from shared.reasoning_form import ReasoningForm, ReasoningSetting


def base_reasoning_form(hf_tokenizer: Any, setting: ReasoningSetting) -> ReasoningForm | None:
    """Return the form of the base model's reasoning, or None if it has none.

    If `setting` is "auto", the form is detected in the chat templates.
    """
    templates = hf_tokenizer.chat_template or ""
    return reasoning_form(
        [templates] if isinstance(templates, str) else templates.values(), setting
    )


def reasoning_form(templates: Iterable[str], setting: ReasoningSetting) -> ReasoningForm | None:
    """Return the form of the reasoning of a model with these chat templates, or None.

    The templates of a reasoning model contain a marker, because they remove the reasoning of
    earlier turns, render it, or end the prompt with the opening marker.
    """
    if setting == "none":
        return None
    if setting != "auto":
        return ReasoningForm(setting)
    text = "\n".join(templates)
    forms = (form for form in ReasoningForm if any(marker in text for marker in form.markers))
    return next(forms, None)


def is_open(form: ReasoningForm, prompt: str, continued: str) -> bool:
    """Return whether an answer begins inside the reasoning.

    The answer continues the message `continued`, unless `continued` is empty. Some templates end
    the prompt with the opening marker.
    """
    if continued:
        return continued.rfind(form.opening) > continued.rfind(form.closing)
    return prompt.rstrip().endswith(form.opening)
