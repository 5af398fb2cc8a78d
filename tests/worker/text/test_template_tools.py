"""Tools and their calls, as chat templates show them to the model."""

import pytest
from tiny import tiny_tokenizer
from tool_templates import HERMES, LLAMA3

from shared.errors import JobFailed
from shared.protocol.tools import ToolForm, ToolUse
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
    ids = Tokenizer(hf_tokenizer, vocab_size=len(hf_tokenizer)).encode_chat(messages, tools)
    text: str = hf_tokenizer.decode(ids)
    return text


@pytest.mark.parametrize("template", [HERMES, LLAMA3])
def test_the_model_sees_the_tools_only_when_there_are_some(template: str) -> None:
    assert '"name": "add"' in rendered(template, HI, tools=USE)
    assert rendered(template, HI) == "<|user|>hi<|end|><|assistant|>"


@pytest.mark.parametrize(
    ("template", "call"),
    [
        (HERMES, '<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call>'),
        (LLAMA3, '{"name": "add", "parameters": {"a": 1}}'),
    ],
)
def test_calls_and_their_results_are_shown_as_the_model_writes_them(
    template: str, call: str
) -> None:
    text = rendered(template, HI, CALLED, REPLY)
    assert f"<|assistant|>{call}<|end|><|tool|>" in text


def test_a_template_that_takes_one_call_refuses_two_by_name() -> None:
    with pytest.raises(JobFailed, match="only single tool-calls") as refused:
        rendered(LLAMA3, HI, {**CALLED, "tool_calls": [CALL, CALL]})
    assert refused.value.error.param == "messages"
