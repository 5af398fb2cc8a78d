"""`response_format`: what form an answer takes."""

import json
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator

MAX_SCHEMA_BYTES = 128 << 10
ANY_OBJECT = '{"type":"object"}'


def as_json_text(schema: Any) -> Any:
    """A JSON Schema as compact JSON, its properties in the order in which they were sent."""
    if not isinstance(schema, dict):
        raise ValueError("must be an object")
    try:
        text = json.dumps(schema, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    except RecursionError:
        raise ValueError("is nested too deeply") from None
    except ValueError:
        raise ValueError("can't have NaN or an infinity in it") from None
    if len(text.encode()) > MAX_SCHEMA_BYTES:
        raise ValueError(f"can have at most {MAX_SCHEMA_BYTES} bytes as compact JSON")
    return text


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class NamedSchema(_Strict):
    """The schema of an answer."""

    name: str = Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")
    description: str | None = None
    schema_: Annotated[
        str,
        BeforeValidator(as_json_text),
        WithJsonSchema({"type": "object", "additionalProperties": True}),
    ] = Field(alias="schema", description="JSON Schema, draft 2020-12")
    strict: bool | None = Field(None, description="a schema is always enforced")


class ResponseFormat(_Strict):
    """Any text, any JSON object, or JSON that is valid under a schema."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: NamedSchema | None = Field(None, description="with type json_schema, only there")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.type == "json_schema") != (self.json_schema is not None):
            raise ValueError("json_schema belongs to the type json_schema, which needs it")
        return self

    @property
    def schema_text(self) -> str | None:
        """What an answer must be valid under, as JSON; None if it may be any text."""
        if self.json_schema is not None:
            return self.json_schema.schema_
        return ANY_OBJECT if self.type == "json_object" else None
