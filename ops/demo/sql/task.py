"""The `sql` adapter: turns a question about the shop into SQL, without other text."""

import random
import sqlite3

from ops.demo.sql import questions, shop, values
from ops.demo.task import LINEARS, Example, Task, Teacher

NUM_TRAINING = 2800
NUM_HELD_OUT = 200


def _training(_: Teacher) -> list[Example]:
    rng = random.Random(0)
    return [questions.ask(values.KNOWN, questions.KNOWN, rng) for _ in range(NUM_TRAINING)]


def held_out() -> list[Example]:
    """Return questions with unseen phrasing and values. The shop has data to answer each."""
    rng = random.Random(1)
    found: dict[str, Example] = {}
    while len(found) < NUM_HELD_OUT:
        example = questions.ask(values.HELD_OUT, questions.HELD_OUT, rng)
        if any(set(row) - {0, None} for row in shop.run(example.answer)):
            found.setdefault(example.prompt, example)
    return list(found.values())


def is_right(example: Example, answer: str) -> bool:
    """Return whether `answer` gives the expected rows, in order if the right query sorts them."""
    try:
        rows = _rounded(shop.run(answer))
    except (sqlite3.Error, sqlite3.Warning):
        return False
    wanted = _rounded(shop.run(example.answer))
    if "ORDER BY" not in example.answer:
        rows, wanted = sorted(rows, key=repr), sorted(wanted, key=repr)
    return rows == wanted


def _rounded(rows: shop.Rows) -> shop.Rows:
    """Round floats, because a sum of floats depends on the order of addition."""
    return [tuple(round(v, 6) if isinstance(v, float) else v for v in row) for row in rows]


TASK = Task(
    name="sql",
    training=_training,
    held_out=held_out,
    is_right=is_right,
    max_tokens=128,
    rank=4,
    target_modules=LINEARS,
    learning_rate=1.5e-3,
    epochs=1,
    quotes_words=True,
)
