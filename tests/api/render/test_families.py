"""Thoughts, text and calls of several model families, whole and streamed in any pieces."""

import json
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any

import pytest
from families import FAMILIES, LLAMA4, Family
from hypothesis import given
from hypothesis import strategies as st
from jiter import from_json
from joined_stream import joined_choice, normal
from rendered_job import spec
from sse_events import sse_events
from typed_events import folded
from written_calls import BEGIN, CALL, CALL_END, END, SEP, Call, use, written

from api.follow.transcript import ChoiceTranscript, Delta
from api.formats import stream_of, whole_body
from shared.protocol.answers import AnswerSpec
from shared.protocol.jobs import View
from shared.protocol.parameter_types import rendered_tools
from shared.protocol.results import Choice, FinishReason, Usage

USAGE = Usage(prompt_tokens=32, completion_tokens=2, cached_tokens=16)
STOP, LENGTH = FinishReason.STOP, FinishReason.LENGTH
THOUGHT = "Where is <Zürich>? {\n\n[see]"
NESTED: Call = (
    "get_weather",
    {"city": 'Zürich "東京" 🙂\n\\', "days": -2, "area": {"k": {"l": True}}, "tags": ["a]", "})"]},
)
MARKS: Call = (
    "get_weather",
    {"city": "<tool_call> </tool_call> [TOOL_CALLS] [ARGS] </think>" + CALL_END + END + ")]"},
)
SIMPLE: Call = ("get", {})
JSON_ANSWER = '{"go": "up [1] é"}'

ANSWERS: dict[str, tuple[str, Sequence[Call]]] = {
    "text": ("It is sunny.\n\n- a < b", []),
    "empty": ("", []),
    "json": (JSON_ANSWER, []),
    "one call": ("", [SIMPLE]),
    "two calls": ("", [SIMPLE, NESTED]),
    "nested": ("", [NESTED]),
    "markers in a string": ("", [MARKS, SIMPLE]),
    "text and calls": ("Let me see: [é]", [NESTED, SIMPLE]),
}
CASES = [
    pytest.param(family, *case, id=f"{family.name}-{name}")
    for family in FAMILIES
    for name, case in ANSWERS.items()
    if family is not LLAMA4 or not (case[0] and case[1])  # its calls are the whole answer
]


def answer_spec(family: Family, view: View = View.OPENAI, **fields: Any) -> AnswerSpec:
    tools = rendered_tools(use(family.form))
    return spec(view=view, tools=tools, reasoning=family.reasoning, include_usage=True, **fields)


def whole(of: AnswerSpec, text: str, finish: FinishReason) -> dict[str, Any]:
    transcript = ChoiceTranscript.of(Choice(text=text, finish=finish, ids=(1,)))
    return whole_body(of, [transcript], USAGE)


def streamed(of: AnswerSpec, pieces: Iterable[str], finish: FinishReason) -> str:
    stream = stream_of(of)
    raw = b"".join(stream.chunks([Delta(0, piece, None)]) for piece in pieces)
    return (raw + stream.chunks([Delta(0, "", finish)]) + stream.closing(USAGE)).decode()


def chat_parts(of: AnswerSpec, pieces: Iterable[str], finish: FinishReason) -> dict[str, Any]:
    """Return the choice of a streamed chat completion, and its usage."""
    *events, done = sse_events(streamed(of, pieces, finish))
    assert done.data == "[DONE]"
    chunks = [event.json for event in events]
    return {**joined_choice(chunks), "usage": chunks[-1]["usage"]}


def divisions(text: str) -> Iterable[Sequence[str]]:
    """Yield the text in one piece, in characters, and in two pieces in all ways."""
    yield text
    yield (text,)
    for at in range(1, len(text)):
        yield (text[:at], text[at:])


def checked(
    family: Family, text: str, finish: FinishReason = STOP, *, is_fast: bool = False
) -> dict[str, Any]:
    """Return the choice of an answer, which must be the same whole and in any pieces.

    With `is_fast`, the pieces are characters, or the whole text.
    """
    of = answer_spec(family)
    body = whole(of, text, finish)
    choice = normal(body["choices"][0])
    expected = {**choice, "usage": body["usage"]}
    for pieces in islice(divisions(text), 2 if is_fast else None):
        assert chat_parts(of, pieces, finish) == expected
    return choice


def called(choice: dict[str, Any]) -> list[Any]:
    functions = [call["function"] for call in choice["message"]["tool_calls"] or ()]
    return [(function["name"], json.loads(function["arguments"])) for function in functions]


@pytest.mark.parametrize("thought", ["", THOUGHT])
@pytest.mark.parametrize(("family", "content", "calls"), CASES)
def test_a_streamed_answer_is_the_whole_answer_in_pieces(
    family: Family, content: str, calls: Sequence[Call], thought: str
) -> None:
    choice = checked(family, family.answer(thought, content, calls))
    message = choice["message"]
    assert message["reasoning_content"] == message["reasoning"] == (thought or None)
    assert message["content"] == (content or None)
    assert called(choice) == list(calls)
    assert choice["finish_reason"] == ("tool_calls" if calls else "stop")


@pytest.mark.parametrize("view", [View.RESPONSES, View.MESSAGES])
@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_typed_events_do_not_depend_on_the_pieces(family: Family, view: View) -> None:
    of = answer_spec(family, view, request={})
    text = family.answer("Hm é.", "", [NESTED, SIMPLE])
    expected = folded(sse_events(streamed(of, text, STOP)))
    for pieces in list(divisions(text))[1::5]:
        assert folded(sse_events(streamed(of, pieces, STOP))) == expected


def broken(family: Family) -> dict[str, str]:
    """Return texts after the thought that resemble calls. test_tool_forms.py has many more."""
    good, nested = written(family.form, [SIMPLE]), written(family.form, [NESTED])
    return {
        "unknown tool": nested.replace("get_weather", "get_time"),
        "longer name": nested.replace("get_weather", "get_weather_now"),
        "marker in prose": f"I write {good[: good.index('get')]} for calls.",
    }


BROKEN = [
    pytest.param(family, text, id=f"{family.name}-{name}")
    for family in FAMILIES
    for name, text in broken(family).items()
]


@pytest.mark.parametrize("finish", [STOP, LENGTH])
@pytest.mark.parametrize(("family", "text"), BROKEN)
def test_a_malformed_call_stays_text(family: Family, text: str, finish: FinishReason) -> None:
    choice = checked(family, family.answer("Hm.", raw=text), finish)
    assert choice["message"]["tool_calls"] is None
    # Whitespace between the reasoning and the rest isn't part of either.
    assert choice["message"]["content"] == text.lstrip()
    assert choice["message"]["reasoning_content"] == "Hm."
    assert choice["finish_reason"] == finish


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_the_start_of_a_call_is_text_if_the_model_ends_there(family: Family) -> None:
    good = written(family.form, [SIMPLE])
    for text in (good[: good.index("get")], good[: good.index("get") + 2]):
        message = checked(family, family.answer("Hm.", raw=text))["message"]
        assert (message["content"], message["tool_calls"]) == (text.lstrip(), None)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_a_call_inside_the_thought_is_part_of_it(family: Family) -> None:
    thought = f"I could write {written(family.form, [SIMPLE])} here."
    message = checked(family, family.answer(thought, "No."))["message"]
    assert (message["reasoning_content"], message["content"]) == (thought, "No.")
    assert message["tool_calls"] is None
    cut = checked(family, f"{family.reasoning.opening}{thought}", LENGTH)["message"]
    assert (cut["reasoning_content"], cut["content"]) == (thought, None)


@pytest.mark.parametrize(
    "view", [each for each in View if each is not View.GENERATE]
)  # its texts are unparsed
@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_a_call_inside_an_answer_that_follows_a_schema_is_text(family: Family, view: View) -> None:
    of = answer_spec(family, view, request={}, is_constrained=True)
    content = json.dumps({"go": written(family.form, [SIMPLE])}, ensure_ascii=False)
    text = family.answer("Hm.", content)
    body = json.dumps(whole(of, text, STOP))
    assert json.dumps(content) in body
    assert not any(kind in body for kind in ("tool_use", "function_call", '"function"'))
    if view is View.OPENAI:
        for pieces in divisions(text):
            assert chat_parts(of, pieces, STOP)["message"]["content"] == content


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_an_answer_with_a_schema_may_call_tools_instead(family: Family) -> None:
    of = answer_spec(family, is_constrained=True)
    for thought in ("", "Hm."):
        text = family.answer(thought, calls=[NESTED, SIMPLE])
        for pieces in divisions(text):
            choice = chat_parts(of, pieces, STOP)
            assert (called(choice), choice["message"]["content"]) == ([NESTED, SIMPLE], None)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_a_call_that_the_token_limit_cuts_is_partial_whole_and_in_a_stream(family: Family) -> None:
    good = written(family.form, [NESTED])
    name, arguments = called_text(whole(answer_spec(family), family.answer("", raw=good), STOP))
    for length in range(1, len(good)):
        choice = checked(family, family.answer("Hm.", raw=good[:length]), LENGTH, is_fast=True)
        message = choice["message"]
        assert (message["content"], choice["finish_reason"]) == (None, "length")
        assert message["reasoning_content"] == "Hm."
        if message["tool_calls"]:
            found, start = called_text({"choices": [choice]})
            assert found == name
            assert arguments.startswith(start)
        else:
            assert "city" not in good[:length]


def called_text(body: dict[str, Any]) -> tuple[str, str]:
    """Return the name and the arguments of the only call."""
    (call,) = body["choices"][0]["message"]["tool_calls"]
    return call["function"]["name"], call["function"]["arguments"]


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_all_apis_report_the_same_part_of_a_cut_call(family: Family) -> None:
    good = written(family.form, [NESTED])
    _, arguments = called_text(whole(answer_spec(family), good, STOP))
    for length in range(1, len(good), 7):
        text = family.answer("Hm.", raw=good[:length])
        chat = whole(answer_spec(family), text, LENGTH)["choices"][0]["message"]
        calls = [call["function"]["arguments"] for call in chat["tool_calls"] or ()]
        of = answer_spec(family, View.RESPONSES, request={})
        response = whole(of, text, LENGTH)
        items = [item for item in response["output"] if item["type"] == "function_call"]
        assert [item["arguments"] for item in items] == calls
        for item in items:
            is_whole = item["arguments"] == arguments
            assert item["status"] == ("completed" if is_whole else "incomplete")
        assert response["status"] == "incomplete"
        streamed_response = sse_events(streamed(of, text, LENGTH))[-1].json["response"]
        assert streamed_response == response
        of = answer_spec(family, View.MESSAGES, request={})
        message = whole(of, text, LENGTH)
        inputs = [block["input"] for block in message["content"] if block["type"] == "tool_use"]
        assert inputs == [from_json((call or "{}").encode(), partial_mode=True) for call in calls]
        assert message["stop_reason"] == "max_tokens"
        events = [event.json for event in sse_events(streamed(of, text, LENGTH))]
        deltas = [event["delta"] for event in events if event["type"] == "content_block_delta"]
        parts = [delta["partial_json"] for delta in deltas if "partial_json" in delta]
        assert "".join(parts) == "".join(calls)


FRAGMENTS = (
    *("<think>", "</think>", "[THINK]", "[/THINK]", "\n", " ", "é🙂", "text", "{", "}", "[", "]"),
    *("<tool_call>", "</tool_call>", BEGIN, CALL, SEP, CALL_END, END, "[TOOL_CALLS]", "[ARGS]"),
    *("get", "get_weather", "<arg_key>a</arg_key>", "<arg_value>1</arg_value>", "(a=1)", ", "),
)


@given(st.sampled_from(FAMILIES), st.data())
def test_any_text_is_rendered_alike_in_any_pieces(family: Family, data: st.DataObject) -> None:
    good = st.sampled_from([written(family.form, [SIMPLE]), written(family.form, [NESTED])])
    thought = st.sampled_from([family.answer("Hm."), ""])
    parts = st.lists(st.sampled_from(FRAGMENTS) | good, max_size=8)
    text = data.draw(thought) + "".join(data.draw(parts))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=6)))
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    of = answer_spec(family)
    expected = chat_parts(of, (text,), STOP)
    assert chat_parts(of, pieces, STOP) == chat_parts(of, text, STOP) == expected
    if not expected["message"]["tool_calls"]:
        body = whole(of, text, STOP)
        assert {**normal(body["choices"][0]), "usage": body["usage"]} == expected
