from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny import tiny_tokenizer
from tiny_tokenizers import CORPUS, EOS, byte_level_tokenizer, sentencepiece_tokenizer
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import CodeLlamaTokenizer, PreTrainedTokenizerFast

from shared.context_length import least_bytes
from worker.text.token_bytes import max_token_bytes

Change = Callable[[PreTrainedTokenizerFast], object]
PIECES = [
    *CORPUS,
    EOS,
    " " * 40,
    "\u2581",
    "\u2581the",
    "<0x41>",
    "\x04",
    "e\u0302\u0301\u0327",
    "\u1fbe\u0308\u0301",
]
TEXTS = st.lists(st.one_of(st.text(), st.sampled_from(PIECES))).map("".join)


def composing_tokenizer() -> PreTrainedTokenizerFast:
    """Return a tokenizer like Qwen's, which normalizes to NFC and splits words before bytes."""
    hf = byte_level_tokenizer()
    hf.backend_tokenizer.normalizer = normalizers.NFC()
    hf.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\s+(?!\S)|\s+|\p{N}"), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    hf.add_tokens(
        [AddedToken("caf\u00e9 \u0958", normalized=True), AddedToken("<\uff5cend\uff5c>")]
    )
    return hf


def metaspace_tokenizer() -> PreTrainedTokenizerFast:
    """Return a tokenizer like sentencepiece's in the form of newer conversions."""
    hf = sentencepiece_tokenizer()
    hf.backend_tokenizer.normalizer = None
    hf.backend_tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    return hf


TOKENIZERS = [
    byte_level_tokenizer(),
    composing_tokenizer(),
    sentencepiece_tokenizer(),
    metaspace_tokenizer(),
    tiny_tokenizer(),
]


@pytest.mark.parametrize("hf", TOKENIZERS)
@given(text=TEXTS)
def test_no_token_represents_more_bytes_than_the_bound(
    hf: PreTrainedTokenizerFast, text: str
) -> None:
    num_tokens = len(hf(text, add_special_tokens=False)["input_ids"])
    assert max_token_bytes(hf) > 0
    assert num_tokens * max_token_bytes(hf) >= least_bytes(text)


def test_the_bound_is_the_size_of_the_longest_token() -> None:
    assert max_token_bytes(byte_level_tokenizer()) == len("今天天气很好".encode())
    assert max_token_bytes(tiny_tokenizer()) == len("<|assistant|>")
    hf = byte_level_tokenizer()
    hf.add_tokens("x" * 50)
    assert max_token_bytes(hf) == 50
    assert len(hf("x" * 500)["input_ids"]) == 10


def test_a_space_mark_counts_as_one_byte() -> None:
    assert max_token_bytes(sentencepiece_tokenizer()) == len("\u4f60\u597d".encode())


def backend(**parts: Any) -> Change:
    """Return a function that sets parts of a tokenizer's backend."""

    def change(hf: PreTrainedTokenizerFast) -> None:
        for name, part in parts.items():
            setattr(hf.backend_tokenizer, name, part)

    return change


def splitting(*first: Any) -> Change:
    return backend(pre_tokenizer=pre_tokenizers.Sequence([*first, pre_tokenizers.ByteLevel()]))


def template(text: str) -> Change:
    return lambda hf: setattr(hf, "chat_template", text)


LOWERCASE = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
ONLY_EOS = processors.TemplateProcessing(single=EOS, pair="$A $B", special_tokens=[(EOS, 1)])
CHANGES: dict[str, Change] = {
    "strips": lambda hf: hf.add_tokens(AddedToken("<mask>", lstrip=True)),
    "truncates": lambda hf: hf.backend_tokenizer.enable_truncation(5),
    "lowercases": backend(normalizer=LOWERCASE),
    "replaces": backend(normalizer=normalizers.Replace("  ", " ")),
    "removes": splitting(pre_tokenizers.Split("\n", "removed")),
    "splits at white space": splitting(pre_tokenizers.Whitespace()),
    "drops the prompt": backend(post_processor=ONLY_EOS),
    "has no bytes": backend(pre_tokenizer=None),
    "has suffixes": lambda hf: setattr(hf.backend_tokenizer.model, "end_of_word_suffix", "</w>"),
    "renders only the last message": template("{{ messages[-1].content }}"),
    "rejects chats": template("{{ raise_exception('only tools') }}"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_tokenizer_that_may_drop_text_has_no_bound(change: Change) -> None:
    hf = byte_level_tokenizer()
    assert max_token_bytes(hf) > 0
    change(hf)
    assert max_token_bytes(hf) == 0


def test_a_tokenizer_without_a_token_for_each_byte_has_no_bound() -> None:
    backend = Tokenizer(models.BPE(vocab={"a": 0, "<unk>": 1}, merges=[], unk_token="<unk>"))
    assert max_token_bytes(PreTrainedTokenizerFast(tokenizer_object=backend)) == 0
    backend.pre_tokenizer = pre_tokenizers.ByteLevel()
    assert max_token_bytes(PreTrainedTokenizerFast(tokenizer_object=backend)) == 0


def test_tokenizers_other_than_bpe_have_no_bound() -> None:
    backend = Tokenizer(models.WordPiece(vocab={"a": 0, "<unk>": 1}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel()
    assert max_token_bytes(PreTrainedTokenizerFast(tokenizer_object=backend)) == 0


def test_classes_that_modify_the_text_have_no_bound() -> None:
    plain = sentencepiece_tokenizer().backend_tokenizer
    names = plain.get_vocab()
    hf = CodeLlamaTokenizer(vocab=names, merges=[])
    assert max_token_bytes(hf) == 0
    assert max_token_bytes(object()) == 0
