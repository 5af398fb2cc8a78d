"""Building blocks of SQL questions: conditions on rows, and questions that ask for values."""

from dataclasses import dataclass

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


def condition(where: str, nouns: str, verbs: str = "") -> Condition:
    """Return a condition with the SQL `where`.

    In `nouns` and `verbs`, a bar separates phrases, and held-out phrases follow a double bar.
    """
    return Condition(where, _phrases(nouns), _phrases(verbs))


def question(select: str, asked: str, tail: str = "", *, where: str = "") -> Question:
    """Return a question whose SQL query has the parts `select`, `where` and `tail`.

    In `asked`, a bar separates phrases, and held-out phrases follow a double bar.
    """
    return Question(select, _phrases(asked), tail, where)


def _phrases(text: str) -> tuple[Phrases, Phrases]:
    known, _, held_out = " ".join(text.split()).partition("||")
    return _split(known), _split(held_out)


def _split(text: str) -> Phrases:
    return tuple(phrase.strip() for phrase in text.split("|") if phrase.strip())
