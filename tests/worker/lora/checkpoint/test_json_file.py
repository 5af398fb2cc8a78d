"""The cache of parsed texts."""

import pytest

from worker.lora.checkpoint.json_file import (
    MAX_CACHED_BYTES,
    MAX_CACHED_TEXTS,
    cached_by_text,
)


def test_an_equal_text_is_parsed_once_while_it_is_cached() -> None:
    parsed: list[bytes] = []

    @cached_by_text
    def parse(text: bytes) -> list[bytes]:
        parsed.append(text)
        return [text]

    assert parse(b"a") is parse(b"a")
    assert parsed == [b"a"]
    for number in range(MAX_CACHED_TEXTS):
        parse(str(number).encode())
    parse(b"a")
    assert parsed.count(b"a") == 2


def test_neither_large_texts_nor_errors_are_cached() -> None:
    parsed: list[bytes] = []

    @cached_by_text
    def parse(text: bytes) -> int:
        parsed.append(text)
        return int(text)

    large = b"1" + b" " * MAX_CACHED_BYTES
    assert parse(large) == parse(large) == 1
    for _ in range(2):
        with pytest.raises(ValueError, match="invalid literal"):
            parse(b"x")
    assert parsed == [large, large, b"x", b"x"]
