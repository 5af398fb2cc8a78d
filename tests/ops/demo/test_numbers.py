import random
import re

import pytest

from ops.demo.numbers import count, in_words


def test_a_quantity_equals_its_text() -> None:
    rng = random.Random(0)
    for quantity in (count(rng) for _ in range(2000)):
        digits = re.findall(r"\d+", quantity.text.replace(",", ""))
        assert not digits or int(digits[0]) == quantity.value
        assert quantity.value > 0


@pytest.mark.parametrize(("number", "text"), [(0, "zero"), (12, "twelve"), (40, "forty")])
def test_a_number_is_written_in_words(number: int, text: str) -> None:
    assert in_words(number) == text
    assert in_words(99) == "ninety-nine"
