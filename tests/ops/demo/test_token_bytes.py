"""How many bytes a token of the demo model stands for."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from shared.context_length import least_bytes
from worker.text.token_bytes import max_token_bytes

pytestmark = pytest.mark.demo
PIECES = [
    "\n" + " " * 200,
    "#" * 300,
    "<|im_end|>",
    "▁",
    "e\u0302\u0301",
    "12345",
    "\x04\U00040000",
    "the quick fox",
]


@pytest.fixture(scope="module")
def tokenizer(demo_folder: Path) -> Any:
    return AutoTokenizer.from_pretrained(demo_folder)


@given(text=st.lists(st.one_of(st.text(), st.sampled_from(PIECES))).map("".join))
def test_no_token_stands_for_more_bytes(tokenizer: Any, text: str) -> None:
    num_tokens = len(tokenizer(text)["input_ids"])
    assert num_tokens * max_token_bytes(tokenizer) >= least_bytes(text)


def test_the_longest_token_is_a_line_break_and_eighty_spaces(tokenizer: Any) -> None:
    assert max_token_bytes(tokenizer) == 81
