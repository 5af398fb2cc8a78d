"""Tools for models whose chat template shows none: the messages, and the grammar of answers."""

import json
from collections.abc import Sequence
from typing import Any

import pytest
from byte_grammars import is_answer
from drawn_calls import CALLS
from hypothesis import given
from hypothesis import strategies as st
from tiny import tiny_tokenizer
from written_calls import FUNCTIONS, TOOLS, Call, use, written

from shared.protocol.tools import ToolForm
from worker.text.grammar_source import Constraint, source_of
from worker.text.templates.chat_template import render_chat
from worker.text.templates.generic_tools import instructions

SHOWN = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
NO_SYSTEM = (
    "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no') }}{% endif %}"
    "<{{ m.role }}>{{ m.content }}{% endfor %}"
)
IGNORES_SYSTEM = (
    "{% for m in messages %}{% if m.role != 'system' %}<{{ m.role }}>{{ m.content }}{% endif %}"
    "{% endfor %}"
)
ALTERNATES = (
    "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('must alternate') }}{% endif %}<{{ m.role }}>{{ m.content }}{% endfor %}"
)
USER = {"role": "user", "content": "Hi"}
SYSTEM = {"role": "system", "content": "Be brief."}
TEXT = instructions(TOOLS)
HF = tiny_tokenizer()


def rendered(template: str, *messages: dict[str, Any]) -> str:
    return render_chat(HF, messages, template=template, tools=TOOLS, is_generic=True)


def test_the_system_message_describes_the_tools_if_the_template_shows_one() -> None:
    assert rendered(SHOWN, USER) == f"<system>{TEXT}<user>Hi"
    assert rendered(SHOWN, SYSTEM, USER) == f"<system>Be brief.\n\n{TEXT}<user>Hi"


@pytest.mark.parametrize("template", [NO_SYSTEM, IGNORES_SYSTEM, ALTERNATES])
def test_otherwise_the_first_question_describes_them(template: str) -> None:
    assert rendered(template, USER) == f"<user>{TEXT}\n\nHi"


def test_the_description_has_each_tools_name_and_schema() -> None:
    lines = TEXT.split("\n")
    for tool in TOOLS:
        assert json.dumps(tool["function"]) in lines


def test_earlier_calls_and_results_are_text_of_alternating_messages() -> None:
    function = {"name": "get", "arguments": {"city": "東京"}}
    call = {"id": "c1", "type": "function", "function": function}
    raw = {**call, "function": {"name": "get", "arguments": '{"cut": '}}
    text = rendered(
        ALTERNATES,
        USER,
        {"role": "assistant", "content": "I look.", "tool_calls": [call, raw]},
        {"role": "tool", "content": "sunny", "tool_call_id": "c1"},
        {"role": "tool", "content": "warm", "tool_call_id": "c2"},
        {"role": "user", "content": "So?"},
    )
    assert text.partition("<assistant>")[2] == (
        'I look.\n<tool_call>\n{"name": "get", "arguments": {"city": "東京"}}\n</tool_call>\n'
        '<tool_call>\n{"name": "get", "arguments": {"cut": }\n</tool_call>'
        "<user><tool_response>\nsunny\n</tool_response>\n"
        "<tool_response>\nwarm\n</tool_response>\nSo?"
    )


def test_messages_with_parts_keep_them() -> None:
    image = {"type": "image"}
    template = "{% for m in messages %}{{ m.content | tojson }}{% endfor %}"
    text = rendered("{# no loop #}" + template, {"role": "user", "content": [image]})
    assert TEXT.split("\n")[0] in text


FORM = ToolForm.GENERIC
AUTO = source_of(Constraint(tools=use(ToolForm.GENERIC), is_text=True))


@given(st.text(max_size=20), CALLS, st.text(max_size=20))
def test_any_text_and_valid_calls_may_be_written(
    before: str, calls: Sequence[Call], after: str
) -> None:
    assert is_answer(AUTO, before)
    order = list(FUNCTIONS[0]["parameters"]["properties"])  # grammars keep the schema's order
    valid = [
        (name, {key: arguments[key] for key in order if key in arguments})
        for name, arguments in calls
        # In JSON strings, llguidance allows the character DEL only as an escape.
        if name == "get"
        or ("city" in arguments and "\x7f" not in written(FORM, [(name, arguments)]))
    ]
    if valid:
        assert is_answer(AUTO, f"{before}{written(ToolForm.GENERIC, valid)}{after}")


@pytest.mark.parametrize(
    "text",
    [
        "<tool_call>",
        "Use <tool_call> for calls.",
        '<tool_call>\n{"name": "put", "arguments": {}}\n</tool_call>',
        '<tool_call>\n{"name": "get_weather", "arguments": {"city": 5}}\n</tool_call>',
        '<tool_call>\n{"name": "get_weather", "arguments": {}}\n</tool_call>',
        '<tool_call>\n{"name": "get", "arguments": {}}\n',
    ],
)
def test_no_call_can_be_invalid(text: str) -> None:
    assert not is_answer(AUTO, text)


def test_without_parallel_calls_there_is_one() -> None:
    one = written(ToolForm.GENERIC, [("get", {})])
    tools = use(ToolForm.GENERIC, is_parallel=False)
    single = source_of(Constraint(tools=tools, is_text=True))
    assert is_answer(single, one)
    assert not is_answer(single, one + one)
    assert is_answer(AUTO, one + one)
