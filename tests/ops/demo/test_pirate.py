import pytest

from ops.demo import pirate


def test_no_question_is_both_learned_and_held_out() -> None:
    assert not set(pirate.QUESTIONS) & set(pirate.HELD_OUT_QUESTIONS)


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
def test_the_style_of_an_answer_is_judged(answer: str, is_right: bool) -> None:
    assert pirate.is_right(pirate.held_out()[0], answer) is is_right
