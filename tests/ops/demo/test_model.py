"""The demo model, its tokenizer and its conversion."""

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer

from ops.demo import model as demo
from shared.context_length import least_bytes
from worker.text.max_token_bytes import max_token_bytes

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


def test_it_answers(demo_folder: Path, tokenizer: Any) -> None:
    model = AutoModelForCausalLM.from_pretrained(demo_folder, dtype=torch.bfloat16)
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": "What is the capital of France?"}],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
    )
    with torch.inference_mode():
        ids = model.generate(**prompt, max_new_tokens=12, do_sample=False)
    answer = tokenizer.decode(ids[0, prompt["input_ids"].shape[1] :])
    assert "Paris" in answer
    assert answer.endswith("<|im_end|>")


@pytest.mark.parametrize(
    "text",
    [
        "Hello, world!",
        "你好,世界!请说中文。",
        "👩‍👩‍👧‍👦 and 🦜",
        "  two spaces\n\ttab «quotes» café Žižek",
        "½ ٣ ² 2024",
        "<|im_start|>user\nhi<|im_end|>\n",
        "don't , . ! a",
    ],
)
def test_text_survives_a_round_trip(tokenizer: Any, text: str) -> None:
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_each_digit_is_a_token(tokenizer: Any) -> None:
    # The GGUF file only names this rule (`smollm`), in which ½ and ² are digits.
    assert tokenizer("x½2²10").tokens()[-2:] == ["1", "0"]
    pieces = tokenizer.backend_tokenizer.pre_tokenizer.pre_tokenize_str("a½2²10")
    assert [len(text) for text, _ in pieces] == [1, 2, 1, 2, 1, 1]


def test_control_tokens_are_single_and_the_longest_token_is_known(tokenizer: Any) -> None:
    assert tokenizer("<|im_start|><|im_end|><|endoftext|>")["input_ids"] == [1, 2, 0]
    assert tokenizer.eos_token == "<|im_end|>"
    assert tokenizer.model_max_length == 8192
    assert max_token_bytes(tokenizer) == 81  # a line break with eighty spaces


def test_the_template_adds_its_system_message(tokenizer: Any) -> None:
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": "hi"}], tokenize=False, add_generation_prompt=True
    )
    assert text == (
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face"
        "<|im_end|>\n<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
    )


def test_the_cache_is_private_and_has_no_incomplete_model(demo_folder: Path) -> None:
    assert demo_folder.parents[1].stat().st_mode & 0o777 == 0o700
    assert [path.name for path in demo_folder.parent.iterdir()] == [demo.SERVED_NAME]


def test_a_conversion_that_fails_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(source: Path, target: Path) -> None:
        (target / "half").touch()
        raise OSError("no space left")

    monkeypatch.setattr(demo, "_convert", fails)
    with pytest.raises(OSError, match="no space left"):
        demo.demo_model(tmp_path)
    assert list((tmp_path / demo.RECIPE).iterdir()) == []


@given(text=st.lists(st.one_of(st.text(), st.sampled_from(PIECES))).map("".join))
@pytest.mark.slow
def test_no_token_has_more_bytes_than_the_maximum(tokenizer: Any, text: str) -> None:
    num_tokens = len(tokenizer(text)["input_ids"])
    assert num_tokens * max_token_bytes(tokenizer) >= least_bytes(text)
