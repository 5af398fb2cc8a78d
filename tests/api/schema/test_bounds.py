"""pydantic can report few errors of a body, because every container of the models is bounded.

`ValidationError.errors()` builds all errors, of which clients get the first one.
"""

from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import BaseModel

from api.openapi.document import MANAGEMENT_REQUESTS, REQUESTS, TOKENIZER_REQUESTS
from api.schema.batches import CreateBatchRequest

MODELS = (*REQUESTS, *TOKENIZER_REQUESTS, *MANAGEMENT_REQUESTS, CreateBatchRequest)
WRAPPERS = ("function-after", "nullable", "default", "model-field")


def containers(schema: Any, is_counted: bool = False) -> Iterator[tuple[dict[str, Any], bool]]:
    """Yield the lists and objects that pydantic validates, from its schema of a model.

    A plain validator reports one error, whatever the type of its field. The second value says
    whether a validator sees the container before its items are validated.
    """
    if isinstance(schema, list | tuple):
        for child in schema:
            yield from containers(child)
    if not isinstance(schema, dict) or schema.get("type") == "function-plain":
        return
    kind = schema.get("type")
    if kind in ("list", "dict"):
        yield schema, is_counted
    counts = kind == "function-before" or (is_counted and kind in WRAPPERS)
    for name, child in schema.items():
        if name != "metadata" or not isinstance(kind, str):  # of pydantic, not the field metadata
            yield from containers(child, counts)


@pytest.mark.parametrize("model", MODELS)
def test_lists_are_bounded_and_stop_at_their_first_invalid_item(model: type[BaseModel]) -> None:
    for schema, _ in containers(model.__pydantic_core_schema__):
        if schema["type"] == "list":
            assert "max_length" in schema
            assert schema.get("fail_fast") or schema["items_schema"]["type"] == "any"


@pytest.mark.parametrize("model", MODELS)
def test_the_fields_of_objects_with_typed_values_are_counted_first(model: type[BaseModel]) -> None:
    for schema, is_counted in containers(model.__pydantic_core_schema__):
        if schema["type"] == "dict" and schema["values_schema"]["type"] != "any":
            assert is_counted


def test_the_walk_finds_lists_and_objects() -> None:
    class Inner(BaseModel):
        texts: list[str]

    class Outer(BaseModel):
        inner: list[Inner] | None = None
        metadata: dict[str, str]

    found = list(containers(Outer.__pydantic_core_schema__))
    assert [(schema["type"], is_counted) for schema, is_counted in found] == [
        ("list", False),
        ("list", False),
        ("dict", False),
    ]
