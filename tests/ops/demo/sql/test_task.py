import re

import pytest
from demo_teacher import ScriptedTeacher

from ops.demo.sql import grammar, shop
from ops.demo.sql.task import TASK, held_out, is_right
from ops.demo.task import Example

PHRASES = [
    *(question.asked for questions in grammar.QUESTIONS.values() for question in questions),
    *(c.nouns for found in grammar.CONDITIONS.values() for c in found),
    *(c.verbs for found in grammar.CONDITIONS.values() for c in found),
    grammar.FRAMES,
]
IN_OSAKA = "SELECT COUNT(*) FROM customers WHERE city = 'Osaka'"


def test_no_phrase_is_both_learned_and_held_out() -> None:
    for known, kept in PHRASES:
        assert not set(known) & set(kept)


def test_every_question_can_be_asked_in_held_out_words() -> None:
    assert all(q.asked[0] and q.asked[1] for qs in grammar.QUESTIONS.values() for q in qs)


def test_no_name_place_or_product_is_both_learned_and_held_out() -> None:
    known, kept = (
        set(re.findall(r"= '([^']+)'", " ".join(example.answer for example in examples)))
        for examples in (TASK.training(ScriptedTeacher()), held_out())
    )
    assert len(kept) > 20
    assert not {value for value in known & kept if not value[0].isdigit()}


def test_every_sql_of_training_and_held_out_runs() -> None:
    for example in [*TASK.training(ScriptedTeacher()), *held_out()]:
        shop.run(example.answer)


def test_the_shop_has_an_answer_to_every_held_out_question() -> None:
    for example in held_out():
        assert any(set(row) - {0, None} for row in shop.run(example.answer)), example


@pytest.mark.parametrize(
    ("wanted", "answer"),
    [
        (IN_OSAKA, "select count(id) from customers c where c.city = 'Osaka';"),
        (
            "SELECT name FROM products WHERE price > 50 AND stock = 0",
            "SELECT name FROM products WHERE stock = 0 AND price > 50 ORDER BY price",
        ),
        (
            "SELECT name FROM products ORDER BY price LIMIT 1",
            "SELECT name FROM products WHERE price = (SELECT MIN(price) FROM products)",
        ),
    ],
)
def test_sql_that_gives_the_same_rows_is_right(wanted: str, answer: str) -> None:
    assert is_right(Example("", wanted), answer)


@pytest.mark.parametrize(
    ("wanted", "answer"),
    [
        (IN_OSAKA, "SELECT COUNT(*) FROM customers WHERE city = 'Osa'"),
        (IN_OSAKA, "SELECT name FROM customers WHERE city = 'Osaka'"),
        (IN_OSAKA, "SELECT COUNT(*) FROM clients"),
        (IN_OSAKA, f"{IN_OSAKA}; {IN_OSAKA}"),
        (IN_OSAKA, "DELETE FROM customers"),
        (IN_OSAKA, "SELECT COUNT(*) FROM orders a, orders b, orders c"),
        (
            "SELECT name FROM products ORDER BY price",
            "SELECT name FROM products ORDER BY price DESC",
        ),
    ],
)
def test_sql_that_gives_other_rows_or_none_is_wrong(wanted: str, answer: str) -> None:
    assert not is_right(Example("", wanted), answer)
    assert shop.run("SELECT COUNT(*) FROM customers") == [(2 * shop.NUM_CUSTOMERS,)]


def test_the_rows_within_a_limit_are_unique() -> None:
    for example in held_out():
        whole, limit, number = example.answer.rpartition(" LIMIT ")
        if limit:
            key = re.sub(r" DESC$", "", whole.split(" ORDER BY ")[1])
            rest = re.sub(r"SELECT .*? FROM", f"SELECT {key} FROM", whole, count=1)
            keys = [row[0] for row in shop.run(rest)]
            assert len(keys) <= int(number) or keys[int(number) - 1] != keys[int(number)]
