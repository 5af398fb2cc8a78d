"""Fields for which clients may send one value, or a list with an equal value for each prompt."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core.core_schema import CoreSchema, no_info_before_validator_function


def as_same(value: Any) -> Any:
    """Return the value of a field, even if the client sent a list of equal items, one per prompt.

    Raises:
        ValueError: the items differ.
    """
    if not isinstance(value, list):
        return value
    if any(item != value[0] for item in value):
        raise ValueError("must be the same for all prompts of a request; send several requests")
    return value[0] if value else None


def as_same_ids(value: Any) -> Any:
    """Return one list of token ids, or None. Clients may send a list of equal lists.

    Raises:
        ValueError: the lists of several prompts differ.
    """
    if isinstance(value, list) and value and isinstance(value[0], list):
        value = as_same(value)
    return None if value == [] else value


@dataclass(frozen=True, slots=True)
class Same:
    """Annotation of a field for which clients may send a list of equal values.

    The field must accept None, which stands for an empty list.
    """

    convert: Callable[[Any], Any] = as_same
    """Function that returns the value of the field for the value that the client sent."""

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        """Return the schema of the field, which also accepts lists."""
        return no_info_before_validator_function(self.convert, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """Return a JSON Schema that allows the field's own value or a list of such values."""
        one = handler(schema)
        return {"anyOf": [one, {"type": "array", "items": one}]}
