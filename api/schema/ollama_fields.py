"""Types of the fields of Ollama's requests."""

import re
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, PlainValidator, WithJsonSchema

from api.schema.base import IGNORED
from api.schema.embeddings import MAX_INPUTS
from api.schema.generation import MAX_STOPS, as_stops
from api.schema.response_format import as_json_text

MAX_LOGPROBS = 20
THINK_LEVELS = ("low", "medium", "high", "max")
_NUMBER, _UNIT = r"[0-9]+(?:\.[0-9]*)?", "(?:ns|us|µs|ms|s|m|h)"
_DURATION = re.compile(rf"[-+]?(?:{_NUMBER}|(?:{_NUMBER}{_UNIT})+)")
_ZERO = re.compile(rf"[-+]?0+(?:\.0*)?{_UNIT}?")
_MAX_DURATION_CHARS = 32


def as_whole(value: Any) -> Any:
    """Return a number without a fraction as an integer, because Ollama accepts 40.0 for 40."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def as_format(value: Any) -> Any:
    """Check the field `format`, and return it unchanged.

    Raises:
        ValueError: it is neither `json`, nor empty, nor a JSON Schema.
    """
    if value in (None, "", "json"):
        return value
    if not isinstance(value, dict):
        raise ValueError('must be "json" or a JSON Schema')
    as_json_text(value)
    return value


def as_think(value: Any) -> Any:
    """Check the field `think`, and return it unchanged.

    Raises:
        ValueError: it is neither a boolean nor a level.
    """
    if value is None or isinstance(value, bool) or value in THINK_LEVELS:
        return value
    raise ValueError(f"must be true, false or one of {', '.join(THINK_LEVELS)}")


def as_keep_alive(value: Any) -> Any:
    """Check the field `keep_alive`, and return it unchanged.

    Raises:
        ValueError: it is neither a number of seconds nor a duration such as 5m.
    """
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    is_text = isinstance(value, str) and len(value) <= _MAX_DURATION_CHARS
    if value is None or is_number or (is_text and _DURATION.fullmatch(value)):
        return value
    raise ValueError("must be a number of seconds or a duration, such as 300 or 5m")


def is_unload(keep_alive: float | str | None) -> bool:
    """Return whether a value of `keep_alive` asks to unload the model."""
    return bool(_ZERO.fullmatch(keep_alive)) if isinstance(keep_alive, str) else keep_alive == 0


def as_inputs(value: Any) -> list[str]:
    """Return the field `input` as a list of texts. An empty text or null means no input.

    Raises:
        ValueError: the value is neither a text nor a list of texts, or the list has too many
            texts or an empty one.
    """
    inputs = ([value] if value else []) if isinstance(value, str | None) else value
    if not isinstance(inputs, list) or not all(isinstance(text, str) for text in inputs):
        raise ValueError("must be a string or a list of strings")
    if len(inputs) > MAX_INPUTS:
        raise ValueError(f"can have at most {MAX_INPUTS} inputs, not {len(inputs)}")
    if "" in inputs:
        raise ValueError("can't have an empty input in a list")
    return inputs


Whole = Annotated[int, BeforeValidator(as_whole)]
Unused = Annotated[Any, Field(description=IGNORED)]
KeepAlive = Annotated[
    float | str | None,
    PlainValidator(as_keep_alive),
    WithJsonSchema({"type": ["number", "string", "null"]}),
    Field(description="Has no effect: workers keep the models that are used most."),
]
Think = Annotated[
    bool | str | None,
    PlainValidator(as_think),
    WithJsonSchema({"enum": [True, False, *THINK_LEVELS, None]}),
]
Format = Annotated[
    Any,
    AfterValidator(as_format),
    WithJsonSchema({"anyOf": [{"enum": ["", "json"]}, {"type": "object"}, {"type": "null"}]}),
]
Inputs = Annotated[
    list[str],
    PlainValidator(as_inputs),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": ["string", "null"]},
                {
                    "type": "array",
                    "items": {"type": "string", "minLength": 1},
                    "maxItems": MAX_INPUTS,
                },
            ]
        }
    ),
]
Stops = Annotated[
    list[str],
    PlainValidator(as_stops),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "minLength": 1},
                {
                    "type": "array",
                    "items": {"type": "string", "minLength": 1},
                    "maxItems": MAX_STOPS,
                },
                {"type": "null"},
            ]
        }
    ),
]
