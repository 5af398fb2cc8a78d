"""Chat templates render tools, tool calls and their results."""

import pytest
from queue_support import make_job
from tiny import tiny_tokenizer
from tool_templates import DEEPSEEK_V3, HERMES, LLAMA3
from written_calls import CALL_END, END, SEP

from shared.errors import JobFailed
from shared.protocol.jobs import Endpoint, PromptEnd
from shared.protocol.tools import ToolForm, ToolUse
from worker.text.templates.chat_template import TEMPLATE_ERRORS, render_chat
from worker.text.tokenizer import Tokenizer

TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}
USE = ToolUse(tools=(TOOL,), form=ToolForm.HERMES)
HI = {"role": "user", "content": "hi"}
CALL = {"id": "a", "type": "function", "function": {"name": "add", "arguments": {"a": 1}}}
CALLED = {"role": "assistant", "content": "", "tool_calls": [CALL]}
REPLY = {"role": "tool", "content": "2", "tool_call_id": "a", "name": "add"}


def rendered(template: str, *messages: dict[str, object], tools: ToolUse | None = None) -> str:
    hf_tokenizer = tiny_tokenizer()
    hf_tokenizer.chat_template = template
    tokenizer = Tokenizer(hf_tokenizer, vocab_size=len(hf_tokenizer))
    job = make_job(endpoint=Endpoint.CHAT, prompts=(), messages=messages, tools=tools)
    (prompt,) = tokenizer.encode(job)
    text: str = hf_tokenizer.decode(prompt.ids)
    return text


@pytest.mark.parametrize("template", [HERMES, LLAMA3])
def test_tools_are_rendered_only_if_the_request_has_some(template: str) -> None:
    assert '"name": "add"' in rendered(template, HI, tools=USE)
    assert rendered(template, HI) == "<|user|>hi<|end|><|assistant|>"


@pytest.mark.parametrize(
    ("template", "call"),
    [
        (HERMES, '<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call>'),
        (LLAMA3, '{"name": "add", "parameters": {"a": 1}}'),
        (DEEPSEEK_V3, f'{SEP}add\n```json\n{{"a": 1}}\n```{CALL_END}{END}'),
    ],
)
def test_earlier_calls_and_results_are_rendered_in_the_models_own_form(
    template: str, call: str
) -> None:
    text = rendered(template, HI, CALLED, REPLY)
    assert text.startswith("<|user|>hi<|end|><|assistant|>")
    assert f"{call}<|end|><|tool|>" in text


def test_a_template_for_single_calls_rejects_two_and_the_error_names_the_messages() -> None:
    with pytest.raises(JobFailed, match="only single tool-calls") as rejected:
        rendered(LLAMA3, HI, {**CALLED, "tool_calls": [CALL, CALL]})
    assert rejected.value.error.param == "messages"


def test_a_given_template_replaces_the_tokenizers_own() -> None:
    template = "{{ bos_token }}{{ messages[0].content }}"
    assert render_chat(tiny_tokenizer(), [HI], template=template) == "<bos>hi"


def test_special_tokens_override_the_tokenizers_own() -> None:
    template, tokens = "{{ bos_token }}{{ eos_token }}", {"bos_token": "<s>"}
    text = render_chat(tiny_tokenizer(), [HI], template=template, special_tokens=tokens)
    assert text == f"<s>{tiny_tokenizer().eos_token}"


def test_the_header_of_the_answer_is_optional() -> None:
    with_header = render_chat(tiny_tokenizer(), [HI])
    without = render_chat(tiny_tokenizer(), [HI], prompt_end=PromptEnd.NOTHING)
    assert with_header.startswith(without)
    assert with_header.removeprefix(without) == "<|assistant|>"


@pytest.mark.parametrize(
    "template",
    ["{% if %}", "{{ 1 // 0 }}", "{{ messages[9].content }}", "{{ raise_exception('no') }}"],
)
def test_errors_of_a_template_are_template_errors(template: str) -> None:
    with pytest.raises(TEMPLATE_ERRORS):
        render_chat(tiny_tokenizer(), [HI], template=template)
