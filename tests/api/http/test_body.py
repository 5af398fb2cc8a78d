import pytest

from api.http.body import parse_json_object
from shared.errors import ErrorCode, JobFailed


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"nope",
        b'{"a": 1,}',
        b"\xff\xfe",
        b'{"a": "\\ud800"}',
        b'{"a": "\\ud800", "b": NaN}',
        b'{"a": "NaN \\ud800"}',
        b'{"a": "\\ud800", "b": 1e999}',
        '{"a": 1}'.encode("utf-16"),
        '{"a": NaN}'.encode("utf-16"),
        b"[" * 100_000,
        b"NaN" + b"[" * 100_000,
        b"[]",
        b"1",
        b"null",
        b'"text"',
    ],
)
def test_what_is_no_json_object_is_refused(body: bytes) -> None:
    with pytest.raises(JobFailed) as caught:
        parse_json_object(body)
    assert caught.value.error.code is ErrorCode.INVALID_VALUE
    assert "JSON" in caught.value.error.message


@pytest.mark.parametrize("number", ["NaN", "-Infinity", "1e999", "-1e999"])
def test_what_is_no_finite_number_comes_through_so_that_its_field_can_be_named(number: str) -> None:
    body = f'{{"temperature": {number}}}'.encode()
    assert parse_json_object(body).keys() == {"temperature"}


def test_a_json_object_is_read() -> None:
    assert parse_json_object('{"ä": [1, "x"]}'.encode()) == {"ä": [1, "x"]}
