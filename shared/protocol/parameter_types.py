"""JSON types of tools' parameters, for parsers in `api/render` and grammars in `worker/text`."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from shared.protocol.tools import ToolForm, ToolUse

UNTYPED_VALUES = (ToolForm.QWEN3_CODER, ToolForm.GLM45)
"""Forms in which strings have no quotes. Only a parameter's schema shows whether `5` is a
string."""
MAX_TYPED = 1024
"""Maximum number of parameters of one request whose types are kept with its answer. The values of
further parameters are decoded as strings."""
MAX_SCHEMAS = 64
"""Maximum number of schemas read for one parameter, including references and alternatives."""
_STRING = frozenset(("string",))


def parameter_types(function: Mapping[str, Any]) -> dict[str, frozenset[str]]:
    """Return the JSON types of a function's parameters. Pure string parameters are left out."""
    schema = function.get("parameters")
    properties = schema.get("properties") if isinstance(schema, dict) else None
    if not isinstance(properties, dict):
        return {}
    found = {name: frozenset(_types(prop, schema)) for name, prop in properties.items()}
    return {name: types for name, types in found.items() if types and types != _STRING}


def rendered_tools(use: ToolUse) -> ToolUse:
    """Return `use` reduced to the tools' names and, for `UNTYPED_VALUES`, their parameter types."""
    left = MAX_TYPED if use.form in UNTYPED_VALUES else 0
    tools = []
    for tool in sorted(use.tools, key=lambda tool: str(tool["function"]["name"])):
        if (name := tool["function"]["name"]) not in use.names:
            continue
        function: dict[str, Any] = {"name": name}
        types = list(parameter_types(tool["function"]).items())[:left] if left else []
        if types:
            properties = {key: {"type": sorted(kinds)} for key, kinds in types}
            function["parameters"] = {"properties": properties}
            left -= len(types)
        tools.append({"type": "function", "function": function})
    return replace(use, tools=tuple(tools))


def _types(schema: Any, root: Any) -> set[str]:
    """Return the JSON types that a schema allows, directly or in references and alternatives."""
    types, waiting = set[str](), [schema]
    for _ in range(MAX_SCHEMAS):
        if not waiting:
            break
        inner = waiting.pop()
        if not isinstance(inner, dict):
            continue
        named, values = inner.get("type"), inner.get("enum")
        types.update(
            t for t in (named if isinstance(named, list) else [named]) if isinstance(t, str)
        )
        types.update(map(_type_of, values if isinstance(values, list) else []))
        types.update([_type_of(inner["const"])] if "const" in inner else [])
        types.update(["object"] if "properties" in inner else [])
        if isinstance(inner.get("$ref"), str):
            waiting.append(_resolve(inner["$ref"], root))
        for keyword in ("anyOf", "oneOf", "allOf"):
            alternatives = inner.get(keyword)
            waiting += alternatives if isinstance(alternatives, list) else []
    return types


def _resolve(reference: str, root: Any) -> Any:
    """Return the part of `root` that a local reference such as `#/$defs/city` names, or None."""
    target = root if reference.startswith("#") else None
    for key in reference.removeprefix("#").strip("/").split("/"):
        if key:
            target = target.get(key) if isinstance(target, dict) else None
    return target


def _type_of(value: Any) -> str:
    return _TYPE_NAMES.get(type(value), "null")


_TYPE_NAMES: Mapping[type, str] = {
    bool: "boolean",
    int: "integer",
    float: "number",
    str: "string",
    list: "array",
    dict: "object",
}
"""Maps the Python types of decoded values to the names of JSON types."""
