"""Parts of questions: conditions on rows, and the values that are asked for."""

from dataclasses import dataclass

Phrases = tuple[str, ...]
KNOWN, HELD_OUT = 0, 1
"""Index of the known or the held-out phrases in a pair."""


@dataclass(frozen=True, slots=True)
class Condition:
    """A condition: its SQL, and its phrases after a noun and as a verb.

    In SQL, c, p and o are the tables. A query uses these names only together with orders.
    """

    where: str
    nouns: tuple[Phrases, Phrases]
    verbs: tuple[Phrases, Phrases]


@dataclass(frozen=True, slots=True)
class Question:
    """A question: its SQL `SELECT ... FROM ... WHERE ...` with a tail, and its phrases.

    In phrases, `{things}` is a noun with conditions ("customers from Berlin"), and `{those}` a noun
    with verbs ("customers live in Berlin").
    """

    select: str
    asked: tuple[Phrases, Phrases]
    tail: str
    where: str
    """Condition that the question itself adds; may be empty."""


def condition(where: str, nouns: str, verbs: str = "") -> Condition:
    """Return a condition; bars separate phrases, and a double bar precedes held-out ones."""
    return Condition(where, _phrases(nouns), _phrases(verbs))


def question(select: str, asked: str, tail: str = "", *, where: str = "") -> Question:
    """Return a question; bars separate phrases, and a double bar precedes held-out ones."""
    return Question(select, _phrases(asked), tail, where)


def _phrases(text: str) -> tuple[Phrases, Phrases]:
    known, _, held_out = " ".join(text.split()).partition("||")
    return _split(known), _split(held_out)


def _split(text: str) -> Phrases:
    return tuple(phrase.strip() for phrase in text.split("|") if phrase.strip())
