"""Generates questions about the shop of `shop.py`, and the SQL queries that answer them."""

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ops.demo.sql.values import Source, sample_values
from ops.demo.task import Example
from ops.demo.words import lists

Phrases = tuple[str, ...]
KNOWN, HELD_OUT = 0, 1
"""Indices into each `tuple[Phrases, Phrases]`: known phrases for training, and held-out phrases."""


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


FRAMES = _phrases(lists("sql")["frames"])
"""Templates of sentences that contain a question."""
CONDITIONS = {
    table: [Condition(e["where"], _phrases(e["nouns"]), _phrases(e["verbs"])) for e in entries]
    for table, entries in lists("sql")["conditions"].items()
}
QUESTIONS = {
    table: [Question(e["select"], _phrases(e), e["tail"], e["where"]) for e in entries]
    for table, entries in lists("sql")["questions"].items()
}

_SHARE_FRAMED = 0.12
_SHARE_CARELESS = 0.1
"""Share of questions that have neither an initial capital nor final punctuation.

The share refers to the training questions that `FRAMES` didn't change.
"""
_JOINS = {
    "c": " JOIN customers c ON c.id = o.customer_id",
    "p": " JOIN products p ON p.id = o.product_id",
}
_THINGS, _THOSE = "{things}", "{those}"
_TABLE = re.compile(r"\b([cpo])\.")


def ask(source: Source, kind: int, rng: random.Random) -> Example:
    """Return a random question and its SQL. `kind` selects KNOWN or HELD_OUT phrases."""
    (table,) = rng.choices(list(QUESTIONS), weights=(3, 5, 6))
    questions = QUESTIONS[table]
    (question,) = rng.choices(questions, weights=[_variety(q.asked[KNOWN][0]) for q in questions])
    phrase = rng.choice(question.asked[kind])
    conditions = _conditions(table, phrase, rng)
    question_text = phrase.replace(_THINGS, _things(table, conditions, kind, rng))
    question_text = question_text.replace(_THOSE, _those(table, conditions, kind, rng))
    values = sample_values(source, rng)
    quoted = {name: value.replace("'", "''") for name, value in values.items()}
    sql = to_sql(table, question, conditions).format_map(quoted)
    return Example(_framed(question_text.format_map(values), kind, rng), sql)


def to_sql(table: str, question: Question, conditions: Sequence[Condition]) -> str:
    """Return the question's SQL query, with placeholders for its values."""
    wheres = [where for where in (question.where, *(c.where for c in conditions)) if where]
    clauses = (f" WHERE {' AND '.join(wheres)}" if wheres else "") + f" {question.tail}".rstrip()
    if table != "orders":
        return _TABLE.sub("", f"SELECT {question.select} FROM {table}{clauses}")
    used = set(_TABLE.findall(question.select + clauses))
    joins = "".join(_JOINS[name] for name in "cp" if name in used)
    # Columns always have a table name here. A model that writes `SELECT o.quantity` can't know yet
    # whether the conditions that follow need a join.
    return f"SELECT {question.select} FROM orders o{joins}{clauses}"


def _variety(phrase: str) -> int:
    """Return the sampling weight of a question. Questions with placeholders have more variants."""
    return 4 if _takes_conditions(phrase) else 3 if "{" in phrase else 1


def _takes_conditions(phrase: str) -> bool:
    return _THINGS in phrase or _THOSE in phrase


def _conditions(table: str, phrase: str, rng: random.Random) -> list[Condition]:
    """Return up to two random conditions on different columns, or none if `phrase` takes none."""
    number = 0
    if _takes_conditions(phrase):
        (number,) = rng.choices((0, 1, 2), weights=(0 if _THOSE in phrase else 2, 6, 3))
    chosen: list[Condition] = []
    for condition in rng.sample(CONDITIONS[table], len(CONDITIONS[table])):
        if len(chosen) < number and _column(condition) not in map(_column, chosen):
            chosen.append(condition)
    return chosen


def _column(condition: Condition) -> str:
    column = condition.where.split()[0]
    return "place" if column in ("c.city", "c.country") else column


def _things(table: str, conditions: Sequence[Condition], kind: int, rng: random.Random) -> str:
    return " ".join([table, *(_phrase(c.nouns, kind, rng) for c in conditions)])


def _those(table: str, conditions: Sequence[Condition], kind: int, rng: random.Random) -> str:
    if not conditions:
        return table
    *before, last = conditions
    return f"{_things(table, before, kind, rng)} {_phrase(last.verbs, kind, rng)}"


def _phrase(phrases: tuple[Phrases, Phrases], kind: int, rng: random.Random) -> str:
    """Return a random phrase of `kind`, or a known one if there are none of `kind`."""
    return rng.choice(phrases[kind] or phrases[KNOWN])


def _framed(text: str, kind: int, rng: random.Random) -> str:
    text = text[0].upper() + text[1:]
    if rng.random() < _SHARE_FRAMED:
        return rng.choice(FRAMES[kind]).format(text)
    if kind != HELD_OUT and rng.random() < _SHARE_CARELESS:
        return (text[0].lower() + text[1:]).rstrip("?.")
    return text
