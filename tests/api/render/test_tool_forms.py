"""Calls in the formats of several model families."""

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from read_calls import read_calls
from written_calls import BEGIN, CALL, CALL_END, END, SEP, TOOLS, use, written

from api.render.tool_deltas import ToolAnswers
from api.render.tool_parser import ToolCallParser
from shared.protocol.ids import JobId
from shared.protocol.parameter_types import rendered_tools
from shared.protocol.tools import CALL_ENDS, ToolForm, ToolUse

Calls = list[tuple[str, Any]]
F = ToolForm
OSLO = ("get_weather", {"city": "Oslo", "days": 2})
NONE = ("get", dict[str, Any]())


def parse(use: ToolUse, *chunks: str, emits_early: bool = False) -> tuple[str, Calls]:
    """Return text and calls (name, decoded arguments) of an answer that arrives in `chunks`."""
    text, calls = read_calls(rendered_tools(use), *chunks, emits_early=emits_early)
    return text, [(name, json.loads(arguments)) for name, arguments in calls]


TAGS = ("</parameter>", "</arg_value>", '"', "\\", "'")
VALUES = st.fixed_dictionaries(
    {},
    optional={
        "city": st.text(max_size=9),
        "days": st.integers(-(2**70), 2**70),
        "heat": st.none() | st.floats(-1e9, 1e9).map(lambda x: x + 0.5),
        "wet": st.booleans(),
        "tags": st.lists(st.sampled_from(TAGS) | st.text(max_size=4), max_size=3),
        "area": st.dictionaries(st.text(max_size=2), st.booleans() | st.none(), max_size=2),
        "mode": st.sampled_from(["fast", "slow"]),
    },
)


def is_free(text: str) -> bool:
    """Return whether `text` can be a value in all forms."""
    return not any(tag in text for tag in ("</parameter", "</arg_value"))


CALLS = st.lists(
    st.tuples(st.just("get_weather"), VALUES.filter(lambda v: is_free(v.get("city", ""))))
    | st.just(NONE)
    | st.tuples(st.just("get_weather-2"), st.fixed_dictionaries({"day": st.integers()})),
    min_size=1,
    max_size=3,
)


@given(st.sampled_from(F), CALLS, st.data())
def test_calls_are_read_as_they_were_meant(form: ToolForm, calls: Calls, data: Any) -> None:
    answer = written(form, calls)
    for emits_early in (False, True):
        assert parse(use(form), *chunked(answer, data), emits_early=emits_early) == ("", calls)


def chunked(text: str, data: Any) -> list[str]:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=8)))
    return [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]


GOOD: list[tuple[ToolForm, str, str, Calls]] = [
    (F.MISTRAL, 'Ok. [TOOL_CALLS][{"name": "get", "arguments": {}}]', "Ok.", [NONE]),
    (F.MISTRAL, '[TOOL_CALLS] [ {"arguments": {}, "name": "get", "id": "123456789"} ]', "", [NONE]),
    (F.MISTRAL, '[TOOL_CALLS] [{"name": "get", "arguments": {}}', "", [NONE]),
    (F.MISTRAL, "[TOOL_CALLS]get{}", "", [NONE]),
    (F.MISTRAL_ARGS, "a [TOOL_CALLS]get[CALL_ID]a1B2c3D4e[ARGS]{} b", "a b", [NONE]),
    (F.MISTRAL_ARGS, "[TOOL_CALLS]get[ARGS] {}[TOOL_CALLS]get[ARGS]{}", "", [NONE, NONE]),
    (F.PYTHONIC, "<|python_start|>[get()]<|python_end|>", "", [NONE]),
    (F.PYTHONIC, "\n[ get ( ) ]", "\n[ get ( ) ]", []),
    (F.PYTHONIC, "[get(), get(),]\n", "", [NONE, NONE]),
    (
        F.PYTHONIC,
        r"""[get(a='it\'s "x"\n\x41\u00e9\ud83d\ude00', b=[None, (True, -2.5e3)], c={'k': {}})]""",
        "",
        [("get", {"a": 'it\'s "x"\nAé😀', "b": [None, [True, -2500.0]], "c": {"k": {}}})],
    ),
    (
        F.PYTHONIC,
        "[get(a=null, b=[true, false,],)]",
        "",
        [("get", {"a": None, "b": [True, False]})],
    ),
    (F.QWEN3_CODER, "Hm.\n<function=get>\n</function>", "Hm.", [NONE]),
    (F.QWEN3_CODER, "<tool_call><function=get></function></tool_call>.", ".", [NONE]),
    (
        F.QWEN3_CODER,
        "<function=get_weather>\n<parameter=days>\n3\n</parameter>\n<parameter=city>\n\n 3 <b>\n\n"
        "</parameter>\n<parameter=wet>True</parameter><parameter=heat>None</parameter></function>",
        "",
        [("get_weather", {"days": 3, "city": "\n 3 <b>\n", "wet": True, "heat": None})],
    ),
    (
        F.QWEN3_CODER,
        "<function=get_weather><parameter=days>three</parameter><parameter=else>5</parameter>"
        "</function>",
        "",
        [("get_weather", {"days": "three", "else": "5"})],
    ),
    (F.DEEPSEEK_V3, f"Ok\n{CALL}function{SEP}get\n```json\n{{}}\n```{CALL_END}", "Ok", [NONE]),
    (F.DEEPSEEK_V3, f"{BEGIN}{CALL}get{SEP}{{}}{CALL_END}\n{CALL}get{SEP}{{}}", "", [NONE, NONE]),
    (F.DEEPSEEK_V31, f"{BEGIN}\n{CALL}get{SEP}{{}}{CALL_END}\n{END} Ok", " Ok", [NONE]),
    (F.GLM45, "<tool_call>get</tool_call>", "", [NONE]),
    (
        F.GLM45,
        "Hm <tool_call>get_weather<arg_key>days</arg_key><arg_value>3</arg_value>\n"
        "<arg_key>city</arg_key>\n<arg_value>3</arg_value></tool_call>",
        "Hm",
        [("get_weather", {"days": 3, "city": "3"})],
    ),
    (F.GRANITE, '<tool_call>[{"name": "get", "arguments": {}}]</tool_call>', "", [NONE]),
    (F.GRANITE, '<|tool_call|> [{"name": "get"}, {"name": "get"}]', "", [NONE, NONE]),
]
"""Form, answer, expected text, expected calls."""

TEXTS: list[tuple[ToolForm, str]] = [
    *((form, text) for form in F for text in ("", " Sunny.\n", "a < b [1] (c) `d`", "{", "[")),
    *((form, "<|tool_call|><tool_call>[TOOL_CALLS]" + BEGIN + CALL) for form in F),
    (F.MISTRAL, '[TOOL_CALLS] [{"name": "other", "arguments": {}}]'),
    (F.MISTRAL, '[TOOL_CALLS] [{"name": "get", "arguments": {}'),
    (F.MISTRAL_ARGS, "[TOOL_CALLS]other[ARGS]{}"),
    (F.MISTRAL_ARGS, "[TOOL_CALLS]get_weathers[ARGS]{}"),
    (F.MISTRAL_ARGS, "[TOOL_CALLS]get[ARGS][1]"),
    (F.MISTRAL_ARGS, "[TOOL_CALLS]get[ARGS]"),
    (F.MISTRAL_ARGS, "[TOOL_CALLS]get[ARG]{}"),
    (F.MISTRAL_ARGS, "[TOOL_CALLS]get[CALL_ID][ARGS]{}"),
    (F.PYTHONIC, "I call [get()]"),
    (F.PYTHONIC, "[other()]"),
    (F.PYTHONIC, "[get(1)]"),
    (F.PYTHONIC, "[get(a=b)]"),
    (F.PYTHONIC, "[get(a=1, a=2)]"),
    (F.PYTHONIC, "[get(a=007)]"),
    (F.PYTHONIC, "[get(a={1: 2})]"),
    (F.PYTHONIC, "[get(a=get())]"),
    (F.PYTHONIC, "[get(a='\\ud800')]"),
    (F.PYTHONIC, "[get(a=[}"),
    (F.PYTHONIC, "[get(a=" + "[" * 65),
    (F.PYTHONIC, "[get(a='"),
    (F.PYTHONIC, '[get(a="x"'),
    (F.QWEN3_CODER, "<tool_call>\n<function=other>\n</function>\n</tool_call>"),
    (F.QWEN3_CODER, "<function=get>\n<parameter=a>\n1\n</parameter>"),
    (F.QWEN3_CODER, "<function=get>\n<parameter=a"),
    (F.QWEN3_CODER, "<function=get>\n<parameter=>1</parameter></function>"),
    (F.QWEN3_CODER, "<function=get>\n{}</function>"),
    (F.QWEN3_CODER, "<function=get><parameter=" + "a" * 300 + ">1</parameter></function>"),
    (F.DEEPSEEK_V3, f"{BEGIN}{CALL}function{SEP}other\n```json\n{{}}\n```{CALL_END}{END}"),
    (F.DEEPSEEK_V3, f"{BEGIN}{CALL}function{SEP}get\n```\n{{}}\n```{CALL_END}{END}"),
    (F.DEEPSEEK_V31, f"{BEGIN}{CALL}get{SEP}[]{CALL_END}{END}"),
    (F.DEEPSEEK_V31, f"{BEGIN}{CALL}get{{}}{CALL_END}{END}"),
    (F.DEEPSEEK_V31, f"{BEGIN}{CALL}get{SEP}"),
    (F.GLM45, "<tool_call>other\n</tool_call>"),
    (F.GLM45, "<tool_call>get\n<arg_key>a</arg_key>\n</tool_call>"),
    (F.GLM45, "<tool_call>get\n<arg_key>a</arg_key>\n<arg_value>1"),
    (F.GLM45, "<tool_call>get\n<arg_key>a</arg_key>\n<arg_value>1</arg_value>\n"),
    (
        F.GLM45,
        "<tool_call>get<arg_key>a</arg_key><arg_value>x</arg_value>y</arg_value></tool_call>",
    ),
    (F.GRANITE, '<|tool_call|>{"name": "get", "arguments": {}}'),
]
"""Form, and an answer without calls."""


@pytest.mark.parametrize("emits_early", [False, True])
@pytest.mark.parametrize(("form", "answer", "text", "calls"), GOOD)
def test_variants_of_calls_are_read(
    form: ToolForm, answer: str, text: str, calls: Calls, emits_early: bool
) -> None:
    assert parse(use(form), answer, emits_early=emits_early) == (text, calls)
    assert parse(use(form), *answer, emits_early=emits_early) == (text, calls)


@pytest.mark.parametrize(("form", "answer"), TEXTS)
def test_text_that_resembles_a_call_stays_text(form: ToolForm, answer: str) -> None:
    assert parse(use(form), answer) == (answer, [])
    assert parse(use(form), *answer) == (answer, [])


@pytest.mark.parametrize("form", F)
def test_only_offered_tools_can_be_called(form: ToolForm) -> None:
    answer = written(form, [OSLO])
    assert parse(use(form, name="get"), answer) == (answer, [])


@pytest.mark.parametrize("form", F)
def test_without_parallel_calls_the_rest_is_text(form: ToolForm) -> None:
    answer = written(form, [NONE, NONE])
    for chunks, emits_early in (((answer,), False), (tuple(answer), True)):
        text, calls = parse(use(form, is_parallel=False), *chunks, emits_early=emits_early)
        assert calls == [NONE]
        assert "get" in text
        assert answer.endswith(text)


@pytest.mark.parametrize("form", CALL_ENDS)
def test_a_call_is_complete_if_the_answer_stops_at_its_end(form: ToolForm) -> None:
    stopped = written(form, [OSLO]).split(CALL_ENDS[form])[0]
    for emits_early in (False, True):
        assert parse(use(form), *stopped, emits_early=emits_early) == ("", [OSLO])


def test_ids_for_mistral_have_nine_characters() -> None:
    (call,) = ToolAnswers(JobId("a"), use(F.MISTRAL), stream=False).message(
        0, written(F.MISTRAL, [OSLO])
    )["tool_calls"]
    assert len(call["id"]) == 9
    assert call["id"].isalnum()


MARKS = (
    *("<tool_call>", "</tool_call>", "[TOOL_CALLS]", "[ARGS]", "[CALL_ID]", "<|tool_call|>"),
    *(BEGIN, END, CALL, CALL_END, SEP, "function", "```json", "```", "<|python_start|>", "get"),
    *(
        "<function=get>",
        "</function>",
        "<parameter=days>",
        "</parameter>",
        "get_weather",
        " ",
        "\n",
    ),
    *("<arg_key>days</arg_key>", "<arg_value>", "</arg_value>", '"name": "get"', '"arguments": {}'),
    *("(", ")", "[", "]", "{", "}", ",", ";", "=", '"', "'", "\\", "x", "1", ":", " " * 300),
)


@st.composite
def answers(draw: Any) -> tuple[ToolForm, str]:
    """Return a form, and a text with valid, broken and truncated calls."""
    form = draw(st.sampled_from(F))
    whole = st.sampled_from([written(form, [OSLO]), written(form, [NONE, NONE])])
    cut = whole.flatmap(lambda text: st.integers(0, len(text)).map(lambda n: text[:n]))
    parts = draw(st.lists(st.sampled_from(MARKS) | whole | cut | st.text(max_size=3), max_size=12))
    return form, "".join(parts)


@given(answers(), st.data(), st.booleans())
def test_the_result_does_not_depend_on_chunk_boundaries(
    answer: tuple[ToolForm, str], data: Any, is_parallel: bool
) -> None:
    form, text = answer
    of = use(form, is_parallel=is_parallel)
    for emits_early in (False, True):
        whole = read_calls(of, text, emits_early=emits_early)
        for chunks in (text, chunked(text, data)):
            assert read_calls(of, *chunks, emits_early=emits_early) == whole


@given(answers())
def test_characters_outside_calls_are_kept_in_order(answer: tuple[ToolForm, str]) -> None:
    form, text = answer
    parsed, calls = parse(use(form), text)
    rest = iter(text)
    assert all(char in rest for char in parsed)
    assert calls or parsed == text
    assert all(isinstance(arguments, dict) for _, arguments in calls)


@given(st.sampled_from(F), CALLS, st.integers(0, 400))
def test_a_truncated_answer_loses_nothing(form: ToolForm, calls: Calls, length: int) -> None:
    answer = written(form, calls)[:length]
    text, found = parse(use(form), answer)
    assert found == calls[: len(found)]
    assert answer.endswith(text)


UNITS = (
    *("<tool_call>", "[TOOL_CALLS]", BEGIN, CALL, " ", "<", "[", "get", "<tool_call>{", "[get(a='"),
    *("[TOOL_CALLS] [{", "<function=get><parameter=a>", '<tool_call>{"name": "'),
)


@pytest.mark.parametrize("form", F)
def test_long_texts_take_linear_time(form: ToolForm) -> None:
    def seconds(text: str) -> float:
        parser, start = ToolCallParser(use(form), emits_early=True), time.process_time()
        for at in range(0, len(text), 4):
            parser.feed(text[at : at + 4])
        parser.close()
        return time.process_time() - start

    heads = ("", '<tool_call>{"name": "x", "arguments": {"', written(form, [OSLO])[:-20])
    for unit in (*UNITS, written(form, [OSLO])):
        for head in heads:
            few, many = (seconds((head + unit * n)[:n]) for n in (500, 4_000))
            assert many < 8 * 4 * few + 0.1, (head, unit)


def test_the_answers_specification_has_only_the_types_that_are_needed() -> None:
    def kept(form: ToolForm) -> Any:
        return [tool["function"] for tool in rendered_tools(ToolUse(tools=TOOLS, form=form)).tools]

    names = [{"name": name} for name in ("get", "get_weather", "get_weather-2")]
    assert kept(F.HERMES) == names
    types = {
        "days": {"type": ["integer"]},
        "heat": {"type": ["null", "number"]},
        "wet": {"type": ["boolean"]},
        "tags": {"type": ["array"]},
        "area": {"type": ["object"]},
    }
    day = {"properties": {"day": {"type": ["integer"]}}}
    assert kept(F.GLM45) == [
        names[0],
        names[1] | {"parameters": {"properties": types}},
        names[2] | {"parameters": day},
    ]
