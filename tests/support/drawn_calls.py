"""Any calls of the tools of `written_calls.py`, for property tests."""

from typing import Any

from hypothesis import strategies as st

NONE = ("get", dict[str, Any]())
"""A call without arguments."""
TAGS = ("</parameter>", "</arg_value>", '"', "\\", "'")
VALUES = st.fixed_dictionaries(
    {},
    optional={
        "city": st.text(max_size=9),
        "days": st.integers(-(2**70), 2**70),
        "heat": st.none() | st.floats(-1e9, 1e9).map(lambda x: x + 0.5),
        "wet": st.booleans(),
        "tags": st.lists(st.sampled_from(TAGS) | st.text(max_size=4), max_size=3),
        "area": st.dictionaries(st.text(max_size=2), st.booleans() | st.none(), max_size=2),
        "mode": st.sampled_from(["fast", "slow"]),
    },
)


def is_free(text: str) -> bool:
    """Return whether `text` can be a value in all forms."""
    return not any(tag in text for tag in ("</parameter", "</arg_value"))


CALLS = st.lists(
    st.tuples(st.just("get_weather"), VALUES.filter(lambda v: is_free(v.get("city", ""))))
    | st.just(NONE)
    | st.tuples(st.just("get_weather-2"), st.fixed_dictionaries({"day": st.integers()})),
    min_size=1,
    max_size=3,
)
"""One to three calls, whose arguments can be written in all forms."""
