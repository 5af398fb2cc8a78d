"""Building blocks of SQL questions: conditions on rows, and questions that ask for values."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ops.demo.data import lists

Phrases = tuple[str, ...]
KNOWN, HELD_OUT = 0, 1
"""Indices of the known and of the held-out phrases in each `tuple[Phrases, Phrases]`."""


@dataclass(frozen=True, slots=True)
class Condition:
    """A condition on rows, as SQL and as phrases.

    `nouns` are phrases that follow a noun ("from Berlin"), and `verbs` are phrases with a verb
    ("live in Berlin"). The SQL names the tables c (customers), p (products) and o (orders). These
    names are removed from queries that don't select from orders.
    """

    where: str
    nouns: tuple[Phrases, Phrases]
    verbs: tuple[Phrases, Phrases]


@dataclass(frozen=True, slots=True)
class Question:
    """A question: the parts of its SQL query, and its phrases.

    In phrases, `{things}` stands for a noun with conditions ("customers from Berlin"). `{those}`
    stands for a noun with conditions, the last of which has a verb ("customers live in Berlin").
    """

    select: str
    asked: tuple[Phrases, Phrases]
    tail: str
    where: str
    """SQL condition that is part of the question itself, or an empty string."""


def _phrases(entry: Mapping[str, Sequence[str]]) -> tuple[Phrases, Phrases]:
    return tuple(entry["known"]), tuple(entry["held_out"])


def _condition(entry: Mapping[str, Any]) -> Condition:
    return Condition(entry["where"], _phrases(entry["nouns"]), _phrases(entry["verbs"]))


def _question(entry: Mapping[str, Any]) -> Question:
    return Question(entry["select"], _phrases(entry), entry["tail"], entry["where"])


FRAMES = _phrases(lists("sql")["frames"])
"""Sentences around a question."""
CONDITIONS = {
    table: [_condition(entry) for entry in entries]
    for table, entries in lists("sql")["conditions"].items()
}
QUESTIONS = {
    table: [_question(entry) for entry in entries]
    for table, entries in lists("sql")["questions"].items()
}
