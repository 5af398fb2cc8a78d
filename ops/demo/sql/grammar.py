"""What questions are made of: filters, and what is wanted of the rows that they leave."""

from dataclasses import dataclass

Phrases = tuple[str, ...]
KNOWN, HELD_OUT = 0, 1
"""Which of two phrase lists."""


@dataclass(frozen=True, slots=True)
class Condition:
    """A filter: its SQL, and how it is said behind a noun and as a verb.

    In SQL c, p and o are the tables; only beside orders they are named in a query.
    """

    where: str
    nouns: tuple[Phrases, Phrases]
    verbs: tuple[Phrases, Phrases]


@dataclass(frozen=True, slots=True)
class Question:
    """What is wanted: `SELECT ... FROM ... WHERE ...` and what follows it.

    `{things}` is a noun with its conditions ("customers from Berlin"), `{those}` a noun with verbs
    ("customers live in Berlin").
    """

    select: str
    asked: tuple[Phrases, Phrases]
    tail: str
    where: str
    """A condition of its own."""


def condition(where: str, nouns: str, verbs: str = "") -> Condition:
    """A filter whose phrases are separated by bars, those held out behind a double bar."""
    return Condition(where, _phrases(nouns), _phrases(verbs))


def question(select: str, asked: str, tail: str = "", *, where: str = "") -> Question:
    """A question whose phrases are separated by bars, those held out behind a double bar."""
    return Question(select, _phrases(asked), tail, where)


def _phrases(text: str) -> tuple[Phrases, Phrases]:
    known, _, held_out = " ".join(text.split()).partition("||")
    return _split(known), _split(held_out)


def _split(text: str) -> Phrases:
    return tuple(phrase.strip() for phrase in text.split("|") if phrase.strip())
