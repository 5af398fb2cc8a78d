"""Tests of the texts that the grammar of tool calls allows."""

from typing import Any

import pytest
from llguidance import LLMatcher, LLTokenizer, TokenizerWrapper

from shared.protocol.tools import ToolChoice, ToolForm, ToolUse
from worker.text.tool_grammar import tool_source

HERMES, LLAMA3 = ToolForm.HERMES, ToolForm.LLAMA3_JSON
CITY = {
    "$defs": {"city": {"enum": ["Osaka", "Oslo"]}},
    "properties": {"in": {"$ref": "#/$defs/city"}},
}
WEATHER = {"name": "weather", "parameters": {**CITY, "type": "object", "required": ["in"]}}
PING = {"name": "ping"}


class ByteTokenizer:
    """Tokenizer whose tokens are single bytes."""

    eos_token_id = 256
    bos_token_id = None
    special_token_ids = (256,)
    tokens = (*(bytes([byte]) for byte in range(256)), b"<eos>")

    def __call__(self, text: bytes) -> list[int]:
        return list(text)


TOKENIZER = LLTokenizer(TokenizerWrapper(ByteTokenizer()), slices=[])


def allows(text: str, form: ToolForm = HERMES, **use: Any) -> bool:
    """Return whether `text` is a complete answer under the grammar."""
    tools = tuple({"type": "function", "function": function} for function in (WEATHER, PING))
    source = tool_source(ToolUse(tools=tools, form=form, choice=ToolChoice.REQUIRED, **use))
    matcher = LLMatcher(TOKENIZER, source, log_level=0)
    assert not matcher.is_error(), matcher.get_error()
    ids = list(text.encode())
    return matcher.try_consume_tokens(ids) == len(ids) and matcher.is_accepting()


def call(arguments: str, name: str = "weather") -> str:
    return f'<tool_call>\n{{"name": "{name}", "arguments": {arguments}}}\n</tool_call>'


OSAKA = call('{"in": "Osaka"}')


def test_a_call_has_a_tools_name_and_valid_arguments() -> None:
    assert allows(OSAKA)
    assert allows(call("{}", "ping"))
    assert not allows(call("{}"))
    assert not allows(call('{"in": "Rome"}'))
    assert not allows(call('{"x": 1}', "ping"))
    assert not allows(call("{}", "pong"))


@pytest.mark.parametrize("text", ["", "hi", f"Ok. {OSAKA}", f"{OSAKA} ok", OSAKA[:-1]])
def test_text_outside_calls_is_not_allowed(text: str) -> None:
    assert not allows(text)


def test_several_calls_are_allowed_only_if_calls_are_parallel() -> None:
    both = f"{OSAKA}\n{call('{}', 'ping')}"
    assert allows(both)
    assert not allows(both, is_parallel=False)
    assert allows(OSAKA, is_parallel=False)


def test_a_named_tool_is_called_once() -> None:
    assert allows(OSAKA, name="weather")
    assert not allows(f"{OSAKA}\n{OSAKA}", name="weather")
    assert not allows(OSAKA, name="ping")


def test_llama_calls_have_no_tags() -> None:
    osaka = '{"name": "weather", "parameters": {"in": "Osaka"}}'
    assert allows(osaka, LLAMA3)
    assert allows(f"{osaka}; {osaka}", LLAMA3)
    assert not allows(OSAKA, LLAMA3)


def test_a_clients_schema_can_not_change_the_json_options() -> None:
    lenient = {**WEATHER["parameters"], "x-guidance": {"lenient": True, "item_separator": ";"}}  # type: ignore[dict-item]
    tool = {"type": "function", "function": {"name": "f", "parameters": lenient}}
    source = tool_source(ToolUse(tools=(tool,), form=HERMES, choice=ToolChoice.REQUIRED))
    assert '"item_separator": ","' in source
    assert '"item_separator": ";"' not in source
