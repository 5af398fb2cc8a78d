"""Combines grammars: alternatives, and answers after a model's reasoning. Pure."""

import json
import re
from collections.abc import Callable
from typing import Any

from shared.reasoning_form import ReasoningForm
from worker.engine.grammar import GrammarSource

_ANY = r"(.|\n)*"


def either(first: GrammarSource, second: GrammarSource) -> GrammarSource:
    """Return the grammar of texts that match one of two grammars."""
    start = "start: @first | @second\n"
    return _combined(start, _named("first", first) + _named("second", second))


def after_reasoning(
    source: GrammarSource,
    form: ReasoningForm,
    *,
    is_open: bool,
    token_id: Callable[[str], int | None],
) -> GrammarSource:
    """Return the grammar of answers that may start with reasoning and then match `source`.

    The reasoning is any text up to the first closing marker. A marker is either one token of the
    vocabulary, or text of several tokens. Whitespace may surround them: GLM 4.5 starts its answers
    with a line break. With `is_open`, the prompt has opened the reasoning, so that the answer must
    close it. `token_id` returns the id of a token, or None if the text isn't one token.
    """
    closing = re.escape(form.closing).replace("/", r"\/")
    opening_id, closing_id = token_id(form.opening), token_id(form.closing)
    opening = json.dumps(form.opening)
    thought = "text"
    rules = [f"text[lazy]: /{_ANY}{closing}/", "WS: /[ \\n]{0,4}/"]
    if opening_id is not None:
        opening = f"({opening} | <[{opening_id}]>)"
    if closing_id is not None:
        thought = f"(text | OPEN <[{closing_id}]>)"
        rules.append(f"OPEN: /{_ANY}/ & ~/{_ANY}{closing}{_ANY}/")
    start = f"{thought} WS" if is_open else f"(WS {opening} {thought} WS)?"
    lark = "\n".join(["%llguidance {}", f"start: {start} @answer", *rules]) + "\n"
    return _combined(lark, _named("answer", source))


def _combined(lark: str, grammars: list[dict[str, Any]]) -> GrammarSource:
    return GrammarSource(json.dumps({"grammars": [{"lark_grammar": lark}, *grammars]}))


def _named(name: str, source: GrammarSource) -> list[dict[str, Any]]:
    """Return the source as a list of llguidance's JSON format, of which the first has the name."""
    if not source.startswith("{"):
        return [{"name": name, "lark_grammar": source}]
    first, *others = json.loads(source)["grammars"]
    return [{**first, "name": name}, *others]
