"""Grammars token by token, with byte-level and SentencePiece tokenizers."""

import json
import time
from typing import Any
from unittest.mock import MagicMock

import pytest
import torch
from engine_requests import make_request
from tiny import tiny_tokenizer
from tiny_tokenizers import byte_level_tokenizer, sentencepiece_tokenizer
from transformers import PreTrainedTokenizerFast

from shared.errors import ErrorCode, GrammarRejected, JobFailed
from worker.engine.grammar import (
    MAX_EXTRA_S,
    MAX_TOKEN_S,
    Grammar,
    GrammarCompiler,
    GrammarCost,
    GrammarState,
    json_source,
    lark_source,
)
from worker.engine.logits import adjust

TOKENIZER = tiny_tokenizer()
VOCAB = len(TOKENIZER)
EOS_IDS = {2, 4}
COMPILER = GrammarCompiler(TOKENIZER, vocab_size=VOCAB, eos_ids=EOS_IDS)


def grammar(schema: dict[str, Any], compiler: GrammarCompiler = COMPILER) -> Grammar:
    return compiler.compile(json_source(json.dumps(schema)))


def ids_of(text: str) -> list[int]:
    ids: list[int] = TOKENIZER(text, add_special_tokens=False)["input_ids"]
    return ids


def allowed(state: GrammarState) -> set[int]:
    mask = state.allowed()
    return {i for i in range(8 * len(mask)) if mask[i // 8] >> i % 8 & 1}


def after(schema: dict[str, Any], text: str) -> set[int]:
    return allowed(grammar(schema).start(ids_of(text)))


def test_only_the_end_is_allowed_where_the_grammar_ends_and_no_other_special_token() -> None:
    schema = {"type": "object", "properties": {"a": {"const": 1}}, "required": ["a"]}
    assert after(schema | {"additionalProperties": False}, '{"a":1}') == EOS_IDS
    assert not after(schema, '{"a":1') & EOS_IDS
    specials = set(TOKENIZER.all_special_ids)
    assert len(specials) == 6
    assert not after({"type": "string"}, '"') & specials
    compiler = GrammarCompiler(TOKENIZER, vocab_size=VOCAB + 100, eos_ids=EOS_IDS)
    assert max(allowed(grammar({"type": "string"}, compiler).start(ids_of('"')))) < VOCAB


LIST = {
    "type": "object",
    "properties": {"next": {"$ref": "#"}},
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    ("schema", "text", "is_accepted"),
    [
        (LIST, '{"next":{"next":{}}}', True),
        ({"type": "object"}, '{\n  "a": [\n    1\n  ]\n}', True),
        ({"type": "object"}, "{" + "\n" * 2 + "}", False),
        ({"type": "object"}, "{" + " " * 2 + "}", False),
        ({"type": "string"}, r'"\u0001"', True),
        ({"type": "string"}, r'"\ud800"', False),
    ],
    ids=["recursion", "pretty", "two lines", "two spaces", "an escape", "a lone surrogate"],
)
def test_recursion_is_followed_whitespace_bounded_and_lone_surrogates_are_excluded(
    schema: dict[str, Any], text: str, is_accepted: bool
) -> None:
    try:
        found = after(schema, text) >= EOS_IDS
    except JobFailed:
        found = False
    assert found is is_accepted


@pytest.mark.parametrize("tokenizer", [byte_level_tokenizer(), sentencepiece_tokenizer()])
def test_allowed_tokens_decode_to_text_that_follows_the_grammar(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    schema = {"enum": [{"word": "lazy 好 é"}, {"word": "the quick 🦜"}]}
    eos_id = tokenizer.eos_token_id
    compiler = GrammarCompiler(tokenizer, vocab_size=len(tokenizer), eos_ids={eos_id})
    state, ids = grammar(schema, compiler).start(), []
    while (token := max(allowed(state))) != eos_id:
        state.advance(token)
        ids.append(token)
    assert json.loads(tokenizer.decode(ids)) in schema["enum"]


@pytest.mark.parametrize("width", [VOCAB - 20, VOCAB, VOCAB + 300])
def test_logits_may_be_wider_or_narrower_than_the_tokenizer(width: int) -> None:
    """Embeddings may be padded, and some tokenizers have more ids than their model."""
    logits = torch.zeros(2, width)
    adjust(logits, [make_request(), make_request(grammar=grammar({"type": "boolean"}).start())])
    assert logits[0].isfinite().all()
    assert set(logits[1].isfinite().nonzero().flatten().tolist()) == {*ids_of("t"), *ids_of("f")}


def test_an_answer_that_does_not_follow_the_grammar_is_not_resumed() -> None:
    with pytest.raises(JobFailed) as failed:
        grammar({"type": "boolean"}).start(ids_of("tr1"))
    assert failed.value.error.code is ErrorCode.RESUME_DIVERGED


@pytest.mark.parametrize(
    ("schema", "named"),
    [
        ({"type": "array", "uniqueItems": True}, "uniqueItems"),
        ({"not": {"type": "string"}}, "not"),
        ({"if": {}, "then": {}}, "then"),
        ({"type": "object", "propertyNames": {"pattern": "^a"}}, "propertyNames"),
        ({"type": "array", "contains": {}}, "contains"),
        ({"oneOf": [{"type": "integer"}, {"type": "number"}]}, "oneOf"),
        ({"type": "string", "format": "iri"}, "iri"),
        ({"type": "string", "pattern": "(?=a)b"}, "look-around"),
        ({"type": "string", "pattern": "("}, "unclosed group"),
        ({"type": "text"}, "text"),
        ({"$ref": "https://example.com/schema.json"}, "https://example.com/schema.json"),
        ({"$ref": "#/$defs/absent"}, "/$defs/absent"),
        ({"$ref": "#"}, "no text matches it"),
        ({"type": "integer", "minimum": 5, "maximum": 3}, "minimum (5) is greater"),
        ({"enum": []}, "Unsatisfiable"),
        ({"x-guidance": {"lenient": True}, "type": "array", "uniqueItems": True}, "uniqueItems"),
    ],
)
def test_unsupported_schemas_are_refused_with_the_reason(
    schema: dict[str, Any], named: str
) -> None:
    with pytest.raises(GrammarRejected) as rejected:
        grammar(schema)
    assert named in str(rejected.value)


def test_deep_nesting_is_refused() -> None:
    with pytest.raises(GrammarRejected, match="recursion limit"):
        COMPILER.compile(json_source('{"items":' * 900 + "{}" + "}" * 900))


def test_an_unsupported_tokenizer_is_reported_when_a_grammar_is_compiled() -> None:
    slow = MagicMock(spec=["__len__", "get_vocab"])  # it has no fast implementation
    for compiler, reason in (
        (GrammarCompiler(slow, vocab_size=9, eos_ids={1}), "fast"),
        (GrammarCompiler(TOKENIZER, vocab_size=VOCAB, eos_ids=()), "end-of-sequence"),
    ):
        with pytest.raises(GrammarRejected, match=reason):
            compiler.compile(json_source("{}"))


AMBIGUOUS = 'start: s\ns: s s | "a" | "a" "a" | s s s'
"""Each token takes longer than the one before it."""


def test_an_ambiguous_grammar_ends_before_its_tokens_take_long() -> None:
    compiled = COMPILER.compile(lark_source(AMBIGUOUS))
    token, start_s = ids_of("a")[0], time.process_time()
    state, num_tokens = compiled.start(), 0
    while any(state.allowed()):
        state.advance(token)
        num_tokens += 1
        assert num_tokens < 1000
    assert compiled.is_too_complex
    # The last computation may have been long. Everything else is within the limits.
    assert time.process_time() - start_s < MAX_EXTRA_S + num_tokens * MAX_TOKEN_S + 2
    assert not any(compiled.start().allowed())
    assert not compiled.start().advance(token)


def test_tokens_that_take_little_time_pay_for_those_that_take_more() -> None:
    cost = GrammarCost()
    for _ in range(1000):
        cost.add(0.9 * MAX_TOKEN_S, num_tokens=1)
    cost.add(0.9 * MAX_EXTRA_S)
    assert not cost.is_exceeded
    for _ in range(1000):
        cost.add(0.9 * MAX_TOKEN_S, num_tokens=1)
    cost.add(0.9 * MAX_EXTRA_S)
    assert not cost.is_exceeded
    cost.add(0.2 * MAX_EXTRA_S)
    assert cost.is_exceeded


def test_json_of_many_tokens_stays_within_the_limits() -> None:
    compiled = grammar({"type": "array", "items": {"type": "string", "maxLength": 30}})
    state = compiled.start()
    for token in ids_of(json.dumps([f"text {i}" for i in range(400)])):
        assert state.allowed()
        assert state.advance(token)
    assert not compiled.is_too_complex
