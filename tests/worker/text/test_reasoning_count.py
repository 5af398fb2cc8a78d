"""Numbers of tokens of reasoning."""

import pytest

from shared.reasoning_form import ReasoningForm
from worker.text.reasoning_count import ReasoningCounter


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        (["<think>", "so", " it", "</think>", "4"], 2),
        (["\n", "<thi", "nk>", "so", " it", " is", "</think>", "<think>", "4"], 3),
        (["<think>so", " it", "</think>4"], 2),  # the prompt has written the marker
        (["<think>", "so", "", " it"], 3),
        (["4", "<think>", "so", "</think>"], 0),
        (["<think>", "</think>", "4"], 0),
        (["<tool>", "x"], 0),
        ([], 0),
    ],
)
def test_the_tokens_between_the_markers_are_counted(tokens: list[str], expected: int) -> None:
    counter = ReasoningCounter(ReasoningForm.THINK)
    for text in tokens:
        counter.add(text)
    assert counter.num_tokens == expected
    without = ReasoningCounter(None)
    for text in tokens:
        without.add(text)
    assert without.num_tokens == 0
