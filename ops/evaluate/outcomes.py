"""Outcomes: graded answers."""

from dataclasses import dataclass

from ops.evaluate.cases import Case


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The answer of one version to one case."""

    case: Case
    version: str
    answer: str
    is_good: bool
