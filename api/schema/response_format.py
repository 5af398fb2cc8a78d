"""Request fields that constrain answers: `response_format`, `structured_outputs`, `guided_*`."""

import json
from typing import Annotated, Any, Literal, Self

import orjson
from pydantic import BeforeValidator, Field, WithJsonSchema, model_validator

from api.schema.base import RequestModel
from shared.json_budget import JsonBudget

MAX_SCHEMA_BYTES = 128 << 10
ANY_OBJECT = '{"type":"object"}'


def as_json_text(schema: Any) -> Any:
    """Return a JSON Schema as compact JSON, with its properties in the client's order.

    Raises:
        ValueError: the schema isn't an object, contains NaN or an infinity, or is too large.
    """
    if not isinstance(schema, dict):
        raise ValueError("must be an object")
    if len(orjson.dumps(schema)) > MAX_SCHEMA_BYTES:
        raise ValueError(f"can have at most {MAX_SCHEMA_BYTES} bytes as compact JSON")
    try:
        return json.dumps(schema, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    except ValueError:
        raise ValueError("can't contain NaN or an infinity") from None


JsonSchema = Annotated[
    str,
    BeforeValidator(as_json_text),
    WithJsonSchema({"type": "object", "additionalProperties": True}),
]


class NamedSchema(RequestModel):
    """JSON Schema that an answer must satisfy."""

    name: str = Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")
    description: str | None = None
    schema_: JsonSchema = Field(alias="schema", description="JSON Schema, draft 2020-12.")
    strict: bool | None = None
    """Has no effect: the server always enforces the schema."""


class ResponseFormat(RequestModel):
    """Format of the answers: any text, any JSON object, or JSON that satisfies a schema."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: NamedSchema | None = None
    """Required with the type json_schema, and only allowed with it."""
    schema_: JsonSchema | None = Field(None, alias="schema")
    """JSON Schema of the objects, as LoRAX and llama.cpp write it. Only allowed with the type
    json_object."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.type == "json_schema") != (self.json_schema is not None):
            raise ValueError(
                "json_schema is required with the type json_schema, and only allowed with it"
            )
        if self.schema_ is not None and self.type != "json_object":
            raise ValueError("schema is only allowed with the type json_object")
        return self

    @property
    def schema_text(self) -> str | None:
        """JSON Schema that answers must satisfy, as JSON text. None if any text is allowed."""
        if self.json_schema is not None:
            return self.json_schema.schema_
        return self.schema_ or (ANY_OBJECT if self.type == "json_object" else None)


MAX_REGEX_CHARS = 16 << 10
MAX_CHOICE_TEXTS = 1000
MAX_GRAMMAR_CHARS = 128 << 10


def as_schema_text(schema: Any) -> Any:
    """Return a JSON Schema as compact JSON. Clients may send it as an object or as JSON text.

    Raises:
        ValueError: the text isn't JSON, or `as_json_text` refuses the schema.
    """
    if isinstance(schema, str):
        try:
            JsonBudget().spend(schema.encode())
            schema = orjson.loads(schema)
        except ValueError:
            raise ValueError("must be an object, or a text with a JSON object") from None
    return as_json_text(schema)


SchemaField = Annotated[
    str,
    BeforeValidator(as_schema_text),
    WithJsonSchema({"anyOf": [{"type": "object"}, {"type": "string"}]}),
]
RegexField = Annotated[str, Field(min_length=1, max_length=MAX_REGEX_CHARS)]
ChoiceField = Annotated[
    list[Annotated[str, Field(min_length=1)]],
    Field(min_length=1, max_length=MAX_CHOICE_TEXTS, fail_fast=True),
]
GrammarField = Annotated[str, Field(min_length=1, max_length=MAX_GRAMMAR_CHARS)]


class StructuredOutputs(RequestModel):
    """vLLM's constraints of answers. At most one of them may be set."""

    # pydantic's base class has a deprecated method `json`.
    json_: SchemaField | None = Field(None, alias="json", description="JSON Schema.")
    json_object: bool | None = Field(None, description="Whether answers must be JSON objects.")
    regex: RegexField | None = Field(None, description="Matches the whole answer.")
    choice: ChoiceField | None = Field(None, description="Texts of which an answer is one.")
    grammar: GrammarField | None = Field(None, description="Lark or GBNF grammar of answers.")
