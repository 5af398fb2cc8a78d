"""Long strings are taken out of a JSON text, however it is divided into chunks."""

import json
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from api.adapters import long_strings
from api.adapters.long_strings import LongStrings
from shared.errors import ErrorCode, JobFailed

MIN_CHARS = 32
short = st.text(max_size=2)
long = st.text(alphabet="abcXYZ019+/=", min_size=MIN_CHARS, max_size=4 * MIN_CHARS)
values = st.recursive(
    st.none() | st.integers() | short | long,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(short, inner, max_size=4),
    max_leaves=12,
)


@pytest.fixture(autouse=True, scope="module")
def short_limit() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(long_strings, "MIN_CHARS", MIN_CHARS)
        yield


def split(text: bytes, ends: Sequence[int], max_rest: int = 10**6) -> tuple[Any, list[bytes]]:
    """Return the parsed rest of a text, with its long strings put back, and the long strings."""
    strings, found = LongStrings(max_rest=max_rest), list[bytes]()
    cuts = [0, *sorted(end % (len(text) + 1) for end in ends), len(text)]
    for start, end in pairwise(cuts):
        for part in strings.split(text[start:end]):
            if len(strings.names) > len(found):
                found.append(b"")
            found[-1] += part
    assert len(found) == len(strings.names)
    by_name = dict(zip(strings.names, found, strict=True))

    def restored(value: Any) -> Any:
        if isinstance(value, list):
            return [restored(each) for each in value]
        if isinstance(value, dict):
            return {name: restored(each) for name, each in value.items()}
        return by_name[value].decode() if value in by_name else value

    return restored(json.loads(bytes(strings.rest))), found


@settings(deadline=None, max_examples=300)
@given(value=values, ends=st.lists(st.integers(0, 10_000), max_size=8), ascii=st.booleans())
def test_the_text_is_divided_into_long_strings_and_the_rest(
    value: Any, ends: list[int], ascii: bool
) -> None:
    text = json.dumps(value, ensure_ascii=ascii).encode("utf-8", "surrogatepass")
    restored, found = split(text, ends)
    assert restored == value
    assert all(len(each) >= MIN_CHARS for each in found)


def test_each_character_may_arrive_alone() -> None:
    value = {'a\\"': ["x" * 40, "", "y" * 50], "b": 'qu"ote'}
    text = json.dumps(value).encode()
    assert split(text, range(len(text)))[0] == value


@pytest.mark.parametrize("text", [b'["' + b"x" * 40 + b'\\n"]', b'["\\n' + b"x" * 40 + b'"]'])
def test_a_long_string_with_an_escape_is_refused(text: bytes) -> None:
    for ends in ([], range(len(text))):
        with pytest.raises(JobFailed, match="isn't base64"):
            split(text, ends)


def test_only_long_strings_may_exceed_the_limit_of_the_rest() -> None:
    split(b'["' + b"x" * 1000 + b'"]', [], max_rest=60)
    with pytest.raises(JobFailed) as failed:
        split(b"[" + b"1," * 40 + b"1]", [], max_rest=60)
    assert failed.value.error.code is ErrorCode.REQUEST_TOO_LARGE
