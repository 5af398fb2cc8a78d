"""Which parts of an answer are calls, in the formats of several model families."""

import json
import time
from typing import Any

import pytest
from drawn_calls import CALLS, NONE
from hypothesis import given
from hypothesis import strategies as st
from read_calls import read_calls
from written_calls import BEGIN, CALL, CALL_END, END, SEP, TOOLS, use, written

from api.render.tool_deltas import ToolAnswers
from api.render.tool_parser import Text, ToolCallParser
from shared.protocol.ids import JobId
from shared.protocol.parameter_types import rendered_tools
from shared.protocol.results import FinishReason
from shared.protocol.tools import CALL_ENDS, ToolForm, ToolUse

Calls = list[tuple[str, Any]]
F = ToolForm
OSLO = ("get_weather", {"city": "Oslo", "days": 2})
JSON_FORMS = (F.HERMES, F.LLAMA3_JSON)
"""Forms that write each call as a JSON object of its own."""


def parse(use: ToolUse, *chunks: str, emits_early: bool = False) -> tuple[str, Calls]:
    """Return text and calls (name, decoded arguments) of an answer that arrives in `chunks`."""
    text, calls = read_calls(rendered_tools(use), *chunks, emits_early=emits_early)
    return text, [(name, json.loads(arguments)) for name, arguments in calls]


@given(st.sampled_from(F), CALLS, st.data())
def test_calls_are_read_as_they_were_meant(form: ToolForm, calls: Calls, data: Any) -> None:
    answer = written(form, calls)
    for emits_early in (False, True):
        assert parse(use(form), *chunked(answer, data), emits_early=emits_early) == ("", calls)


def chunked(text: str, data: Any) -> list[str]:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=8)))
    return [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]


ARGUMENTS = '{"city": "Oslo", "area": {"b": [2, {"c": "}"}]}}'
RAW = f'{{"name": "get_weather", "arguments": {ARGUMENTS}}}'
AREA = ("get_weather", json.loads(ARGUMENTS))
BROKEN = "<tool_call>{oops}</tool_call>"


def hermes(*objects: str) -> str:
    return "\n".join(f"<tool_call>\n{text}\n</tool_call>" for text in objects)


GOOD: list[tuple[ToolForm, str, str, Calls]] = [
    (F.HERMES, f"<tool_call>{RAW}</tool_call>", "", [AREA]),
    # ended by an end-of-sequence token or a stop string
    (F.HERMES, f"<tool_call>{RAW}", "", [AREA]),
    (F.HERMES, f"Wait.\n\n{hermes(RAW)}\n", "Wait.", [AREA]),
    (F.HERMES, f"{hermes(RAW)}\nDone? <b>", "\nDone? <b>", [AREA]),
    (F.HERMES, f"{BROKEN}\n{hermes(RAW)}", BROKEN, [AREA]),
    (F.HERMES, hermes('{"arguments": {"a": 1}, "name": "get"}'), "", [("get", {"a": 1})]),
    (F.HERMES, hermes('{"name": "get"}'), "", [NONE]),
    (F.HERMES, hermes('{"name": "get", "arguments": null}'), "", [NONE]),
    (F.HERMES, hermes('{"name": "get", "arguments": "{\\"a\\": 1}"}'), "", [("get", {"a": 1})]),
    (
        F.HERMES,
        hermes('{"name": "get", "arguments": {"x": "</tool_call> \\" \\\\"}}'),
        "",
        [("get", {"x": '</tool_call> " \\'})],
    ),
    (F.LLAMA3_JSON, RAW, "", [AREA]),
    (F.LLAMA3_JSON, f"\n {RAW} \n", "", [AREA]),
    (F.LLAMA3_JSON, f"{RAW}; {RAW}", "", [AREA, AREA]),
    (
        F.LLAMA3_JSON,
        '{"type": "function", "name": "get", "parameters": {"a": "1"}}',
        "",
        [("get", {"a": "1"})],
    ),
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
    (F.HERMES, "a <tool_call"),
    (F.HERMES, "a <tool_call> b"),
    (F.HERMES, "a <tool_call> \n"),
    (F.HERMES, RAW),
    (F.HERMES, " <tool_call>{oops}</tool_call> "),
    (F.HERMES, "<tool_call>[1]</tool_call>"),
    (F.HERMES, '<tool_call>{"name": "unknown", "arguments": {}}</tool_call>'),
    (F.HERMES, '<tool_call>{"name": 3, "arguments": {}}</tool_call>'),
    (F.HERMES, '<tool_call>{"name": "get", "arguments": [1]}</tool_call>'),
    (F.HERMES, '<tool_call>{"name": "get", "arguments": "hi"}</tool_call>'),
    (F.HERMES, '<tool_call>{"arguments": {"a": 1}, "name": "get"'),
    (F.HERMES, '<tool_call>{"name": "get"]'),
    (F.HERMES, '<tool_call>{"name": "a\\x", "arguments": {}}</tool_call>'),
    (F.LLAMA3_JSON, f"I call {RAW}"),
    (F.LLAMA3_JSON, '{"name": "Ada", "parameters": {"born": 1815}}'),
    (F.LLAMA3_JSON, '{"city": "Osaka"}'),
    (F.LLAMA3_JSON, '  {"name": "get"'),
    (F.LLAMA3_JSON, hermes(RAW)),
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
    for emits_early in (False, True) if form in JSON_FORMS else (False,):
        assert parse(use(form), answer, emits_early=emits_early) == (answer, [])
        assert parse(use(form), *answer, emits_early=emits_early) == (answer, [])


LATE: list[str] = [
    hermes('{"name": "get", "arguments": {"a": 1,,}}'),
    hermes('{"name": "get", "arguments": {"a": 1]}'),
    hermes('{"name": "get", "arguments": {"a": 1}'),
    '<tool_call>{"name": "get", "arguments": {"a": "1',
]
"""Answers that become malformed after the start of their arguments."""


@pytest.mark.parametrize("answer", LATE)
def test_a_malformed_call_is_text_except_for_arguments_that_were_emitted(answer: str) -> None:
    assert read_calls(use(F.HERMES), answer) == (answer, [])
    text, calls = read_calls(use(F.HERMES), *answer, emits_early=True)
    ((name, arguments),) = calls
    assert name == "get"
    assert arguments + text in answer or answer.endswith(text)
    assert arguments.startswith('{"a": ')
    assert arguments in answer


def test_text_is_emitted_immediately_unless_it_may_start_a_call() -> None:
    parser = ToolCallParser(use(F.HERMES), emits_early=True)
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
    st.sampled_from(JSON_FORMS),
    st.booleans(),
)
def test_any_arguments_arrive_as_the_model_wrote_them(
    arguments: dict[str, Any], said: str, form: ToolForm, is_ascii: bool
) -> None:
    raw = json.dumps(arguments, ensure_ascii=is_ascii)
    call = f'{{"name": "get", "arguments": {raw}}}'
    answer = f"{said}\n{hermes(call)}" if form is F.HERMES else call
    for emits_early in (False, True):
        text, calls = read_calls(use(form), *answer, emits_early=emits_early)
        assert calls == [("get", raw)]
        assert text == (said.rstrip() if form is F.HERMES else "")


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
        0, written(F.MISTRAL, [OSLO]), FinishReason.STOP
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

    good = written(form, [OSLO])
    # The start of a call in another form is text, as which it is among the units.
    begun = ['<tool_call>{"name": "x", "arguments": {"'] if "<tool_call" in good else []
    heads = ("", good[:-20], *begun)
    for unit in (*UNITS, good):
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


@given(st.sampled_from(F), CALLS, st.data())
def test_a_cut_answer_has_the_start_of_its_last_call_and_no_markup(
    form: ToolForm, calls: Calls, data: Any
) -> None:
    answer = written(form, calls)
    _, expected = read_calls(rendered_tools(use(form)), answer)
    cut = answer[: data.draw(st.integers(0, len(answer)))]
    for emits_early in (False, True):
        text, found = read_calls(
            rendered_tools(use(form)), *chunked(cut, data), emits_early=emits_early, is_cut=True
        )
        assert text.strip() == ""
        assert found[:-1] == expected[: max(0, len(found) - 1)]
        for (name, start), (wanted, arguments) in zip(
            found[-1:], expected[len(found) - 1 :], strict=False
        ):
            assert (name, arguments[: len(start)]) == (wanted, start)
