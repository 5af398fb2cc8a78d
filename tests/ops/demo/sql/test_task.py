import pytest
from demo_teacher import ScriptedTeacher

from ops.demo.sql import shop
from ops.demo.sql.task import TASK, held_out, is_right
from ops.demo.task import Example

IN_OSAKA = "SELECT COUNT(*) FROM customers WHERE city = 'Osaka'"


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
