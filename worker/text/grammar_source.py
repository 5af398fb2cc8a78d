"""Converts the constraint on a job's answers to a grammar. Pure.

The cost depends on the client's input. Therefore call `source_of` only in the sandbox.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from shared.errors import GrammarRejected
from shared.protocol.jobs import Job
from shared.protocol.tools import ToolChoice, ToolForm, ToolUse
from shared.reasoning_form import ReasoningForm
from worker.engine.grammar import (
    GrammarSource,
    choice_source,
    json_source,
    lark_source,
    regex_source,
)
from worker.text.tool_grammar import optional_tool_source, tool_source

MAX_SOURCE_BYTES = 4 << 20
"""Maximum size of a grammar as text, in bytes."""
_ANY = r"(.|\n)*"


@dataclass(frozen=True, slots=True, kw_only=True)
class Constraint:
    """Constraint on answers. An answer either calls tools or matches the other field that is set.

    At most one field besides `tools` is set.
    """

    tools: ToolUse | None = None
    """Tools that the answer must call, unless it matches the other field that is set."""
    is_text: bool = False
    """Whether the answer may be any text. Only tool calls in the text are constrained then."""
    json_schema: str | None = None
    regex: str | None = None
    choice: tuple[str, ...] = ()
    grammar: str | None = None


def constraint_of(job: Job) -> tuple[Constraint | None, str]:
    """Return the constraint on a job's answers, and the name of the field that sets it.

    Without a constraint, return None and an empty name.
    """
    if job.tools and job.tools.choice is ToolChoice.REQUIRED:
        return Constraint(tools=job.tools), "tools"
    sampling = job.sampling
    if not sampling.is_constrained:
        if job.tools and job.tools.form is ToolForm.GENERIC:
            return Constraint(tools=job.tools, is_text=True), "tools"
        return None, ""
    constraint = Constraint(
        tools=job.tools,
        json_schema=sampling.json_schema,
        regex=sampling.regex,
        choice=tuple(sampling.choice),
        grammar=sampling.grammar,
    )
    return constraint, sampling.constrained_by or "response_format"


def source_of(constraint: Constraint) -> GrammarSource:
    """Return a constraint's grammar as text.

    Raises:
        GrammarRejected: the constraint is malformed, or the text exceeds MAX_SOURCE_BYTES.
    """
    source = _source_of(constraint)
    if len(source.encode()) > MAX_SOURCE_BYTES:
        raise GrammarRejected(f"as a grammar it has more than {MAX_SOURCE_BYTES >> 20} MiB")
    return source


def _source_of(constraint: Constraint) -> GrammarSource:
    answer = _answer_source(constraint)
    if constraint.tools is None:
        assert answer is not None
        return answer
    if constraint.is_text:
        return optional_tool_source(constraint.tools)
    calls = tool_source(constraint.tools)
    return calls if answer is None else either(calls, answer)


def _answer_source(constraint: Constraint) -> GrammarSource | None:
    """Return the grammar of answers without tool calls; None if an answer must call a tool."""
    if constraint.regex is not None:
        return regex_source(constraint.regex)
    if constraint.choice:
        return choice_source(constraint.choice)
    if constraint.grammar is not None:
        return lark_source(constraint.grammar)
    return None if constraint.json_schema is None else json_source(constraint.json_schema)


def either(first: GrammarSource, second: GrammarSource) -> GrammarSource:
    """Return the grammar of texts that match `first` or `second`."""
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

    The reasoning is any text from the opening marker up to the first closing marker. A marker is
    either one token of the vocabulary, or text of several tokens. Whitespace may surround the
    markers, because GLM 4.5 starts its answers with a line break. With `is_open`, the prompt has
    opened the reasoning, so that the answer must close it. `token_id` returns the id of the token
    that consists of the given text, or None if the text isn't one token.
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
    """Return `source` as a list of grammars in llguidance's JSON form.

    The first grammar gets the name `name`, by which other grammars can refer to it.
    """
    if not source.startswith("{"):
        return [{"name": name, "lark_grammar": source}]
    first, *others = json.loads(source)["grammars"]
    return [{**first, "name": name}, *others]
