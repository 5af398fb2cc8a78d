"""JSON from clients is parsed within bounds, which count what it holds exactly."""

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.http.body import parse_json_object
from shared.errors import JobFailed
from shared.json_text import MAX_DEPTH, MAX_NODES, MAX_VALUES, JsonBudget, TooComplex

TEXT = st.text(alphabet='ab"\\[]{},: \n\u00e9', max_size=8)
VALUES = st.recursive(
    st.none() | st.integers(-9, 9) | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=20,
)


def num_nodes(value: Any) -> int:
    if isinstance(value, list):
        return 1 + sum(map(num_nodes, value))
    if isinstance(value, dict):
        return 1 + sum(1 + num_nodes(member) for member in value.values())
    return int(isinstance(value, str))


@given(VALUES)
def test_nodes_are_counted_exactly(value: Any) -> None:
    budget = JsonBudget()
    budget.spend(orjson.dumps(value))
    assert budget.num_nodes == num_nodes(value)


def test_texts_share_a_budget() -> None:
    budget = JsonBudget(max_nodes=4)
    budget.spend(b'["a"]')
    with pytest.raises(TooComplex, match="has more than 4 arrays, objects and strings"):
        budget.spend(b'["a",["b"]]')


@pytest.mark.parametrize(
    "body",
    [
        b'{"a":"' + b"[{}]," * 500_000 + b'"}',
        b'{"a":"' + rb"\"[\\" * 500_000 + b'"}',
        b'{"a":[' + b"1," * (MAX_VALUES - 1) + b"1]}",
        b'{"a":[' + b"{}," * (MAX_NODES - 4) + b"{}]}",
        b'{"a":' + b"[" * (MAX_DEPTH - 1) + b"]" * (MAX_DEPTH - 1) + b"}",
    ],
)
def test_bodies_within_the_bounds_are_accepted_and_can_be_written_again(body: bytes) -> None:
    assert orjson.dumps({"job": [parse_json_object(body)]})


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b'{"a":[' + b"{}," * MAX_NODES + b"{}]}", "arrays, objects and strings"),
        (b'{"a":[' + b'"",' * MAX_NODES + b'""]}', "arrays, objects and strings"),
        (b'{"a":[' + b"{}," * MAX_NODES + b"NaN]}", "arrays, objects and strings"),
        (b'{"a":[' + b"1," * MAX_VALUES + b"1,1]}", "values"),
        (b'{"a":' + b"[" * MAX_DEPTH + b"]" * MAX_DEPTH + b"}", "nested in more than 128 levels"),
        (b'{"a":' + b"[" * MAX_DEPTH + b"NaN" + b"]" * MAX_DEPTH + b"}", "nested in more than"),
    ],
)
def test_bodies_beyond_a_bound_are_refused(body: bytes, reason: str) -> None:
    with pytest.raises(JobFailed, match=reason):
        parse_json_object(body)
