import pytest
import tool_templates
from structlog.testing import capture_logs
from tiny import CHAT_TEMPLATE, tiny_tokenizer
from tool_templates import HERMES, LLAMA3, UNKNOWN_FORM
from transformers import PreTrainedTokenizerFast

from shared.errors import SettingsError
from shared.protocol.tools import ToolForm
from worker.text.tool_call_format import adapter_tool_form, base_tool_form

LLAMA3_WITHOUT_INSTRUCTIONS = LLAMA3.replace("Respond in the format", "Tools").replace(
    "function name, ", ""
)
OFFERED_TOOLS_ALONE = "{{ tools | tojson }}{% for m in messages %}{{ m.content }}{% endfor %}"


def with_template(template: str | dict[str, str] | None) -> PreTrainedTokenizerFast:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = template
    return tokenizer


@pytest.mark.parametrize(
    ("template", "form"),
    [
        (HERMES, ToolForm.HERMES),
        (LLAMA3, ToolForm.LLAMA3_JSON),
        (LLAMA3_WITHOUT_INSTRUCTIONS, ToolForm.LLAMA3_JSON),
        ({"default": CHAT_TEMPLATE, "tool_use": HERMES}, ToolForm.HERMES),
        (OFFERED_TOOLS_ALONE, None),
        (CHAT_TEMPLATE, None),
        (None, None),
        ("{{ raise_exception('no') }}", None),
    ],
)
def test_the_form_is_the_one_that_the_template_teaches(
    template: str | dict[str, str] | None, form: ToolForm | None
) -> None:
    assert base_tool_form(with_template(template), "auto") is form


@pytest.mark.parametrize("form", ToolForm)
def test_each_form_is_detected_from_instructions_or_an_earlier_call(form: ToolForm) -> None:
    name = "LLAMA3" if form is ToolForm.LLAMA3_JSON else form.name
    template = getattr(tool_templates, name)
    assert base_tool_form(with_template(template), "auto") is form
    assert adapter_tool_form(tiny_tokenizer(), template, {}, "auto") is form


def test_a_template_with_an_unknown_form_is_logged_and_served_without_tools() -> None:
    with capture_logs() as logs:
        assert base_tool_form(with_template(UNKNOWN_FORM), "auto") is None
    assert [entry["event"] for entry in logs] == ["tool_calls_not_served"]
    assert "--tool-call-parser" in logs[0]["hint"]


def test_the_setting_overrides_the_template() -> None:
    assert base_tool_form(with_template(UNKNOWN_FORM), "hermes") is ToolForm.HERMES
    assert base_tool_form(with_template(HERMES), "llama3_json") is ToolForm.LLAMA3_JSON
    assert base_tool_form(with_template(HERMES), "none") is None


@pytest.mark.parametrize("template", [CHAT_TEMPLATE, None])
def test_a_form_is_rejected_if_the_template_shows_no_tools(template: str | None) -> None:
    with pytest.raises(SettingsError, match="--tool-call-parser hermes"):
        base_tool_form(with_template(template), "hermes")
