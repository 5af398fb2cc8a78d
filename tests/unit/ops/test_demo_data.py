import json
from pathlib import Path

import pytest

from ops.commands.base_model import DEMO_ADAPTERS
from ops.demo import extract, pirate
from ops.demo.model import HUB_ID


def test_nothing_held_out_is_in_the_training_data() -> None:
    for kind in ("ITEMS", "FIRST_NAMES", "LAST_NAMES", "CITIES", "PHRASINGS"):
        assert not set(getattr(extract, kind)) & set(getattr(extract, f"HELD_OUT_{kind}"))
    assert not set(pirate.QUESTIONS) & set(pirate.HELD_OUT_QUESTIONS)


def test_training_data_is_the_same_each_time() -> None:
    first, again = (extract.TASK.training(lambda _: []) for _ in range(2))
    assert first == again


def test_an_orders_answer_holds_what_its_prompt_says() -> None:
    for example in [*extract.TASK.training(lambda _: []), *extract.held_out()]:
        order = json.loads(example.answer)
        assert list(order) == ["item", "quantity", "name", "city"]
        assert all(str(value) in example.prompt for value in order.values())


def test_an_answer_is_reworded_and_framed() -> None:
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
def test_a_pirates_manner_is_judged(answer: str, is_right: bool) -> None:
    assert pirate.is_right(pirate.held_out()[0], answer) is is_right


@pytest.mark.parametrize("folder", sorted(DEMO_ADAPTERS.iterdir()), ids=lambda path: path.name)
def test_the_shipped_adapters_are_small_and_name_no_path(folder: Path) -> None:
    config = json.loads((folder / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == HUB_ID
    assert sum(file.stat().st_size for file in folder.iterdir()) < 3_000_000
