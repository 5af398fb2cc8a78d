import json
import re

from demo_teacher import ScriptedTeacher

from ops.demo import extract, words
from ops.demo.data import lists


def test_no_word_or_phrasing_is_both_learned_and_held_out() -> None:
    for name in ("words", "orders"):
        known, kept = lists(name)["known"], lists(name)["held_out"]
        assert known.keys() == kept.keys()
        for kind in known:
            assert not set(known[kind]) & set(kept[kind])


def test_no_training_prompt_holds_a_held_out_name_or_city() -> None:
    prompts = [example.prompt for example in extract.TASK.training(ScriptedTeacher())]
    learned = set(re.findall(r"\w+", " ".join(prompts)))
    held_out = (
        *words.HELD_OUT.first_names,
        *words.HELD_OUT.last_names,
        *words.HELD_OUT.cities,
    )
    assert not learned.intersection(held_out)
    assert not {"mirrors", "Quito"} & learned  # the teacher's vocabulary has them
    assert learned >= {"Parcels", "Uganda"}


def test_an_orders_answer_has_the_values_of_its_prompt() -> None:
    for example in extract.held_out():
        order = json.loads(example.answer)
        assert list(order) == ["item", "quantity", "name", "city"]
        assert all(order[field] in example.prompt for field in ("item", "name", "city"))
        assert order["quantity"] > 0
