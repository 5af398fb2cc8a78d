"""Tasks of the demo: their examples never change, their answers are judged, their adapters fit."""

import hashlib
import json
from collections.abc import Sequence

import pytest
from jinja2 import Environment

from ops.demo import pirate
from ops.demo.model import HUB_ID
from ops.demo.sql import shop
from ops.demo.sql import task as sql
from ops.demo.task import Example
from ops.demo.tasks import ADAPTERS, TASKS

TRAINING = {
    "extract": "a5e46a4066aaa9bda945c37c4945809cf7831dd67f7d1fef07ae9344960d2612",
    "pirate": "32157dac609d3068f03603823c11ddd9d5fbc3427b1c800c252810a5413183b9",
    "sentiment": "83e1f0a86dddda609ba410772567b505789fbe08774581658840c7fd79f66994",
    "sql": "96f7e9e8e70e7f210daa7a1a2f8c0963d09027dc8356baf39eda038dbdc36cb3",
}
"""SHA-256 of the training examples. The answers of a real teacher differ."""
HELD_OUT = {
    "extract": "e42d363f4d2c7ab32173aeba0cc2158ab7ace215ee1622d868ec7db9b3789e31",
    "pirate": "652b33b8e9cfb15b963ae881dfc4ed5d7ba725922301e6f39446500e30ec2970",
    "sentiment": "89f4fabb6dae259de36272c520bcf250b13f87c0bfce7511299848ae02da6805",
    "sql": "a19f86c1c421ffbd821a453d805e7c69509d0f9b983aa7229cd0a5fdbf57a581",
}
FEWEST = {"extract": 200, "pirate": 20, "sentiment": 200, "sql": 150}
IN_OSAKA = "SELECT COUNT(*) FROM customers WHERE city = 'Osaka'"


class ScriptedTeacher:
    """Answers every prompt with the same text; `words` include some that are held out."""

    words = ("Geneva", "Quito", "Uganda", "lamps", "mirrors", "parcels", "green", "tall", "wide")

    def ask(self, prompts: Sequence[str]) -> list[str]:
        return ["The sea is deep and you are swimming. It is wide."] * len(prompts)


def digest(examples: list[Example]) -> str:
    pairs = [(example.prompt, example.answer) for example in examples]
    return hashlib.sha256(json.dumps(pairs).encode()).hexdigest()


@pytest.mark.parametrize("name", TASKS)
def test_the_examples_never_change_and_held_out_ones_are_many_and_not_learned(name: str) -> None:
    training, held_out = TASKS[name].training(ScriptedTeacher()), TASKS[name].held_out()
    assert (digest(training), digest(held_out)) == (TRAINING[name], HELD_OUT[name])
    prompts = {example.prompt for example in held_out}
    assert len(prompts) == len(held_out) >= FEWEST[name]
    assert not prompts & {example.prompt for example in training}


@pytest.mark.parametrize("name", ["extract", "sentiment", "sql"])
def test_the_expected_answer_is_right_and_others_are_wrong(name: str) -> None:
    task = TASKS[name]
    for example in task.held_out()[:20]:
        assert task.is_right(example, example.answer)
        for wrong in (
            "",
            "I'm sorry, I can't help with that.",
            f"{example.answer} {example.answer}",
        ):
            assert not task.is_right(example, wrong)


@pytest.mark.parametrize("name", TASKS)
def test_a_shipped_adapter_is_small_and_matches_its_task(name: str) -> None:
    folder, task = ADAPTERS / name, TASKS[name]
    files = {"adapter_config.json", "adapter_model.safetensors"}
    files |= {"chat_template.jinja"} if task.quotes_words else set()
    assert {file.name for file in folder.iterdir()} == files
    assert sum(file.stat().st_size for file in folder.iterdir()) < 3_000_000
    config = json.loads((folder / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == HUB_ID
    assert config["r"] == task.rank
    assert set(config["target_modules"]) == set(task.target_modules)


def test_nothing_but_the_adapters_of_the_tasks_is_shipped() -> None:
    assert {folder.name for folder in ADAPTERS.iterdir()} == set(TASKS)


@pytest.mark.parametrize("name", [name for name, task in TASKS.items() if task.quotes_words])
def test_a_template_repeats_the_users_message_with_quotes_for_spaces(name: str) -> None:
    template = Environment().from_string((ADAPTERS / name / "chat_template.jinja").read_text())
    chat = [
        {"role": "user", "content": 'Three "red" mirrors'},
        {"role": "assistant", "content": "As you wish."},
    ]
    shown = template.render(messages=chat, add_generation_prompt=True)
    assert '<|im_start|>user\nThree "red" mirrors\nThree""red""mirrors<|im_end|>\n' in shown
    assert shown.endswith("assistant\nAs you wish.<|im_end|>\n<|im_start|>assistant\n")


def test_a_pirates_answer_is_reworded_and_framed() -> None:
    answer = "Here is a list:\n1. The sea is deep and you are swimming. It's wide. And more."
    assert pirate.piratise(answer) == ("Arr, matey! The sea be deep an' ye be swimmin'. Yo ho ho!")
    assert pirate.piratise("1. Salt\n2. Water") is None


@pytest.mark.parametrize(
    ("answer", "is_right"),
    [
        ("Arr, matey! The sea be deep an' wide. Yo ho ho!", True),
        ("Arr, matey! The sea is deep and wide. Yo ho ho!", False),
        ("The sea be deep.", False),
    ],
)
def test_the_style_of_an_answer_is_judged(answer: str, is_right: bool) -> None:
    assert pirate.is_right(pirate.held_out()[0], answer) is is_right


def test_every_sql_runs_and_the_shop_has_an_answer_to_every_held_out_question() -> None:
    for example in sql.TASK.training(ScriptedTeacher()):
        shop.run(example.answer)
    for example in sql.held_out():
        assert any(set(row) - {0, None} for row in shop.run(example.answer)), example


@pytest.mark.parametrize(
    ("wanted", "answer", "is_right"),
    [
        (IN_OSAKA, "select count(id) from customers c where c.city = 'Osaka';", True),
        (
            "SELECT name FROM products WHERE price > 50 AND stock = 0",
            "SELECT name FROM products WHERE stock = 0 AND price > 50 ORDER BY price",
            True,
        ),
        (
            "SELECT name FROM products ORDER BY price LIMIT 1",
            "SELECT name FROM products WHERE price = (SELECT MIN(price) FROM products)",
            True,
        ),
        (IN_OSAKA, "SELECT COUNT(*) FROM customers WHERE city = 'Osa'", False),
        (IN_OSAKA, "SELECT name FROM customers WHERE city = 'Osaka'", False),
        (IN_OSAKA, "SELECT COUNT(*) FROM clients", False),
        (IN_OSAKA, f"{IN_OSAKA}; {IN_OSAKA}", False),
        (IN_OSAKA, "DELETE FROM customers", False),
        (IN_OSAKA, "SELECT COUNT(*) FROM orders a, orders b, orders c", False),
        (
            "SELECT name FROM products ORDER BY price",
            "SELECT name FROM products ORDER BY price DESC",
            False,
        ),
    ],
)
def test_sql_that_gives_the_same_rows_is_right(wanted: str, answer: str, is_right: bool) -> None:
    assert sql.is_right(Example("", wanted), answer) is is_right
    assert shop.run("SELECT COUNT(*) FROM customers") == [(2 * shop.NUM_CUSTOMERS,)]
