import json
import random
import re

import pytest
from demo_teacher import ScriptedTeacher

from ops.demo import extract, orders, words
from ops.demo.numbers import count, in_words

KINDS = ("FIRST_NAMES", "LAST_NAMES", "CITIES", "COUNTRIES", "GOODS", "PLURAL_GOODS")


def test_no_word_or_phrasing_is_both_learned_and_held_out() -> None:
    for kind in KINDS:
        assert not set(getattr(words, kind)) & set(getattr(words, f"HELD_OUT_{kind}"))
    for kind in ("PHRASINGS", "OPENINGS", "CLOSINGS"):
        assert not set(getattr(orders, kind)) & set(getattr(orders, f"HELD_OUT_{kind}"))


def test_no_training_prompt_holds_a_held_out_name_or_city() -> None:
    prompts = [example.prompt for example in extract.TASK.training(ScriptedTeacher())]
    learned = set(re.findall(r"\w+", " ".join(prompts)))
    held_out = (*words.HELD_OUT_FIRST_NAMES, *words.HELD_OUT_LAST_NAMES, *words.HELD_OUT_CITIES)
    assert not learned.intersection(held_out)
    assert not {"mirrors", "Quito"} & learned  # the teacher knows them
    assert learned >= {"Parcels", "Uganda"}


def test_an_orders_answer_holds_what_its_prompt_says() -> None:
    for example in extract.held_out():
        order = json.loads(example.answer)
        assert list(order) == ["item", "quantity", "name", "city"]
        assert all(order[field] in example.prompt for field in ("item", "name", "city"))
        assert order["quantity"] > 0


def test_a_quantity_is_what_its_text_says() -> None:
    rng = random.Random(0)
    for quantity in (count(rng) for _ in range(2000)):
        digits = re.findall(r"\d+", quantity.text.replace(",", ""))
        assert not digits or int(digits[0]) == quantity.value
        assert quantity.value > 0


@pytest.mark.parametrize(("number", "text"), [(0, "zero"), (12, "twelve"), (40, "forty")])
def test_a_number_is_put_into_words(number: int, text: str) -> None:
    assert in_words(number) == text
    assert in_words(99) == "ninety-nine"


@pytest.mark.parametrize(
    ("one", "several"),
    [
        ("desk lamp", "desk lamps"),
        ("box of tea", "boxes of tea"),
        ("battery", "batteries"),
        ("tray", "trays"),
        ("metal shelf", "metal shelves"),
        ("wrench", "wrenches"),
    ],
)
def test_goods_have_plurals(one: str, several: str) -> None:
    assert words.plural(one) == several
