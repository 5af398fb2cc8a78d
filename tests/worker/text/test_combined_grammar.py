"""Texts that grammars allow after a model's reasoning, and where tools or JSON may follow."""

from typing import Any

import pytest
from tiny import tiny_tokenizer
from tokenizers import AddedToken
from weather_tool import FUNCTION, OSAKA, call

from shared.protocol.tools import ToolForm, ToolUse
from shared.reasoning_form import ReasoningForm
from worker.engine.grammar import GrammarCompiler, GrammarSource, json_source
from worker.text.grammar_sandbox import build_grammar, encode_constraint
from worker.text.grammar_source import Constraint, after_reasoning, either
from worker.text.tool_grammar import tool_source

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


def allows(source: GrammarSource, text: str, hf: Any = PLAIN, *, is_whole: bool = True) -> bool:
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
    assert allows(source, '{"a": 1}', hf)
    assert allows(source, '<think>\nwhy {"b": <not> é?\n</think>\n\n{"a": 1}', hf)
    assert allows(source, '<think></think>{"a": 1}', hf)
    assert allows(source, '\n<think>why</think>\n{"a": 1}', hf)
    assert not allows(source, "\n{", hf, is_whole=False)
    assert not allows(source, "why", hf, is_whole=False)
    assert not allows(source, "<think>why</think>so", hf, is_whole=False)
    assert not allows(source, '<think>why</think>{"b"', hf, is_whole=False)
    assert not allows(source, "<think>why", hf)
    assert not allows(source, '{"a": 1}</think>{"a": 1}', hf)


@pytest.mark.parametrize("hf", TOKENIZERS)
def test_an_answer_inside_the_reasoning_must_end_it(hf: Any) -> None:
    source = reasoned(hf, is_open=True)
    assert allows(source, 'why\n</think>\n{"a": 1}', hf)
    assert not allows(source, '{"a": 1}', hf)
    assert not allows(source, "why</think>so", hf, is_whole=False)


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
        assert allows(source, answer)
        assert allows(reasoned(source=source), f"<think>why</think>\n{answer}")
    assert not allows(source, f'{call(OSAKA)}{{"a": 1}}')
    assert not allows(source, "Sunny", is_whole=False)
    assert not allows(source, call(OSAKA).replace("weather", "other"))
