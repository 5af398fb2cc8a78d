import json
import re

from demo_teacher import ScriptedTeacher

from ops.demo import extract, orders, words

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
    assert not {"mirrors", "Quito"} & learned  # the teacher's vocabulary has them
    assert learned >= {"Parcels", "Uganda"}


def test_an_orders_answer_has_the_values_of_its_prompt() -> None:
    for example in extract.held_out():
        order = json.loads(example.answer)
        assert list(order) == ["item", "quantity", "name", "city"]
        assert all(order[field] in example.prompt for field in ("item", "name", "city"))
        assert order["quantity"] > 0
