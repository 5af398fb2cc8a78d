import pytest

from worker.lora.checkpoint.text_cache import MAX_BYTES, MAX_KEPT, kept


def test_a_text_is_parsed_once_as_long_as_it_is_among_the_last() -> None:
    parsed: list[bytes] = []

    @kept
    def parse(text: bytes) -> list[bytes]:
        parsed.append(text)
        return [text]

    assert parse(b"a") is parse(b"a")
    assert parsed == [b"a"]
    for number in range(MAX_KEPT):
        parse(str(number).encode())
    parse(b"a")
    assert parsed.count(b"a") == 2


def test_neither_large_texts_nor_errors_are_kept() -> None:
    parsed: list[bytes] = []

    @kept
    def parse(text: bytes) -> int:
        parsed.append(text)
        return int(text)

    large = b"1" + b" " * MAX_BYTES
    assert parse(large) == parse(large) == 1
    for _ in range(2):
        with pytest.raises(ValueError, match="invalid literal"):
            parse(b"x")
    assert parsed == [large, large, b"x", b"x"]
