"""Converts a job's constraints to a grammar. Pure.

The cost depends on the client's input: use `source_of` only in the sandbox.
"""

from dataclasses import dataclass

from shared.errors import GrammarRejected
from shared.protocol.jobs import Job
from shared.protocol.tools import ToolChoice, ToolUse
from worker.engine.grammar import (
    GrammarSource,
    choice_source,
    json_source,
    lark_source,
    regex_source,
)
from worker.text.combined_grammar import either
from worker.text.tool_grammar import tool_source

MAX_SOURCE_BYTES = 4 << 20
"""Maximum size of a grammar as text, in bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Constraint:
    """What the answers to a job must match: calls of tools, or at most one other field."""

    tools: ToolUse | None = None
    """Tools that the answer must call, unless it matches the other field."""
    json_schema: str | None = None
    regex: str | None = None
    choice: tuple[str, ...] = ()
    grammar: str | None = None


def constraint_of(job: Job) -> tuple[Constraint | None, str]:
    """Return the constraint of a job's answers and the field that sets it, or None and no field."""
    if job.tools and job.tools.choice is ToolChoice.REQUIRED:
        return Constraint(tools=job.tools), "tools"
    sampling = job.sampling
    if not sampling.is_constrained:
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
    """Return a constraint's grammar. Raises GrammarRejected if it has none, or a too large one."""
    source = _source_of(constraint)
    if len(source.encode()) > MAX_SOURCE_BYTES:
        raise GrammarRejected(f"as a grammar it has more than {MAX_SOURCE_BYTES >> 20} MiB")
    return source


def _source_of(constraint: Constraint) -> GrammarSource:
    answer = _answer_source(constraint)
    if constraint.tools is None:
        assert answer is not None
        return answer
    calls = tool_source(constraint.tools)
    return calls if answer is None else either(calls, answer)


def _answer_source(constraint: Constraint) -> GrammarSource | None:
    """Return the grammar of answers without calls; None if the answer must call a tool."""
    if constraint.regex is not None:
        return regex_source(constraint.regex)
    if constraint.choice:
        return choice_source(constraint.choice)
    if constraint.grammar is not None:
        return lark_source(constraint.grammar)
    return None if constraint.json_schema is None else json_source(constraint.json_schema)
