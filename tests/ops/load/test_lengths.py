import pytest
from hypothesis import given
from hypothesis import strategies as st

from ops.load.lengths import Length, parse_length
from shared.errors import SettingsError


@pytest.mark.parametrize(
    ("text", "length"),
    [("1", Length(1, 1)), ("128", Length(128, 128)), ("64-256", Length(64, 256))],
)
def test_a_length_is_one_number_or_a_range(text: str, length: Length) -> None:
    assert parse_length("--input", text) == length


@pytest.mark.parametrize("text", ["", "0", "-5", "9-3", "0-3", "1-2-3", "12a", "1.5", "a-b"])
def test_an_invalid_length_is_refused_with_flag_and_value(text: str) -> None:
    with pytest.raises(SettingsError, match=f"--input {text}"):
        parse_length("--input", text)


@given(st.integers(1, 99), st.integers(0, 99), st.text())
def test_a_sample_is_within_the_range_and_the_same_for_the_same_seed(
    low: int, width: int, seed: str
) -> None:
    length = Length(low, low + width)
    assert low <= length.sample(seed) <= low + width
    assert length.sample(seed) == length.sample(seed)


def test_every_length_of_a_range_is_sampled() -> None:
    assert {Length(3, 6).sample(str(n)) for n in range(100)} == {3, 4, 5, 6}
