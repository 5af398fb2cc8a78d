"""Random JSON Schemas with finite valid texts, and a validator for them."""

import json
from random import Random
from typing import Any

from jsonschema import Draft202012Validator

Schema = dict[str, Any]

PATTERNS = (r"^[A-Z]{2}-\d{3}$", r"^(red|green|blue)$", r"^[a-f0-9]{4,8}$", r"^\+?\d{2,6}$")
FORMATS = ("uuid", "ipv4")
NAMES = ("id", "name", "größe", "a b", 'with "quotes"', "items", "x/y~z", "名前", "nested", "$v")
VALUES = (
    "open",
    "closed",
    "",
    'a "b"',
    "naïve",
    "日本",
    0,
    -7,
    2.5,
    True,
    False,
    None,
    [],
    {"k": [1]},
)
MAX_DEPTH = 3


def random_schema(seed: int) -> Schema:
    """Return a schema for an object. Equal seeds return equal schemas."""
    random = Random(seed)
    pair = {"type": "array", "prefixItems": [_scalar(random), _ref("scalar")]}
    definitions = {"scalar": _scalar(random), "pair": {**pair, "items": False, "minItems": 2}}
    return {**_object(random, depth=0), "$defs": definitions}


def too_many_choices_later() -> Schema:
    """Return a schema that compiles, but makes the grammar's parser fail after `[1,{`."""
    properties = {f"k{i}": {"type": "string"} for i in range(800)}
    wide = {"type": "object", "properties": properties, "additionalProperties": False}
    return {"type": "array", "prefixItems": [{"const": 1}, wide], "minItems": 2}


def is_valid(schema: Schema, text: str) -> bool:
    """Return whether `text` is a JSON value that satisfies the schema, including its formats."""
    checker = Draft202012Validator.FORMAT_CHECKER
    return Draft202012Validator(schema, format_checker=checker).is_valid(json.loads(text))


def _any(random: Random, depth: int) -> Schema:
    kinds = [_leaf, _leaf]
    if depth < MAX_DEPTH:
        kinds += [_object, _array, _any_of]
    kind = random.choice(kinds)
    return _leaf(random) if kind is _leaf else kind(random, depth + 1)


def _object(random: Random, depth: int) -> Schema:
    names = random.sample(NAMES, random.randint(1, 4 if depth < 2 else 2))
    properties = {name: _any(random, depth) for name in names}
    required = [name for name in names if random.random() < 0.7]
    return {
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": False,
    }


def _array(random: Random, depth: int) -> Schema:
    least = random.randint(0, 2)
    most = least + random.randint(0, 2)
    return {"type": "array", "items": _any(random, depth), "minItems": least, "maxItems": most}


def _any_of(random: Random, depth: int) -> Schema:
    return {"anyOf": [_any(random, depth) for _ in range(random.randint(2, 3))]}


def _leaf(random: Random) -> Schema:
    is_ref = random.random() < 0.15
    return _ref(random.choice(("scalar", "pair"))) if is_ref else _scalar(random)


def _scalar(random: Random) -> Schema:
    return random.choice((_string, _integer, _number, _enum, _const, _plain))(random)


def _string(random: Random) -> Schema:
    least = random.randint(0, 3)
    return random.choice(
        (
            {"type": "string", "minLength": least, "maxLength": least + random.randint(0, 8)},
            {"type": "string", "pattern": random.choice(PATTERNS)},
            {"type": "string", "format": random.choice(FORMATS)},
            {"type": ["string", "null"], "maxLength": 5},
        )
    )


def _integer(random: Random) -> Schema:
    least = random.randint(-1000, 1000)
    bounds = {"minimum": least, "exclusiveMaximum": least + random.randint(5, 500)}
    return {"type": "integer", **bounds, **random.choice(({}, {"multipleOf": 5}))}


def _number(random: Random) -> Schema:
    least = random.randint(-20, 20) / 4
    return {"type": "number", "minimum": least, "maximum": least + 8, "multipleOf": 0.25}


def _enum(random: Random) -> Schema:
    return {"enum": random.sample(VALUES, random.randint(1, 5))}


def _const(random: Random) -> Schema:
    return {"const": random.choice(VALUES)}


def _plain(random: Random) -> Schema:
    return {"type": random.choice(("boolean", "null"))}


def _ref(name: str) -> Schema:
    return {"$ref": f"#/$defs/{name}"}
