"""Texts that grammars of tool calls, of JSON and of reasoning before them allow."""

import json
import random
from typing import Any

import pytest
from byte_grammars import TOKENIZER, is_answer
from hypothesis import given, settings
from hypothesis import strategies as st
from llguidance import LLMatcher
from tiny import tiny_tokenizer
from tokenizers import AddedToken
from weather_tool import FUNCTION, OSAKA, call
from written_calls import Call, use, written

from api.render.tool_parser import CallArguments, Text, ToolCallParser
from shared.protocol.parameter_types import rendered_tools
from shared.protocol.tools import ToolChoice, ToolForm, ToolUse
from shared.reasoning_form import ReasoningForm
from worker.engine.grammar import GrammarCompiler, GrammarSource, json_source
from worker.text.grammar_sandbox import build_grammar, encode_constraint
from worker.text.grammar_source import Constraint, after_reasoning, either
from worker.text.tool_grammar import tool_source

CITY = {
    "$defs": {"city": {"enum": ["Osaka", "Oslo"]}},
    "properties": {"in": {"$ref": "#/$defs/city"}},
}
WEATHER = {"name": "weather", "parameters": {**CITY, "type": "object", "required": ["in"]}}
PING = {"name": "ping"}


def allows(text: str, asked: ToolUse) -> bool:
    """Return whether `text` is a complete answer under the grammar of tools."""
    return is_answer(tool_source(asked), text)


def allows_call(arguments: str, name: str = "weather") -> bool:
    """Return whether a call of WEATHER or PING is allowed."""
    text = f'<tool_call>\n{{"name": "{name}", "arguments": {arguments}}}\n</tool_call>'
    tools = tuple({"type": "function", "function": function} for function in (WEATHER, PING))
    return allows(text, ToolUse(tools=tools, form=ToolForm.HERMES, choice=ToolChoice.REQUIRED))


def test_a_call_has_a_tools_name_and_valid_arguments() -> None:
    assert allows_call('{"in": "Osaka"}')
    assert allows_call("{}", "ping")
    assert not allows_call("{}")
    assert not allows_call('{"in": "Rome"}')
    assert not allows_call('{"x": 1}', "ping")
    assert not allows_call("{}", "pong")
    lenient = {**CITY, "x-guidance": {"lenient": True, "item_separator": ";"}}
    tool = {"type": "function", "function": {"name": "f", "parameters": lenient}}
    source = tool_source(ToolUse(tools=(tool,), form=ToolForm.HERMES, choice=ToolChoice.REQUIRED))
    assert '"item_separator": ","' in source
    assert '"item_separator": ";"' not in source, "a client's schema can't change the options"


def takes(form: ToolForm, text: str, **fields: Any) -> bool:
    """Return whether `text` is a complete answer that may call the tools of `written_calls`."""
    return allows(text, use(form, choice=ToolChoice.REQUIRED, **fields))


def shown(value: Any) -> str:
    return repr(value) if isinstance(value, bool) else json.dumps(value, ensure_ascii=False)


def double_quoted(form: ToolForm, calls: list[Call]) -> str:
    """Return the text of calls, with strings as the grammar writes them."""
    if form is not ToolForm.PYTHONIC:
        return written(form, calls)
    parts = [
        f"{name}({', '.join(f'{key}={shown(value)}' for key, value in given.items())})"
        for name, given in calls
    ]
    return f"[{', '.join(parts)}]"


OSLO = ("get_weather", {"city": "Oslo", "days": 2, "mode": "fast"})
NONE = ("get", dict[str, Any]())


@pytest.mark.parametrize("form", ToolForm)
def test_the_grammar_of_each_form_allows_exactly_what_the_model_may_write(form: ToolForm) -> None:
    assert takes(form, double_quoted(form, [OSLO]))
    assert takes(form, double_quoted(form, [NONE, OSLO]))
    assert takes(form, double_quoted(form, [NONE]), name="get")
    assert not takes(form, double_quoted(form, [NONE, OSLO]), is_parallel=False)
    assert not takes(form, double_quoted(form, [OSLO]), name="get")
    assert not takes(form, "hi")
    assert not takes(form, f"Ok. {double_quoted(form, [OSLO])}")
    for arguments in ({}, {"days": 2}, {"city": "a", "days": "b"}, {"city": "a", "mode": "x"}):
        assert not takes(form, double_quoted(form, [("get_weather", arguments)])), arguments


VALUES = st.fixed_dictionaries(
    {"city": st.text("ab</\n\"'\\é", max_size=9)},
    optional={
        "days": st.integers(-99, 99),
        "heat": st.none() | st.integers(0, 9).map(lambda i: i / 2),
        "wet": st.booleans(),
        "tags": st.lists(st.sampled_from(["x", "<y"]), max_size=2),
        "mode": st.sampled_from(["fast", "slow"]),
    },
)
ORDER = ("city", "days", "heat", "wet", "tags", "mode")


@settings(max_examples=50)
@given(st.sampled_from(ToolForm), st.lists(VALUES, min_size=1, max_size=2))
def test_any_valid_arguments_are_allowed(form: ToolForm, given: list[dict[str, Any]]) -> None:
    ordered = [{key: each[key] for key in ORDER if key in each} for each in given]
    assert takes(form, double_quoted(form, [("get_weather", each) for each in ordered]))


@settings(max_examples=50)
@given(st.sampled_from(ToolForm), st.booleans(), st.integers(0, 2**32))
def test_the_parser_reads_calls_in_whatever_the_grammar_allows(
    form: ToolForm, is_parallel: bool, seed: int
) -> None:
    text = sampled(form, random.Random(seed), is_parallel=is_parallel)
    parser = ToolCallParser(
        rendered_tools(use(form, is_parallel=is_parallel)), emits_early=bool(seed % 2)
    )
    pieces = parser.feed(text) + parser.close()
    assert not any(isinstance(piece, Text) for piece in pieces)
    assert parser.num_calls >= 1
    arguments = [
        "".join(p.text for p in pieces if isinstance(p, CallArguments) and p.index == i)
        for i in range(parser.num_calls)
    ]
    assert all(isinstance(json.loads(text), dict) for text in arguments)


ENDS = ("</parameter>", "</arg_value>", '"', "]", "}", ")", "\n", "0")


def sampled(form: ToolForm, rng: random.Random, **fields: Any) -> str:
    """Return a random answer that the grammar allows."""
    source = tool_source(use(form, choice=ToolChoice.REQUIRED, **fields))
    matcher, raw = LLMatcher(TOKENIZER, source, log_level=0), bytearray()
    while not matcher.is_stopped():
        mask = int.from_bytes(matcher.compute_bitmask(), "little")
        allowed = [token for token in range(257) if mask >> token & 1]
        if 256 in allowed and rng.random() < 0.5:
            break
        # Exponents would make numbers that are too large for JSON parsers.
        usual = [token for token in allowed if 9 < token < 127 and token not in b"eE"]
        ids = [rng.choice(usual or allowed)]
        end = list(rng.choice(ENDS).encode())
        if rng.random() < 0.5 and matcher.validate_tokens(end) == len(end):
            ids = end
        assert matcher.consume_tokens(ids)
        raw += bytes(ids)
    return raw.decode()


THINK, MISTRAL = ReasoningForm.THINK, ReasoningForm.MISTRAL
SCHEMA = '{"type": "object", "required": ["a"], "properties": {"a": {"const": 1}}}'
JSON = json_source(SCHEMA)
TOOLS = ToolUse(tools=({"type": "function", "function": FUNCTION},), form=ToolForm.HERMES)
CALLS = tool_source(TOOLS)
PLAIN = tiny_tokenizer()


def with_tokens(form: ReasoningForm, *, special: bool) -> Any:
    """Return a tokenizer in which the markers of `form` are tokens."""
    hf = tiny_tokenizer()
    added = [AddedToken(marker, special=special, normalized=False) for marker in form.markers]
    hf.add_tokens(added, special_tokens=special)
    return hf


def allows_under(
    source: GrammarSource, text: str, hf: Any = PLAIN, *, is_whole: bool = True
) -> bool:
    """Return whether `text` is an answer under the grammar, or the start of one."""
    compiler = GrammarCompiler(hf, vocab_size=len(hf), eos_ids=[hf.eos_token_id])
    state = compiler.compile(source).start()
    ids = hf(text, add_special_tokens=False)["input_ids"]
    for token in [*ids, hf.eos_token_id] if is_whole else ids:
        if not state.allowed()[token // 8] >> token % 8 & 1:
            return False
        if token != hf.eos_token_id:
            state.advance(token)
    return True


def reasoned(
    hf: Any = PLAIN,
    form: ReasoningForm = THINK,
    source: GrammarSource = JSON,
    *,
    is_open: bool = False,
) -> GrammarSource:
    ids = hf.get_vocab()
    return after_reasoning(source, form, is_open=is_open, token_id=ids.get)


TOKENIZERS = [PLAIN, *(with_tokens(THINK, special=special) for special in (False, True))]


@pytest.mark.parametrize("hf", TOKENIZERS)
def test_an_answer_may_reason_before_it_follows_the_grammar(hf: Any) -> None:
    source = reasoned(hf)
    assert allows_under(source, '{"a": 1}', hf)
    assert allows_under(source, '<think>\nwhy {"b": <not> é?\n</think>\n\n{"a": 1}', hf)
    assert allows_under(source, '<think></think>{"a": 1}', hf)
    assert allows_under(source, '\n<think>why</think>\n{"a": 1}', hf)
    assert not allows_under(source, "\n{", hf, is_whole=False)
    assert not allows_under(source, "why", hf, is_whole=False)
    assert not allows_under(source, "<think>why</think>so", hf, is_whole=False)
    assert not allows_under(source, '<think>why</think>{"b"', hf, is_whole=False)
    assert not allows_under(source, "<think>why", hf)
    assert not allows_under(source, '{"a": 1}</think>{"a": 1}', hf)
    inside = reasoned(hf, is_open=True)
    assert allows_under(inside, 'why\n</think>\n{"a": 1}', hf)
    assert not allows_under(inside, '{"a": 1}', hf)
    assert not allows_under(inside, "why</think>so", hf, is_whole=False)


@pytest.mark.parametrize("special", [False, True])
def test_a_marker_of_several_tokens_ends_the_reasoning_too(special: bool) -> None:
    hf = with_tokens(MISTRAL, special=special)
    source = reasoned(hf, MISTRAL)
    compiler = GrammarCompiler(hf, vocab_size=len(hf), eos_ids=[hf.eos_token_id])
    state = compiler.compile(source).start()
    for letter in "[THINK]why[/THINK]":
        (token,) = hf(letter, add_special_tokens=False)["input_ids"]
        assert state.allowed()[token // 8] >> token % 8 & 1
        state.advance(token)
    (token,) = hf("s", add_special_tokens=False)["input_ids"]
    assert not state.allowed()[token // 8] >> token % 8 & 1


def test_an_answer_either_calls_tools_or_is_json() -> None:
    source = either(CALLS, JSON)
    built = build_grammar(encode_constraint(Constraint(tools=TOOLS, json_schema=SCHEMA)))
    assert (built.text, built.error) == (source, "")
    for answer in (call(OSAKA), f"{call(OSAKA)}\n{call('{}')}", '{"a": 1}'):
        assert allows_under(source, answer)
        assert allows_under(reasoned(source=source), f"<think>why</think>\n{answer}")
    assert not allows_under(source, f'{call(OSAKA)}{{"a": 1}}')
    assert not allows_under(source, "Sunny", is_whole=False)
    assert not allows_under(source, call(OSAKA).replace("weather", "other"))
