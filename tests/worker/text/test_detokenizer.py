"""Texts of tokens as they arrive, and the bytes that a token can stand for."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny import tiny_tokenizer
from tiny_tokenizers import CORPUS, EOS, byte_level_tokenizer, sentencepiece_tokenizer
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import CodeLlamaTokenizer, PreTrainedTokenizerFast

from shared.context_length import least_bytes
from worker.text.detokenizer import TextStream, TokenBytes
from worker.text.max_token_bytes import max_token_bytes

BYTE_LEVEL = byte_level_tokenizer()
SENTENCEPIECE = sentencepiece_tokenizer()
TABLES = {id(hf): TokenBytes(hf) for hf in (BYTE_LEVEL, SENTENCEPIECE)}
BOTH_KINDS = pytest.mark.parametrize("hf", [BYTE_LEVEL, SENTENCEPIECE], ids=["bytes", "pieces"])
stop_strings = st.lists(
    st.text(alphabet="helo w\ufffd你好🦜", min_size=1, max_size=4), max_size=3
).map(tuple)


def ids_of(hf: PreTrainedTokenizerFast, text: str) -> list[int]:
    ids: list[int] = hf(text, add_special_tokens=False)["input_ids"]
    return ids


def full_decode(hf: PreTrainedTokenizerFast, ids: Sequence[int]) -> str:
    text: str = hf.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return text


def cut(text: str, stop: Sequence[str]) -> str:
    """Return `text` before the stop string that is completed first."""
    for end in range(len(text) + 1):
        starts = [end - len(s) for s in stop if text[:end].endswith(s)]
        if starts:
            return text[: min(starts)]
    return text


def stream(
    hf: PreTrainedTokenizerFast, stop: Sequence[str] = (), is_text_start: bool = True
) -> TextStream:
    return TextStream(TABLES[id(hf)], stop, is_text_start=is_text_start)


def deltas(text: TextStream, ids: Sequence[int]) -> list[str]:
    return [*(text.feed(i) for i in ids), text.close()]


def random_ids(hf: PreTrainedTokenizerFast) -> st.SearchStrategy[list[int]]:
    return st.lists(st.integers(0, len(hf) + 2), max_size=40)


def tokenized_ids(hf: PreTrainedTokenizerFast) -> st.SearchStrategy[list[int]]:
    return st.text(max_size=20).map(lambda text: ids_of(hf, text))


@BOTH_KINDS
@given(data=st.data())
def test_deltas_add_up_to_the_full_decode_and_cut_no_character(
    hf: PreTrainedTokenizerFast, data: st.DataObject
) -> None:
    any_ids = tokenized_ids(hf) if hf is SENTENCEPIECE else tokenized_ids(hf) | random_ids(hf)
    ids, stop = data.draw(any_ids), data.draw(stop_strings)
    whole = full_decode(hf, ids)
    parts = deltas(stream(hf, stop), ids)
    assert "".join(parts) == cut(whole, stop)
    assert "\ufffd" in whole or not any("\ufffd" in part for part in parts)


@given(st.data())
def test_invalid_byte_tokens_leave_adjacent_characters_intact(data: st.DataObject) -> None:
    ids = data.draw(random_ids(SENTENCEPIECE))
    streamed = "".join(deltas(stream(SENTENCEPIECE), ids))
    expected = full_decode(SENTENCEPIECE, ids)
    # The library replaces a run of byte tokens entirely if one of them is invalid.
    if "\ufffd" not in expected:
        assert streamed == expected
    else:
        assert "\ufffd" in streamed


@BOTH_KINDS
@given(data=st.data())
def test_a_resumed_stream_continues_exactly(
    hf: PreTrainedTokenizerFast, data: st.DataObject
) -> None:
    ids, stop = data.draw(random_ids(hf)), data.draw(stop_strings)
    position = data.draw(st.integers(0, len(ids)))
    first = stream(hf, stop)
    emitted = "".join(first.feed(i) for i in ids[:position])
    resumed = stream(hf, stop)
    assert resumed.replay(ids[:position]) == emitted
    assert deltas(resumed, ids[position:]) == deltas(first, ids[position:])


def test_tags_of_tool_calls_are_text_even_where_they_are_special_tokens() -> None:
    hf = byte_level_tokenizer()
    hf.add_special_tokens({"additional_special_tokens": ["<tool_call>", "</tool_call>"]})
    ids = ids_of(hf, "a<tool_call>{}</tool_call>")
    assert hf.convert_tokens_to_ids("<tool_call>") in ids
    stream = TextStream(TokenBytes(hf), (), is_text_start=True)
    assert stream.replay(ids) + stream.close() == "a<tool_call>{}</tool_call>"


@pytest.mark.parametrize(("is_text_start", "expected"), [(True, "the"), (False, " the")])
def test_a_leading_space_is_kept_only_after_a_prompt(is_text_start: bool, expected: str) -> None:
    ids = SENTENCEPIECE.convert_tokens_to_ids(["▁the"])
    assert "".join(deltas(stream(SENTENCEPIECE, is_text_start=is_text_start), ids)) == expected


def ids_per_character(text: str) -> list[int]:
    """Return token ids that each add one character."""
    return [i for c in text for i in ids_of(BYTE_LEVEL, c)]


@BOTH_KINDS
@given(data=st.data())
def test_texts_of_next_tokens_add_up_to_the_text_and_offsets_point_into_it(
    hf: PreTrainedTokenizerFast, data: st.DataObject
) -> None:
    ids, echo = data.draw(tokenized_ids(hf)), data.draw(st.sampled_from(["", "echo "]))
    text = TextStream(TABLES[id(hf)], (), is_text_start=True, echo=echo)
    emitted, raw = "", echo.encode()
    for token_id in ids:
        _, token_bytes = text.next_token_text(token_id)
        assert text.num_chars == len(raw.decode(errors="ignore"))
        raw += token_bytes or b""
        emitted += text.feed(token_id)
    assert (emitted + text.close()).encode() == raw


def test_the_start_of_a_stop_string_is_emitted_at_the_end_and_none_counts_before_min_tokens() -> (
    None
):
    text = stream(BYTE_LEVEL, ["lo!"])
    emitted = "".join(text.feed(i) for i in ids_per_character("hello"))
    assert (emitted, text.close(), text.stopped_by) == ("hel", "lo", "")
    text = TextStream(TABLES[id(BYTE_LEVEL)], ["lo", "r"], is_text_start=True, min_tokens=4)
    assert text.replay(ids_per_character("hello wo")) == "hello wo"
    assert not text.stopped_by
    assert text.replay(ids_per_character("rld")) == ""
    assert text.stopped_by == "r"
    for stop in (["lo w"], ["wor", "o w"], ["lo w", "o w"]):
        text = TextStream(TABLES[id(BYTE_LEVEL)], stop, is_text_start=True, includes_stop=True)
        assert text.replay(ids_per_character("hello world")) + text.close() == "hello w"
        assert text.stopped_by in stop


def test_an_echo_is_emitted_with_the_first_token_and_not_searched_for_stop_strings() -> None:
    text = TextStream(TABLES[id(BYTE_LEVEL)], ["lo"], is_text_start=False, echo="hello")
    assert [text.feed(i) for i in ids_per_character("ab")] == ["helloa", "b"]
    assert not text.stopped_by
    empty = TextStream(TABLES[id(BYTE_LEVEL)], (), is_text_start=False, echo="hello")
    assert empty.close() == "hello"
    assert empty.next_token_text(BYTE_LEVEL.eos_token_id) == (BYTE_LEVEL.eos_token, None)
    assert empty.next_token_text(len(BYTE_LEVEL) + 5) == ("", None)


def test_each_id_is_decoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    table, decode, decoded = TokenBytes(BYTE_LEVEL), BYTE_LEVEL.decode, []

    def counted(ids: list[int], **kwargs: bool) -> str:
        decoded.append(ids)
        return str(decode(ids, **kwargs))

    monkeypatch.setattr(BYTE_LEVEL, "decode", counted)
    ids = ids_of(BYTE_LEVEL, "hello")
    TextStream(table, (), is_text_start=False).replay(ids * 50)
    assert len(decoded) == len(set(ids))


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
ANY_TEXTS = st.lists(st.one_of(st.text(), st.sampled_from(PIECES))).map("".join)


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
@given(text=ANY_TEXTS)
def test_no_token_represents_more_bytes_than_the_bound(
    hf: PreTrainedTokenizerFast, text: str
) -> None:
    num_tokens = len(hf(text, add_special_tokens=False)["input_ids"])
    assert max_token_bytes(hf) > 0
    assert num_tokens * max_token_bytes(hf) >= least_bytes(text)


def test_the_bound_is_the_size_of_the_longest_token_in_which_a_space_mark_is_one_byte() -> None:
    assert max_token_bytes(byte_level_tokenizer()) == len("今天天气很好".encode())
    assert max_token_bytes(tiny_tokenizer()) == len("<|assistant|>")
    assert max_token_bytes(sentencepiece_tokenizer()) == len("\u4f60\u597d".encode())
    hf = byte_level_tokenizer()
    hf.add_tokens("x" * 50)
    assert max_token_bytes(hf) == 50
    assert len(hf("x" * 500)["input_ids"]) == 10


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


def test_tokenizers_without_a_token_for_each_byte_and_those_of_other_classes_have_no_bound() -> (
    None
):
    few = models.BPE(vocab={"a": 0, "<unk>": 1}, merges=[], unk_token="<unk>")
    words = models.WordPiece(vocab={"a": 0, "<unk>": 1}, unk_token="<unk>")
    for model, splitter in (
        (few, None),
        (few, pre_tokenizers.ByteLevel()),
        (words, pre_tokenizers.ByteLevel()),
    ):
        backend = Tokenizer(model)
        if splitter is not None:
            backend.pre_tokenizer = splitter
        assert max_token_bytes(PreTrainedTokenizerFast(tokenizer_object=backend)) == 0
    names = sentencepiece_tokenizer().backend_tokenizer.get_vocab()
    assert max_token_bytes(CodeLlamaTokenizer(vocab=names, merges=[])) == 0, "it changes texts"
    assert max_token_bytes(object()) == 0
