"""Draws questions about the shop together with their SQL."""

import random
import re
from collections.abc import Sequence

from ops.demo.sql.conditions import CONDITIONS
from ops.demo.sql.customers import CUSTOMERS
from ops.demo.sql.grammar import HELD_OUT, KNOWN, Condition, Phrases, Question
from ops.demo.sql.orders import ORDERS
from ops.demo.sql.products import PRODUCTS
from ops.demo.sql.values import Source, draw
from ops.demo.task import Example

QUESTIONS = {"customers": CUSTOMERS, "products": PRODUCTS, "orders": ORDERS}
FRAMES: tuple[Phrases, Phrases] = (
    (
        "Write a SQL query: {}", "SQL: {}", "Question: {}", "Translate to SQL: {}", "Hi! {}",
        "{} Answer with SQL.", "Query for this, please: {}", "Hello, {}", "{} Thanks!",
    ),
    ("Give me the SQL for this: {}", "I need a query: {}", "Good morning. {}"),
)  # fmt: skip
_SHARE_FRAMED = 0.12
_SHARE_CARELESS = 0.1
"""No capital in front and no mark behind."""
_JOINS = {
    "c": " JOIN customers c ON c.id = o.customer_id",
    "p": " JOIN products p ON p.id = o.product_id",
}
_THINGS, _THOSE = "{things}", "{those}"
_TABLE = re.compile(r"\b([cpo])\.")


def ask(source: Source, kind: int, rng: random.Random) -> Example:
    """A question and its SQL; `kind` says which phrases are used."""
    (table,) = rng.choices(list(QUESTIONS), weights=(3, 5, 6))
    questions = QUESTIONS[table]
    (question,) = rng.choices(questions, weights=[_variety(q.asked[KNOWN][0]) for q in questions])
    phrase = rng.choice(question.asked[kind])
    conditions = _conditions(table, phrase, rng)
    said = phrase.replace(_THINGS, _things(table, conditions, kind, rng))
    said = said.replace(_THOSE, _those(table, conditions, kind, rng))
    values = draw(source, rng)
    quoted = {name: value.replace("'", "''") for name, value in values.items()}
    sql = to_sql(table, question, conditions).format_map(quoted)
    return Example(_framed(said.format_map(values), kind, rng), sql)


def to_sql(table: str, question: Question, conditions: Sequence[Condition]) -> str:
    """The query, its values still to be filled in."""
    wheres = [where for where in (question.where, *(c.where for c in conditions)) if where]
    behind = (f" WHERE {' AND '.join(wheres)}" if wheres else "") + f" {question.tail}".rstrip()
    if table != "orders":
        return _TABLE.sub("", f"SELECT {question.select} FROM {table}{behind}")
    used = set(_TABLE.findall(question.select + behind))
    joins = "".join(_JOINS[name] for name in "cp" if name in used)
    # Columns are named with their table, joined or not: a model that writes `SELECT o.quantity`
    # can't know yet which conditions will follow.
    return f"SELECT {question.select} FROM orders o{joins}{behind}"


def _variety(phrase: str) -> int:
    """How often such a question is drawn."""
    return 4 if _takes_conditions(phrase) else 3 if "{" in phrase else 1


def _takes_conditions(phrase: str) -> bool:
    return _THINGS in phrase or _THOSE in phrase


def _conditions(table: str, phrase: str, rng: random.Random) -> list[Condition]:
    """None to two, each of another column."""
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
    return " ".join([table, *(_said(c.nouns, kind, rng) for c in conditions)])


def _those(table: str, conditions: Sequence[Condition], kind: int, rng: random.Random) -> str:
    if not conditions:
        return table
    *before, last = conditions
    return f"{_things(table, before, kind, rng)} {_said(last.verbs, kind, rng)}"


def _said(phrases: tuple[Phrases, Phrases], kind: int, rng: random.Random) -> str:
    """One of the phrases; a few short ones, like "in {year}", can't be said in another way."""
    return rng.choice(phrases[kind] or phrases[KNOWN])


def _framed(text: str, kind: int, rng: random.Random) -> str:
    text = text[0].upper() + text[1:]
    if rng.random() < _SHARE_FRAMED:
        return rng.choice(FRAMES[kind]).format(text)
    if kind != HELD_OUT and rng.random() < _SHARE_CARELESS:
        return (text[0].lower() + text[1:]).rstrip("?.")
    return text
