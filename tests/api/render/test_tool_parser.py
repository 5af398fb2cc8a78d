"""Which parts of a model's text are tool calls."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from read_calls import Calls
from read_calls import read_calls as parse

from api.render.tool_parser import Text, ToolCallParser
from shared.protocol.tools import ToolForm, ToolUse

HERMES, LLAMA3 = ToolForm.HERMES, ToolForm.LLAMA3_JSON
CALL = '{"name": "add", "arguments": {"a": 1, "b": [2, {"c": "}"}]}}'
ARGUMENTS = '{"a": 1, "b": [2, {"c": "}"}]}'


def use(form: ToolForm) -> ToolUse:
    functions = [{"name": name} for name in ("add", "no args", "say")]
    tools = tuple({"type": "function", "function": function} for function in functions)
    return ToolUse(tools=tools, form=form)


def hermes(*objects: str) -> str:
    return "\n".join(f"<tool_call>\n{text}\n</tool_call>" for text in objects)


BROKEN = "<tool_call>{oops}</tool_call>"
GOOD: list[tuple[ToolForm, str, str, Calls]] = [
    (HERMES, hermes(CALL), "", [("add", ARGUMENTS)]),
    (HERMES, f"<tool_call>{CALL}</tool_call>", "", [("add", ARGUMENTS)]),
    # ended by an end-of-sequence token or a stop string
    (HERMES, f"<tool_call>{CALL}", "", [("add", ARGUMENTS)]),
    (HERMES, f"Wait.\n\n{hermes(CALL)}\n", "Wait.", [("add", ARGUMENTS)]),
    (HERMES, f"{hermes(CALL)}\nDone? <b>", "\nDone? <b>", [("add", ARGUMENTS)]),
    (HERMES, hermes(CALL, CALL), "", [("add", ARGUMENTS)] * 2),
    (HERMES, f"{BROKEN}\n{hermes(CALL)}", BROKEN, [("add", ARGUMENTS)]),
    (HERMES, hermes('{"arguments": {"a": 1}, "name": "add"}'), "", [("add", '{"a":1}')]),
    (HERMES, hermes('{"name": "no args"}'), "", [("no args", "{}")]),
    (HERMES, hermes('{"name": "no args", "arguments": null}'), "", [("no args", "{}")]),
    (HERMES, hermes('{"name": "add", "arguments": "{\\"a\\": 1}"}'), "", [("add", '{"a": 1}')]),
    (
        HERMES,
        hermes('{"name": "say", "arguments": {"x": "</tool_call> \\" \\\\"}}'),
        "",
        [("say", '{"x": "</tool_call> \\" \\\\"}')],
    ),
    (LLAMA3, CALL, "", [("add", ARGUMENTS)]),
    (LLAMA3, CALL.replace("arguments", "parameters"), "", [("add", ARGUMENTS)]),
    (LLAMA3, f"\n {CALL} \n", "", [("add", ARGUMENTS)]),
    (LLAMA3, f"{CALL}; {CALL}", "", [("add", ARGUMENTS)] * 2),
    (
        LLAMA3,
        '{"type": "function", "name": "add", "parameters": {"a": "1"}}',
        "",
        [("add", '{"a": "1"}')],
    ),
]
"""Syntax, answer, expected text, expected calls."""

TEXTS: list[tuple[ToolForm, str]] = [
    (HERMES, ""),
    (HERMES, " plain text \n\n"),
    (HERMES, "a <tool_call"),
    (HERMES, "a <tool_call> b"),
    (HERMES, "a <tool_call> \n"),
    (HERMES, CALL),
    (HERMES, " <tool_call>{oops}</tool_call> "),
    (HERMES, "<tool_call>[1]</tool_call>"),
    (HERMES, '<tool_call>{"name": "unknown", "arguments": {}}</tool_call>'),
    (HERMES, '<tool_call>{"name": 3, "arguments": {}}</tool_call>'),
    (HERMES, '<tool_call>{"name": "say", "arguments": [1]}</tool_call>'),
    (HERMES, '<tool_call>{"name": "say", "arguments": "hi"}</tool_call>'),
    (HERMES, '<tool_call>{"arguments": {"a": 1}, "name": "add"'),
    (HERMES, '<tool_call>{"name": "add"]'),
    (HERMES, '<tool_call>{"name": "a\\x", "arguments": {}}</tool_call>'),
    (LLAMA3, "hi"),
    (LLAMA3, f"I call {CALL}"),
    (LLAMA3, '{"name": "Ada", "parameters": {"born": 1815}}'),
    (LLAMA3, '{"city": "Osaka"}'),
    (LLAMA3, '  {"name": "add"'),
    (LLAMA3, hermes(CALL)),
]
"""Syntax, and an answer without calls."""

LATE: list[str] = [
    hermes('{"name": "add", "arguments": {"a": 1,,}}'),
    hermes('{"name": "add", "arguments": {"a": 1]}'),
    hermes('{"name": "add", "arguments": {"a": 1}'),
    '<tool_call>{"name": "add", "arguments": {"a": "1',
]
"""Answers that become malformed after the start of their arguments."""


@pytest.mark.parametrize("emits_early", [False, True])
@pytest.mark.parametrize(("form", "answer", "text", "calls"), GOOD)
def test_calls_are_separated_from_text(
    form: ToolForm, answer: str, text: str, calls: Calls, emits_early: bool
) -> None:
    assert parse(use(form), answer, emits_early=emits_early) == (text, calls)
    assert parse(use(form), *answer, emits_early=emits_early) == (text, calls)


@pytest.mark.parametrize("emits_early", [False, True])
@pytest.mark.parametrize(("form", "answer"), TEXTS)
def test_text_that_resembles_a_call_stays_text(
    form: ToolForm, answer: str, emits_early: bool
) -> None:
    assert parse(use(form), answer, emits_early=emits_early) == (answer, [])
    assert parse(use(form), *answer, emits_early=emits_early) == (answer, [])


@pytest.mark.parametrize("answer", LATE)
def test_a_malformed_call_is_text_except_for_arguments_that_were_emitted(answer: str) -> None:
    assert parse(use(HERMES), answer) == (answer, [])
    text, calls = parse(use(HERMES), *answer, emits_early=True)
    ((name, arguments),) = calls
    assert name == "add"
    assert arguments + text in answer or answer.endswith(text)
    assert arguments.startswith('{"a": ')
    assert arguments in answer


def test_text_is_emitted_immediately_unless_it_may_start_a_call() -> None:
    parser = ToolCallParser(use(HERMES), emits_early=True)
    assert parser.feed("a < b") == [Text("a < b")]
    assert parser.feed(" <tool") == []
    assert parser.feed("s>") == [Text(" <tools>")]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=9),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=6,
)


@given(
    st.dictionaries(st.text(max_size=3), JSON, max_size=4),
    st.text("ab<>t{ \n", max_size=8),
    st.sampled_from((HERMES, LLAMA3)),
    st.booleans(),
)
def test_any_arguments_arrive_as_the_model_wrote_them(
    arguments: dict[str, Any], said: str, form: ToolForm, is_ascii: bool
) -> None:
    written = json.dumps(arguments, ensure_ascii=is_ascii)
    call = f'{{"name": "say", "arguments": {written}}}'
    answer = f"{said}\n{hermes(call)}" if form is HERMES else call
    for emits_early in (False, True):
        text, calls = parse(use(form), *answer, emits_early=emits_early)
        assert calls == [("say", written)]
        assert text == (said.rstrip() if form is HERMES else "")
