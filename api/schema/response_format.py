"""The request field `response_format`, which constrains answers to JSON."""

import json
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator

MAX_SCHEMA_BYTES = 128 << 10
ANY_OBJECT = '{"type":"object"}'


def as_json_text(schema: Any) -> Any:
    """Return a JSON Schema as compact JSON, with its properties in the client's order.

    Raises:
        ValueError: the schema isn't an object, contains NaN or an infinity, is nested too deeply,
            or is too large.
    """
    if not isinstance(schema, dict):
        raise ValueError("must be an object")
    try:
        text = json.dumps(schema, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    except RecursionError:
        raise ValueError("is nested too deeply") from None
    except ValueError:
        raise ValueError("can't contain NaN or an infinity") from None
    if len(text.encode()) > MAX_SCHEMA_BYTES:
        raise ValueError(f"can have at most {MAX_SCHEMA_BYTES} bytes as compact JSON")
    return text


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class NamedSchema(_Strict):
    """JSON Schema that an answer must satisfy."""

    name: str = Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")
    description: str | None = None
    schema_: Annotated[
        str,
        BeforeValidator(as_json_text),
        WithJsonSchema({"type": "object", "additionalProperties": True}),
    ] = Field(alias="schema", description="JSON Schema, draft 2020-12.")
    strict: bool | None = Field(
        None, description="Has no effect: the server always enforces the schema."
    )


class ResponseFormat(_Strict):
    """Format of the answers: any text, any JSON object, or JSON that satisfies a schema."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: NamedSchema | None = Field(
        None, description="Required with the type json_schema, and only allowed with it."
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.type == "json_schema") != (self.json_schema is not None):
            raise ValueError(
                "json_schema is required with the type json_schema, and only allowed with it"
            )
        return self

    @property
    def schema_text(self) -> str | None:
        """JSON Schema that answers must satisfy, as JSON text. None if any text is allowed."""
        if self.json_schema is not None:
            return self.json_schema.schema_
        return ANY_OBJECT if self.type == "json_object" else None
